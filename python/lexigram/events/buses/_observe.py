"""Tracing and hooks around handler calls; free when neither is attached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lexigram.contracts.core.hooks import HookRegistryProtocol
from lexigram.contracts.core.result import Err
from lexigram.contracts.observability.tracing import TracerProtocol
from lexigram.events.buses._handler import HandlerCall
from lexigram.events.hooks import EventHandledHook, EventPublishedHook, fire


def full_name(event_type: type) -> str:
    """Return the module-qualified name of a class."""
    return f"{event_type.__module__}.{event_type.__qualname__}"


class Observer:
    """Who watches the bus."""

    def __init__(self, tracer: TracerProtocol | None, hooks: HookRegistryProtocol | None) -> None:
        self.tracer = tracer
        self.hooks = hooks

    async def published(self, event: Any) -> None:
        """Tell the hooks that an event was accepted."""
        if self.hooks is not None and self.hooks.has_action(EventPublishedHook.name):
            aggregate_id = None if event.aggregate_id is None else str(event.aggregate_id)
            await fire(self.hooks, EventPublishedHook(full_name(type(event)), aggregate_id))

    def around(self, name: str, call: HandlerCall) -> HandlerCall:
        """Return `call` with a span and the hook around it, as far as they are attached."""
        tracer, hooks = self.tracer, self.hooks
        if tracer is not None:
            call = _traced(tracer, name, call)
        return call if hooks is None else _hooked(hooks, name, call)


def _traced(tracer: TracerProtocol, name: str, call: HandlerCall) -> HandlerCall:
    """Return `call` inside a span that continues the event's trace."""

    async def traced(event: Any) -> Any:
        metadata = getattr(event, "metadata", None)
        traceparent = metadata.get("traceparent") if isinstance(metadata, Mapping) else None
        parent = tracer.extract_context({"traceparent": traceparent}) if traceparent else None
        attributes = {"event.type": full_name(type(event)), "event.id": str(event.event_id), "event.handler": name}
        with tracer.start_span(f"handle {type(event).__name__}", attributes, parent) as span:
            try:
                result = await call(event)
            except Exception as error:
                span.record_exception(error)
                span.set_status("error")
                raise
            if isinstance(result, Err):
                span.set_status("error")
            return result

    return traced


def _hooked(hooks: HookRegistryProtocol, name: str, call: HandlerCall) -> HandlerCall:
    """Return `call` followed by the hook for handled events."""

    async def hooked(event: Any) -> Any:
        result = await call(event)
        if not isinstance(result, Err) and hooks.has_action(EventHandledHook.name):
            await fire(hooks, EventHandledHook(full_name(type(event)), name))
        return result

    return hooked
