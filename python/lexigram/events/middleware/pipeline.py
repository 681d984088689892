"""Builds the middleware of each bus from the configuration, always in the same order.

Validation → Transaction → Logging → Retry → Metrics → CircuitBreaker. Source: spec/architecture.md, "Middleware".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from lexigram.contracts.infra.resilience.protocols import CircuitBreakerProtocol
from lexigram.contracts.observability.metrics import MetricsRecorderProtocol
from lexigram.events.middleware.base import MiddlewareFunc
from lexigram.events.middleware.circuit_breaker import CircuitBreakerMiddleware
from lexigram.events.middleware.logging import LoggingMiddleware
from lexigram.events.middleware.metrics import MetricsMiddleware
from lexigram.events.middleware.retry import RetryMiddleware
from lexigram.events.middleware.transaction import TransactionMiddleware
from lexigram.events.middleware.validation import ValidationMiddleware

if TYPE_CHECKING:
    from lexigram.events.config import EventsConfig

BusKind = Literal["command", "query", "event"]


def build_pipeline(
    config: EventsConfig,
    kind: BusKind,
    *,
    transaction_factory: Callable[[], Any] | None = None,
    recorder: MetricsRecorderProtocol | None = None,
    logger: Any | None = None,
    circuit_breaker: CircuitBreakerProtocol | None = None,
    validation: ValidationMiddleware | None = None,
) -> list[MiddlewareFunc]:
    """Return the middleware for one bus.

    Transactions are for commands and need a factory. Retries of commands take count and first delay from the
    `command_bus` section, everything else from `retry_middleware`. Event handlers are retried by the event bus
    itself, each on its own, so its pipeline has validation, logging and metrics.

    Args:
        config: An `EventsConfig`.
        transaction_factory: Makes a transaction per command, for example the event store's `unit_of_work`.
        recorder: Where metrics go; in memory by default.
        validation: A middleware with validators, instead of a new one.
    """
    bus = getattr(config, f"{kind}_bus")
    layers: list[MiddlewareFunc] = []
    if config.validation_middleware.enabled and getattr(bus, "enable_validation", True):
        layers.append(validation or ValidationMiddleware(strict_mode=config.validation_middleware.strict_mode))
    if kind == "command" and config.transaction_middleware.enabled and transaction_factory is not None:
        layers.append(TransactionMiddleware(transaction_factory))
    if config.logging_middleware.enabled and getattr(bus, "enable_logging", True):
        section = config.logging_middleware
        layers.append(
            LoggingMiddleware(
                logger,
                section.log_level,
                include_message_data=section.include_payload,
                message_data_max_length=section.max_payload_length,
            )
        )
    if kind != "event" and config.retry_middleware.enabled:
        layers.append(_retries(config, kind))
    if config.metrics_middleware.enabled and getattr(bus, "enable_metrics", True):
        metrics = config.metrics_middleware
        layers.append(MetricsMiddleware(recorder, metrics.prefix, include_histograms=metrics.include_histograms))
    if kind != "event" and (circuit_breaker is not None or config.circuit_breaker_middleware.enabled):
        layers.append(_breaker(config.circuit_breaker_middleware, circuit_breaker))
    return layers


def _retries(config: EventsConfig, kind: BusKind) -> RetryMiddleware:
    """Return the retry middleware of the command or query bus."""
    section = config.retry_middleware
    command = config.command_bus if kind == "command" else None
    return RetryMiddleware(
        max_retries=section.max_retries if command is None else command.max_retries,
        backoff_base=section.initial_delay_seconds if command is None else command.retry_delay_seconds,
        backoff_factor=section.exponential_base,
        backoff_max=section.max_delay_seconds,
    )


def _breaker(section: Any, circuit_breaker: CircuitBreakerProtocol | None) -> CircuitBreakerMiddleware:
    """Return the circuit breaker, the framework's where there is one."""
    return CircuitBreakerMiddleware(
        section.failure_threshold,
        section.recovery_timeout_seconds,
        section.success_threshold,
        circuit_breaker=circuit_breaker,
    )
