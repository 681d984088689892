"""Stops calling handlers that keep failing. Source: spec/reference-surface.md."""

from __future__ import annotations

import time
from typing import Any

from lexigram.contracts.exceptions.domain import DomainError
from lexigram.contracts.exceptions.events import HandlerNotFoundError
from lexigram.contracts.exceptions.resilience import CircuitOpenError
from lexigram.contracts.infra.resilience.protocols import CircuitBreakerProtocol
from lexigram.events.exceptions import ConcurrencyError, EventValidationError
from lexigram.events.middleware.base import AbstractMiddleware, NextHandler, checked_errors

_ANSWERS = (DomainError, EventValidationError, ConcurrencyError, HandlerNotFoundError)
"""Errors that answer a request rather than show that something is broken."""


class CircuitBreakerMiddleware(AbstractMiddleware[Any, Any]):
    """Refuses messages for a while after too many failures in a row, then lets a few through to try.

    Args:
        failure_threshold: Consecutive failures that open the circuit, from 1.
        recovery_timeout: Seconds until an open circuit lets trial messages through (half-open).
        success_threshold: Successful trials that close it, and how many may run at once; one failed trial opens it.
        monitored_exceptions: What counts as a failure; by default every `Exception` except rule violations,
            validation errors, lost races and missing handlers.
        circuit_breaker: The framework's breaker instead of the built-in one.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        recovery_timeout: float = 30.0,
        success_threshold: int = 3,
        monitored_exceptions: tuple[type[Exception], ...] | None = None,
        circuit_breaker: CircuitBreakerProtocol | None = None,
    ) -> None:
        for name, value in (("failure_threshold", failure_threshold), ("success_threshold", success_threshold)):
            if value < 1:
                raise EventValidationError(f"{name} must be at least 1, not {value}", field=name)
        if recovery_timeout < 0:
            raise EventValidationError(
                f"recovery_timeout must be at least 0, not {recovery_timeout}", field="recovery_timeout"
            )
        self._failure_threshold = failure_threshold
        self._recovery_timeout = recovery_timeout
        self._success_threshold = success_threshold
        self._monitored = (
            None if monitored_exceptions is None else checked_errors(monitored_exceptions, "monitored_exceptions")
        )
        self._breaker = circuit_breaker
        self._failures = 0
        self._successes = 0
        self._trials = 0
        self._opened_at: float | None = None

    @property
    def state(self) -> str:
        """Return "closed", "open" or "half_open"."""
        if self._breaker is not None:
            return self._breaker.state
        if self._opened_at is None:
            return "closed"
        return "half_open" if time.monotonic() - self._opened_at >= self._recovery_timeout else "open"

    def reset(self) -> None:
        """Close the circuit."""
        if self._breaker is not None:
            self._breaker.reset()
        self._failures = self._successes = 0
        self._opened_at = None

    async def __call__(self, message: Any, next_handler: NextHandler) -> Any:
        """Hand the message on unless the circuit is open.

        Raises:
            CircuitOpenError: It is; the handler was not called. A command bus wraps it (LEX_ERR_RES_007).
        """
        if self._breaker is not None:
            return await self._breaker.call(next_handler, message)
        if self._opened_at is not None:
            return await self._try(message, next_handler)
        try:
            result = await next_handler(message)
        except Exception as error:
            if self._counts(error):
                self._failures += 1
                if self._failures >= self._failure_threshold:
                    self._opened_at = time.monotonic()
            raise
        self._failures = 0
        return result

    async def _try(self, message: Any, next_handler: NextHandler) -> Any:
        """Let a trial through if it is time for one."""
        if self.state == "open" or self._trials >= self._success_threshold:
            raise CircuitOpenError(
                f"{type(message).__name__} was not handled: the circuit is open after {self._failures} failures",
                hint=f"It is tried again {self._recovery_timeout} s after the last failure",
            )
        self._trials += 1
        try:
            result = await next_handler(message)
        except Exception as error:
            if self._counts(error):
                self._successes = 0
                self._opened_at = time.monotonic()
            raise
        finally:
            self._trials -= 1
        self._successes += 1
        if self._successes >= self._success_threshold:
            self.reset()
        return result

    def _counts(self, error: Exception) -> bool:
        """Return whether the error shows that something is broken."""
        return isinstance(error, self._monitored) if self._monitored is not None else not isinstance(error, _ANSWERS)
