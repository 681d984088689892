"""Lets a store use a foreign event serializer where it expects the codec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import EventValidationError, SerializationError
from lexigram.events.messages.codec import EncodedEvent, EventCodec
from lexigram.events.messages.stamping import stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lexigram.events.messages.registry import EventTypeRegistry


class SerializerCodec(EventCodec):
    """An `EventCodec` whose payload comes from `serializer.serialize(event)` and goes to `serializer.deserialize`.

    Args:
        serializer: See `EventSerializerProtocol`.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, `serializer` lacks a method.
    """

    def __init__(self, serializer: Any, registry: EventTypeRegistry) -> None:
        if not (hasattr(serializer, "serialize") and hasattr(serializer, "deserialize")):
            raise EventValidationError(
                f"event_serializer {type(serializer).__name__} needs serialize(event) and deserialize(bytes)",
                field="event_serializer",
            )
        super().__init__(registry, format="binary")
        self._serializer = serializer

    def encode(self, event: Any) -> EncodedEvent:
        """Return the event as it is stored; ids, type and tags stay readable to the store."""
        payload = self._serializer.serialize(event)
        if isinstance(payload, str):
            payload = payload.encode()
        if not isinstance(payload, bytes):
            raise SerializationError(f"the serializer returned {type(payload).__name__}, not bytes", field="payload")
        facts = super().encode(event)
        return EncodedEvent(
            facts.event_id, facts.type_name, facts.event_type, facts.occurred_at_us, facts.tags, payload
        )

    def decode(self, type_name: str, event_type: str, payload: bytes, version: int, sequence_number: int | None) -> Any:
        """Return what the serializer rebuilds, with version and position."""
        event = self._serializer.deserialize(payload)
        stamp(event, version, sequence_number or 0)
        return event

    def decode_rows(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """Return the events of many rows, in order."""
        return [self.decode(*row) for row in rows]
