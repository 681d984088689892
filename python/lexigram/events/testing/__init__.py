"""Contract suites for backends, scenarios for aggregates, fixtures for pytest."""
