"""Records that stores hand out beside events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as a record: where it is stored, and its fields as plain data."""

    global_sequence: int
    stream_id: str
    stream_version: int
    event_id: Any
    event_type: str
    event_data: dict[str, Any]
    metadata: dict[str, Any] | None
    timestamp: datetime

    @classmethod
    def of(cls, event: Any, stream_id: str) -> StoredEvent:
        """Return the record of a stored event."""
        return cls(
            global_sequence=event.sequence_number,
            stream_id=stream_id,
            stream_version=event.version,
            event_id=event.event_id,
            event_type=event.event_type,
            event_data=event.to_dict(),
            metadata=dict(event.metadata),
            timestamp=event.occurred_at,
        )
