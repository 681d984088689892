"""Extension points of this package that are no contract of the framework, and short names for those that are.

Source: spec/reference-surface.md.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lexigram.contracts.domain.events import DomainEvent
from lexigram.contracts.events.protocols.cqrs import CommandBusProtocol, QueryBusProtocol
from lexigram.contracts.events.protocols.domain import EventBusProtocol

__all__ = ["CommandBus", "EventBus", "EventFilterProtocol", "EventSerializerProtocol", "QueryBus"]

CommandBus = CommandBusProtocol
QueryBus = QueryBusProtocol
EventBus = EventBusProtocol


@runtime_checkable
class EventSerializerProtocol(Protocol):
    """Turns events into bytes and back."""

    def serialize(self, event: DomainEvent) -> bytes:
        """Return the bytes from which `deserialize` restores an equal event."""
        ...

    def deserialize(self, data: bytes) -> DomainEvent:
        """Return the event that `serialize` encoded."""
        ...


@runtime_checkable
class EventFilterProtocol(Protocol):
    """Decides which events a subscriber receives."""

    def matches(self, event: DomainEvent) -> bool:
        """Return whether the subscriber wants this event."""
        ...
