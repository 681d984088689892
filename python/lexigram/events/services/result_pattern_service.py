"""An event bus that never raises for what callers can do wrong. Source: spec/reference-surface.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lexigram.contracts.core.result import Err, Ok, Result
from lexigram.contracts.events.protocols.domain import EventHandlerProtocol, EventMiddlewareProtocol
from lexigram.contracts.exceptions.events import EventError
from lexigram.events.buses.event import EventBusImpl


class EventBusWithResultPattern:
    """The event bus with every outcome as `Ok` or `Err(EventError)`.

    Args:
        bus: The bus to use; a new one by default.
    """

    def __init__(self, bus: EventBusImpl | None = None) -> None:
        self._bus = bus if bus is not None else EventBusImpl()

    @property
    def bus(self) -> EventBusImpl:
        """The event bus behind this facade, for `flush`, `close` and the dead letters."""
        return self._bus

    async def publish(self, event: Any) -> Result[None, EventError]:
        """Accept one event or a list for handling in the background; `Err` if it cannot be accepted."""
        try:
            return await self._bus.publish(event)
        except EventError as error:
            return Err(error)

    def subscribe(self, event_type: type, handler: EventHandlerProtocol) -> Result[None, EventError]:
        """Subscribe a handler; `Err` if it is none."""
        return _attempted(lambda: self._bus.subscribe(event_type, handler))

    def unsubscribe(self, event_type: type, handler: EventHandlerProtocol) -> Result[None, EventError]:
        """Undo `subscribe`; `Err` if the handler was not subscribed."""
        if self._bus.unsubscribe(event_type, handler):
            return Ok(None)
        return Err(EventError(f"The handler is not subscribed to {getattr(event_type, '__qualname__', event_type)}"))

    def add_middleware(self, middleware: EventMiddlewareProtocol) -> Result[None, EventError]:
        """Append a middleware; `Err` if it is none."""
        return _attempted(lambda: self._bus.use(middleware))

    def remove_middleware(self, middleware: EventMiddlewareProtocol) -> Result[None, EventError]:
        """Take a middleware out; `Err` if it is not in use."""
        return Ok(None) if self._bus.unuse(middleware) else Err(EventError("The middleware is not in use"))

    def get_subscription_count(self, event_type: type) -> Result[int, EventError]:
        """Return how many handlers an event of this class reaches, those of its base classes included."""
        return Ok(self._bus.subscription_count(event_type))


def _attempted(action: Callable[[], Any]) -> Result[None, EventError]:
    """Return what an action raises as `Err`."""
    try:
        action()
    except EventError as error:
        return Err(error)
    return Ok(None)
