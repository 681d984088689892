"""Configuration of the buses and their middleware. Source: spec/reference-surface.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar

from lexigram.events.config.section import ConfigSection, section, setting


@section
class CommandBusConfig(ConfigSection):
    """Retries, timeout and middleware of the command bus."""

    max_retries: int = setting(3, ge=0)
    retry_delay_seconds: float = setting(1.0, ge=0)
    timeout_seconds: float = setting(30.0, gt=0)
    enable_validation: bool = True
    enable_logging: bool = True
    enable_metrics: bool = True


@section
class QueryBusConfig(ConfigSection):
    """Timeout and middleware of the query bus."""

    timeout_seconds: float = setting(30.0, gt=0)
    enable_logging: bool = True
    enable_metrics: bool = True


@section
class EventBusConfig(ConfigSection):
    """How events reach their handlers."""

    ALIASES: ClassVar[Mapping[str, str]] = {"handler_timeout": "handler_timeout_seconds"}

    backend: str = setting("memory", choices=("memory", "redis", "rabbitmq", "kafka", "azure"))
    max_concurrent_handlers: int = setting(10, ge=1)
    handler_timeout_seconds: float = setting(30.0, gt=0)
    retry_failed_handlers: bool = True
    max_handler_retries: int = setting(3, ge=0)
    retry_delay_seconds: float = setting(0.1, ge=0)
    enable_dead_letter: bool = True
    allow_no_handlers: bool = True
    parallel_dispatch: bool = True
    continue_on_error: bool = True
    max_queue_per_subscriber: int = setting(1000, ge=1)
    shutdown_timeout_seconds: float = setting(10.0, ge=0)


@section
class LoggingMiddlewareConfig(ConfigSection):
    """What the logging middleware writes, and at which level."""

    enabled: bool = True
    log_level: str = setting("INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    include_payload: bool = False
    max_payload_length: int = setting(1000, ge=1)


@section
class ValidationMiddlewareConfig(ConfigSection):
    """Whether messages are validated before they are handled."""

    enabled: bool = True
    strict_mode: bool = True


@section
class TransactionMiddlewareConfig(ConfigSection):
    """Whether commands run in a transaction.

    `use_store_transaction` runs each command in a unit of work of the event store: all or nothing over several saves,
    but one command at a time on SQLite, and conflicts show up outside of the retries. `isolation_level` is the least
    that is asked for: units of work are serializable on SQLite and in memory, and on PostgreSQL they hold the log's
    lock, so nothing that concerns events can come between.
    """

    enabled: bool = True
    use_store_transaction: bool = False
    isolation_level: str = setting(
        "READ_COMMITTED", choices=("READ_UNCOMMITTED", "READ_COMMITTED", "REPEATABLE_READ", "SERIALIZABLE")
    )
    timeout_seconds: float = setting(30.0, gt=0)


@section
class RetryMiddlewareConfig(ConfigSection):
    """Exponential back-off of retried commands."""

    enabled: bool = True
    max_retries: int = setting(3, ge=0)
    initial_delay_seconds: float = setting(0.1, ge=0)
    max_delay_seconds: float = setting(10.0, ge=0)
    exponential_base: float = setting(2.0, ge=1)


@section
class MetricsMiddlewareConfig(ConfigSection):
    """What the metrics middleware records."""

    enabled: bool = True
    prefix: str = "events"
    include_histograms: bool = True
    histogram_buckets: list[float] = field(
        default_factory=lambda: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
    )


@section
class CircuitBreakerMiddlewareConfig(ConfigSection):
    """When commands and queries are refused because too many failed; each bus has one circuit."""

    enabled: bool = False
    failure_threshold: int = setting(5, ge=1)
    recovery_timeout_seconds: float = setting(30.0, ge=0)
    success_threshold: int = setting(3, ge=1)
