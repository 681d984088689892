"""Extension points of this package that are no contract of the framework. Source: spec/reference-surface.md."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lexigram.contracts.domain.events import DomainEvent

__all__ = ["EventFilterProtocol", "EventSerializerProtocol"]


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
