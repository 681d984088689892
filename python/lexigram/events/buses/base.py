"""What all buses share: handlers by message type, middleware, health. Source: spec/reference-surface.md."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, Generic, Protocol, Self, TypeVar

from lexigram.contracts.core.health import HealthCheckResult, HealthStatus
from lexigram.events.exceptions import EventValidationError
from lexigram.events.middleware.base import MiddlewareFunc, checked

TMessage = TypeVar("TMessage")
TResult = TypeVar("TResult")


class HandlerLike(Protocol):
    """An object that handles messages."""

    def handle(self, message: Any, /) -> Any:
        """Handle one message; may be a coroutine function."""
        ...


def checked_config(config: Any, class_name: str) -> Any:
    """Return a bus's configuration; a mapping becomes the class of that name, another object needs one of its fields.

    Raises:
        EventValidationError: LEX_ERR_EVT_024. It is something else, or a value of the mapping does not fit.
    """
    if config is None:
        return None
    from lexigram.events.config import buses  # not loaded by those who configure nothing

    cls = getattr(buses, class_name)
    if isinstance(config, Mapping):
        return cls(**config)
    if any(hasattr(config, field.name) for field in fields(cls)):
        return config
    raise EventValidationError(
        f"config must be {class_name} or a mapping of its settings, not {type(config).__name__}", field="config"
    )


class Bus(ABC, Generic[TMessage, TResult]):
    """Routes messages to handlers through middleware. Not thread-safe: use a bus from one event loop at a time."""

    def __init__(self, middlewares: Iterable[MiddlewareFunc] | None = None) -> None:
        self._middlewares: list[MiddlewareFunc] = [checked(layer) for layer in middlewares or ()]

    @abstractmethod
    def register(
        self, message_type: type[TMessage], handler: Callable[[TMessage], Any] | type | HandlerLike, **options: Any
    ) -> None:
        """Route messages of `message_type` to `handler`."""

    @abstractmethod
    def _rebuild(self) -> None:
        """Compute the chains again after the middleware changed."""

    @abstractmethod
    def _health(self) -> tuple[HealthStatus, dict[str, Any]]:
        """Return status and details without waiting for anything."""

    def use(self, middleware: MiddlewareFunc) -> Self:
        """Append a middleware (innermost so far); handlers registered before get it too.

        Raises:
            EventValidationError: It cannot be called with (message, next_handler).
        """
        self._middlewares.append(checked(middleware))
        self._rebuild()
        return self

    def unuse(self, middleware: MiddlewareFunc) -> bool:
        """Take a middleware out again; return whether it was in use."""
        if middleware not in self._middlewares:
            return False
        self._middlewares.remove(middleware)
        self._rebuild()
        return True

    async def health_check(self, timeout: float = 5.0) -> HealthCheckResult:
        """Return the state of this bus at once; `timeout` is part of the framework's protocol and not needed."""
        started = time.perf_counter()
        status, details = self._health()
        elapsed = (time.perf_counter() - started) * 1000
        return HealthCheckResult(type(self).__name__, status, duration_ms=elapsed, details=details)
