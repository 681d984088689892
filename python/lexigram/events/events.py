"""Events about this package itself, for monitoring and administration. Source: spec/reference-surface.md."""

from __future__ import annotations

from lexigram.events.messages.event import DomainEvent

__all__ = ["EventPublishedEvent", "ProjectionUpdatedEvent"]


class EventPublishedEvent(DomainEvent):
    """An event was published to `handler_count` handlers."""

    source_event_type: str
    handler_count: int = 0


class ProjectionUpdatedEvent(DomainEvent):
    """A projection has applied `events_processed` more events."""

    projection_name: str
    events_processed: int = 0
