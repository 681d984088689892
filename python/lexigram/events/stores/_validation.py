"""Checks of arguments, shared by all stores. Every one raises `EventValidationError` that names the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events.constants import MAX_STREAM_ID_LENGTH
from lexigram.events.exceptions import EventValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_POSITION: Final = 2**63 - 1
"""Largest version or position: a signed 64-bit integer, as databases have it."""

FOREVER_SECONDS: Final = 200_000_000_000.0
"""About 6,000 years: with longer durations databases run out of dates."""


def check_text(value: object, field: str, max_length: int = MAX_STREAM_ID_LENGTH) -> str:
    """Return `value` if it is a non-empty string of at most `max_length` characters that every backend can store."""
    if not isinstance(value, str):
        hint = f"; pass str({field})" if isinstance(value, UUID | int) else ""
        raise EventValidationError(f"{field} must be a string, got {type(value).__name__}{hint}", field=field)
    if not value:
        raise EventValidationError(f"{field} must not be empty", field=field)
    if len(value) > max_length:
        raise EventValidationError(f"{field} has {len(value)} characters, at most {max_length} fit", field=field)
    if "\x00" in value:
        raise EventValidationError(f"{field} must not contain NUL characters", field=field)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise EventValidationError(f"{field} must not contain lone surrogates", field=field) from None
    return value if type(value) is str else str.__str__(value)


def check_stream_id(stream_id: object) -> str:
    """Return `stream_id` if it can name a stream."""
    # The usual case at once, as every append and every read passes here.
    if (
        type(stream_id) is str
        and 0 < len(stream_id) <= MAX_STREAM_ID_LENGTH
        and stream_id.isprintable()
        and stream_id.isascii()
    ):
        return stream_id
    return check_text(stream_id, "stream_id")


def check_id(value: object, field: str) -> str:
    """Return an id that may be a UUID or a string as a string."""
    return check_text(str(value) if isinstance(value, UUID) else value, field)


def check_number(value: object, field: str, minimum: int = 0) -> int:
    """Return `value` if it is an integer from `minimum` to 2**63 - 1 (bool is not an integer here)."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise EventValidationError(f"{field} must be an integer, got {value!r}", field=field)
    if value < minimum:
        raise EventValidationError(f"{field} must be at least {minimum}, got {value}", field=field)
    if value > MAX_POSITION:
        raise EventValidationError(f"{field} must be below 2**63, got {value}", field=field)
    return value if type(value) is int else int(value)


def check_optional(value: object, field: str, minimum: int = 0) -> int | None:
    """Like `check_number`, with None for "not given"."""
    return None if value is None else check_number(value, field, minimum)


def check_partition(partition: object, total_partitions: object) -> tuple[int, int] | None:
    """Return (partition, total) or None if neither is given; both are needed, with 0 <= partition < total."""
    if partition is None and total_partitions is None:
        return None
    if partition is None or total_partitions is None:
        missing = "partition" if partition is None else "total_partitions"
        raise EventValidationError("partition and total_partitions must be given together", field=missing)
    total = check_number(total_partitions, "total_partitions", 1)
    index = check_number(partition, "partition")
    if index >= total:
        raise EventValidationError(
            f"partition must be below total_partitions ({total}), got {index}", field="partition"
        )
    return index, total


def check_events(events: object) -> Sequence[Any]:
    """Return `events` if it is a list or tuple of events without a repeated event id."""
    if not isinstance(events, list | tuple):
        hint = "; wrap it in a list" if isinstance(events, ContractEvent) else ""
        raise EventValidationError(f"events must be a list, got {type(events).__name__}{hint}", field="events")
    for index, event in enumerate(events):
        if not isinstance(event, ContractEvent):
            raise EventValidationError(
                f"events[{index}] must be a DomainEvent, got {type(event).__name__}", field=f"events[{index}]"
            )
        own = event.event_type
        if own != type(event).__name__ and own is not None:
            check_text(own, f"events[{index}].event_type")
    if len(events) > 1 and len({event.event_id for event in events}) != len(events):
        raise EventValidationError("events holds the same event id twice; one event is stored once", field="events")
    return events
