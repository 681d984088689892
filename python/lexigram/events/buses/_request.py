"""What command and query bus share: exactly one handler per message type."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

from lexigram.contracts.core.health import HealthStatus
from lexigram.contracts.exceptions.domain import DomainError
from lexigram.contracts.exceptions.events import DuplicateHandlerError, EventError, HandlerNotFoundError
from lexigram.contracts.exceptions.infra import InfrastructureError
from lexigram.events.buses._handler import HandlerCall, HandlerFactory, as_call, check_handler_runs, handler_name
from lexigram.events.buses._step import within
from lexigram.events.buses.base import Bus, HandlerLike, checked_config
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.kinds import check_kind
from lexigram.events.middleware.base import MiddlewareFunc, NextHandler, chained
from lexigram.events.middleware.circuit_breaker import CircuitBreakerMiddleware
from lexigram.events.middleware.metrics import MetricsMiddleware
from lexigram.events.middleware.retry import RetryMiddleware

TMessage = TypeVar("TMessage")
TResult = TypeVar("TResult")

KNOWN_ERRORS = (EventError, DomainError, InfrastructureError)
"""Errors that callers are meant to see as they are; every other `Exception` of a handler is wrapped."""


class RequestBus(Bus[TMessage, TResult]):
    """Routes each message to its one handler.

    Args:
        middlewares: Around every handler, the first one outermost.
        config: `timeout_seconds` limits each attempt (the timer is armed only when a handler suspends), `max_retries`
            and `retry_delay_seconds` add retries of transient errors unless `middlewares` has a `RetryMiddleware`.
            None: neither.
        handler_factory: Builds handler classes and injects further parameters of handler functions.
        max_retries: Replaces the configured number of retries.
    """

    _kind: ClassVar[str]
    _config_class: ClassVar[str]

    def __init__(
        self,
        middlewares: Iterable[MiddlewareFunc] | None = None,
        config: Any | None = None,
        *,
        handler_factory: HandlerFactory | None = None,
        max_retries: int | None = None,
    ) -> None:
        super().__init__(middlewares)
        config = checked_config(config, self._config_class)
        self._timeout: float | None = getattr(config, "timeout_seconds", None)
        self._retries: int = getattr(config, "max_retries", 0) if max_retries is None else max_retries
        self._retry_delay: float = getattr(config, "retry_delay_seconds", 1.0)
        if self._timeout is not None and self._timeout <= 0:
            raise EventValidationError(f"timeout_seconds must be above 0, not {self._timeout}", field="timeout_seconds")
        self._factory = handler_factory
        self._handlers: dict[type, Any] = {}
        self._calls: dict[type, HandlerCall] = {}
        self._chains: dict[type, NextHandler] = {}

    def register(
        self, message_type: type[TMessage], handler: Callable[[TMessage], Any] | type | HandlerLike, **options: Any
    ) -> None:
        """Make `handler` the one that handles `message_type`; registering the same one again changes nothing.

        Args:
            handler: Coroutine function, plain function, object with `handle`, or a class, built at first use.
            options: `handler_factory` replaces the bus's own for this handler.

        Raises:
            DuplicateHandlerError: Another handler is registered for the type.
            EventValidationError: Not a message class, one of another kind, or not a handler.
        """
        check_kind(message_type, self._kind, "message_type")
        known = self._handlers.get(message_type)
        if known is not None:
            if known == handler:
                return
            raise DuplicateHandlerError(
                f"{message_type.__qualname__} is already handled by {handler_name(known)}",
                message_type=message_type.__qualname__,
                hint=f"A {self._kind} has exactly one handler; remove {handler_name(handler)} or the other one",
            )
        if self._kind != "query":
            check_handler_runs(handler)
        self._calls[message_type] = as_call(handler, options.get("handler_factory", self._factory))
        self._handlers[message_type] = handler
        self._chains[message_type] = self._chain(self._calls[message_type])

    def unregister(self, message_type: type[TMessage]) -> bool:
        """Forget the handler of `message_type`; return whether there was one."""
        self._chains.pop(message_type, None)
        self._calls.pop(message_type, None)
        return self._handlers.pop(message_type, None) is not None

    def handles(self, message_type: type) -> bool:
        """Return whether `message_type` has a handler."""
        return message_type in self._handlers

    def _rebuild(self) -> None:
        self._chains = {message_type: self._chain(call) for message_type, call in self._calls.items()}

    def _health(self) -> tuple[HealthStatus, dict[str, Any]]:
        return HealthStatus.HEALTHY, {"handlers": len(self._handlers), "middlewares": len(self._middlewares)}

    def _chain(self, call: HandlerCall) -> NextHandler:
        """Return the handler with its timeout and all middleware around it."""
        seconds = self._timeout
        if seconds is not None:
            untimed: Any = call
            limit = seconds

            def call(message: Any) -> Any:
                return within(untimed(message), limit)

        return chained(self._layers(), call)

    def _layers(self) -> list[MiddlewareFunc]:
        """Return the middleware, with configured retries at their place in the fixed order."""
        layers = list(self._middlewares)
        if self._retries > 0 and not any(isinstance(layer, RetryMiddleware) for layer in layers):
            inner = (MetricsMiddleware, CircuitBreakerMiddleware)
            place = next((i for i, layer in enumerate(layers) if isinstance(layer, inner)), len(layers))
            layers.insert(place, RetryMiddleware(self._retries, backoff_base=self._retry_delay))
        return layers

    def _missing(self, message: Any) -> HandlerNotFoundError:
        """Return the error for a message that nobody handles, naming what may have been meant."""
        wanted = type(message)
        bases = [known for known in self._handlers if issubclass(wanted, known)]
        names = {known.__qualname__: known for known in self._handlers}
        similar = [names[name] for name in difflib.get_close_matches(wanted.__qualname__, names, n=3, cutoff=0.6)]
        hint = f"Register one with bus.register({wanted.__qualname__}, handler)"
        if near := [f"{known.__module__}.{known.__qualname__}" for known in dict.fromkeys(bases + similar)]:
            hint += f"; there are handlers for {', '.join(near)} (subclasses are not included)"
        return HandlerNotFoundError(
            f"No handler for {self._kind} {wanted.__module__}.{wanted.__qualname__}",
            handler_type=self._kind,
            message_type=wanted.__qualname__,
            hint=hint,
        )
