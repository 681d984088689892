"""Tries again what failed for a passing reason. Source: spec/reference-surface.md."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from lexigram.events.exceptions import AdapterConnectionError, ConcurrencyError, EventValidationError
from lexigram.events.middleware.base import AbstractMiddleware, NextHandler, checked_errors

TRANSIENT_ERRORS: tuple[type[Exception], ...] = (ConcurrencyError, ConnectionError, AdapterConnectionError)
"""Retried by default: a lost race, a lost connection."""

_log = logging.getLogger(__name__)


class Backoff:
    """Exponentially growing delays with jitter.

    Args:
        base: First delay in seconds, from 0.
        factor: Growth per attempt, from 1.
        maximum: Longest delay in seconds.
        jitter: Largest share, 0 to 1, by which a delay is randomly lengthened or shortened.
    """

    __slots__ = ("base", "factor", "jitter", "maximum")

    def __init__(self, base: float = 0.1, factor: float = 2.0, maximum: float = 30.0, jitter: float = 0.1) -> None:
        for name, value, low in (("base", base, 0.0), ("factor", factor, 1.0), ("max", maximum, 0.0)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise EventValidationError(f"backoff_{name} must be a number, not {value!r}", field=f"backoff_{name}")
            if value < low:
                raise EventValidationError(
                    f"backoff_{name} must be at least {low}, not {value}", field=f"backoff_{name}"
                )
        if not 0 <= jitter <= 1:
            raise EventValidationError(f"backoff_jitter must be from 0 to 1, not {jitter}", field="backoff_jitter")
        self.base, self.factor, self.maximum, self.jitter = base, factor, maximum, jitter

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after failed attempt number `attempt`, counted from 1."""
        try:
            delay = min(self.base * self.factor ** (attempt - 1), self.maximum)
        except OverflowError:
            delay = self.maximum
        return delay * (1 + self.jitter * (2 * random.random() - 1))


class RetryMiddleware(AbstractMiddleware[Any, Any]):
    """Runs the rest of the chain again after a transient error, waiting longer each time.

    Args:
        max_retries: Further attempts after the first, from 0.
        backoff_base: First delay in seconds.
        backoff_factor: Growth of the delay per attempt.
        backoff_max: Longest delay in seconds.
        backoff_jitter: Largest random share of a delay, 0 to 1.
        retryable_exceptions: Retried errors; `TRANSIENT_ERRORS` by default.
        retry_condition: Decides instead of `retryable_exceptions`, if given; may be asynchronous.
        on_retry: Called as `(message, error, attempt)` before each wait, attempts counted from 1; may be asynchronous.
    """

    def __init__(
        self,
        max_retries: int = 3,
        backoff_base: float = 0.1,
        backoff_factor: float = 2.0,
        backoff_max: float = 30.0,
        backoff_jitter: float = 0.1,
        retryable_exceptions: tuple[type[Exception], ...] | None = None,
        retry_condition: Callable[[Exception], bool | Awaitable[bool]] | None = None,
        on_retry: Callable[[Any, Exception, int], Any] | None = None,
    ) -> None:
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise EventValidationError(
                f"max_retries must be an integer of at least 0, not {max_retries!r}", field="max_retries"
            )
        self._max_retries = max_retries
        self._backoff = Backoff(backoff_base, backoff_factor, backoff_max, backoff_jitter)
        for name, function in (("retry_condition", retry_condition), ("on_retry", on_retry)):
            if function is not None and not callable(function):
                raise EventValidationError(f"{name} must be a function, not {function!r}", field=name)
        given = TRANSIENT_ERRORS if retryable_exceptions is None else retryable_exceptions
        self._retryable = checked_errors(given, "retryable_exceptions")
        self._condition = retry_condition
        self._on_retry = on_retry

    async def __call__(self, message: Any, next_handler: NextHandler) -> Any:
        """Return the first successful result, or raise the last error."""
        attempt = 1
        while True:
            try:
                return await next_handler(message)
            except Exception as error:
                if attempt > self._max_retries or not await self._is_retryable(error):
                    raise
                _log.debug("attempt %d at %s failed: %s", attempt, type(message).__name__, type(error).__name__)
                if self._on_retry is not None:
                    told = self._on_retry(message, error, attempt)
                    if inspect.isawaitable(told):
                        await told
            await asyncio.sleep(self._backoff.delay(attempt))
            attempt += 1

    async def _is_retryable(self, error: Exception) -> bool:
        if self._condition is None:
            return isinstance(error, self._retryable)
        verdict = self._condition(error)
        return await verdict if inspect.isawaitable(verdict) else verdict
