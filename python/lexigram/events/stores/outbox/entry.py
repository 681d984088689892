"""One message that waits for its delivery. Source: spec/reference-surface.md, `OutboxEntry`."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.context import id_of
from lexigram.events.messages.event import DomainEvent


class OutboxEntryStatus(StrEnum):
    """Where an entry is: waiting, confirmed by the publisher, or set aside after too many attempts."""

    PENDING = "pending"
    PUBLISHED = "published"
    FAILED = "failed"


class OutboxMessage(DomainEvent):
    """Carries a message that is no event of the log (a command, say) through the outbox."""

    message: Any


@dataclass(slots=True)
class OutboxEntry:
    """One message on its way to the publisher.

    Args:
        entry_id: Id of the event or message: the id by which consumers recognise a second delivery.
        payload: The event as the codec wrote it: JSON text, or base64 of the binary form.
        metadata: The event's metadata as JSON text.
        attempts: Failed attempts to publish it.
        error: What the last failed attempt said.
        event: The event itself, an `OutboxMessage` around anything else.
        key: Aggregate id; entries with the same key are delivered in order.
        type_name: Full name of the event's class, as stored.
        position: Order within the outbox.
        lane: The part of the outbox it is in; one relay at a time has a lane.
    """

    entry_id: str = field(default_factory=lambda: str(uuid4()))
    event_type: str = ""
    payload: str = "{}"
    metadata: str = "{}"
    status: OutboxEntryStatus = OutboxEntryStatus.PENDING
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    published_at: datetime | None = None
    attempts: int = 0
    error: str | None = None
    event: Any = field(default=None, repr=False)
    key: str | None = None
    type_name: str = ""
    position: int = 0
    lane: int = 0

    @property
    def message(self) -> Any:
        """What was put in: the event, or the command or other message that an `OutboxMessage` carries."""
        event = self.event
        return event.message if isinstance(event, OutboxMessage) else event

    @classmethod
    def of(cls, event: Any, payload: bytes, type_name: str, **given: Any) -> OutboxEntry:
        """Return the entry of an event that the codec has encoded."""
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            text = base64.b64encode(payload).decode()
        metadata = event.metadata
        shown = json.dumps(dict(metadata), default=str) if metadata else "{}"
        return cls(
            entry_id=str(event.event_id),
            event_type=event.event_type,
            payload=text,
            metadata=shown,
            event=event,
            type_name=type_name,
            **given,
        )


def as_event(message: Any, key: str | None) -> tuple[Any, str]:
    """Return a message as the event that is stored for it, and its key.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, it has no id.
    """
    if isinstance(message, ContractEvent):
        return message, key or str(message.aggregate_id or message.event_id)
    found = id_of(message)
    if found is None:
        found = getattr(message, "message_id", None)
    if found is None:
        raise EventValidationError(f"{type(message).__name__} has no id to be recognised by", field="message")
    message_id = found if isinstance(found, UUID) else UUID(str(found))
    key = key or str(message_id)
    return OutboxMessage(event_id=message_id, aggregate_id=key, message=message), key
