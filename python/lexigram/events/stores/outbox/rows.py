"""Outbox entries as rows, the same in every SQL database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores._evolution import decode_rows
from lexigram.events.stores.outbox.entry import OutboxEntry, OutboxEntryStatus, OutboxMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lexigram.events.messages.codec import EventCodec

LANES: Final = 64

COLUMNS: Final = (
    "position, lane, key, type_name, event_type, payload, version, event_position, created_at, published_at"
)


async def from_rows(evolution: Any, codec: EventCodec, rows: Sequence[Sequence[Any]], moment: Any) -> list[OutboxEntry]:
    """Return the entries of rows of `COLUMNS`.

    Args:
        evolution: Converts older events, as when they are read from the log; None = they are as stored.
        moment: Turns a stored time into a `datetime`.
    """
    errors: dict[int, str] = {}
    stored = [(row[3], row[4], row[5], row[6], row[7]) for row in rows]
    try:
        decoded = await decode_rows(evolution, codec, stored)
    except Exception:
        # One damaged row must not hold up the others: its relay sets it aside with its bytes.
        decoded = [
            await _decoded(evolution, codec, row, rows[number][0], number, errors) for number, row in enumerate(stored)
        ]
    entries = []
    for number, (event, row) in enumerate(zip(decoded, rows, strict=True)):
        position, lane, key, type_name, _, payload, _, _, created_at, published_at = row
        entries.append(
            OutboxEntry.of(
                event,
                payload,
                type_name,
                status=OutboxEntryStatus.PENDING if published_at is None else OutboxEntryStatus.PUBLISHED,
                created_at=moment(created_at),
                published_at=None if published_at is None else moment(published_at),
                key=key,
                position=position,
                lane=lane,
                error=errors.get(number),
            )
        )
    return entries


async def _decoded(
    evolution: Any, codec: EventCodec, row: Sequence[Any], position: int, number: int, errors: dict[int, str]
) -> Any:
    try:
        return (await decode_rows(evolution, codec, [row]))[0]
    except Exception as error:
        errors[number] = str(error)
        type_name, event_type, payload, _, _ = row
        # No event can be made of it, so its bytes are carried like a message; always under the same id.
        kept = {"type_name": type_name, "event_type": event_type, "payload": payload}
        return OutboxMessage(event_id=UUID(int=position), message=kept)


def as_uuid(entry_id: str) -> UUID:
    """Return an entry id as stored.

    Raises:
        EventValidationError: LEX_ERR_EVT_024.
    """
    try:
        return UUID(str(entry_id))
    except ValueError as error:
        raise EventValidationError(f"entry_id must be a UUID, got {entry_id!r}", field="entry_id") from error
