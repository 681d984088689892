"""What runs around handlers: validation, transactions, logging, retries, metrics, circuit breaker."""
