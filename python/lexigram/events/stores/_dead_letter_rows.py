"""Dead letters as rows, the same in every SQL database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lexigram.events.buses.dead_letter_entry import DeadLetterEntry, DeadLetterFilter, DeadLetterGroup
from lexigram.events.messages.codec import EventCodec

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

COLUMNS: Final = (
    "entry_id", "event_type", "handler_name", "aggregate_id", "error", "error_type", "failed_at", "attempts", "waiting",
    "replayed", "replayed_at", "event_data", "event_type_name", "event_payload", "event_version", "event_position",
)  # fmt: skip


def to_row(codec: EventCodec, entry: DeadLetterEntry) -> tuple[Any, ...]:
    """Return the values of `COLUMNS`."""
    event: Any = entry.event
    encoded = None if event is None else codec.encode(event)
    return (
        entry.entry_id,
        entry.event_type,
        entry.handler_name,
        entry.aggregate_id,
        entry.error,
        entry.error_type,
        _microseconds(entry.failed_at),
        entry.attempts,
        int(entry.waiting),
        int(entry.replayed),
        None if entry.replayed_at is None else _microseconds(entry.replayed_at),
        codec.encode_value(entry.event_data),
        encoded and encoded.type_name,
        encoded and encoded.payload,
        getattr(event, "version", None),
        getattr(event, "sequence_number", None),
    )


def from_row(codec: EventCodec, row: Sequence[Any]) -> DeadLetterEntry:
    """Return the entry of a row: its position, then the values of `COLUMNS`."""
    position, *values = row
    given = dict(zip(COLUMNS, values, strict=True))
    type_name, payload = given.pop("event_type_name"), given.pop("event_payload")
    version, sequence_number = given.pop("event_version"), given.pop("event_position")
    entry = DeadLetterEntry(**given, position=position)
    event: Any = None
    if payload is not None:
        event = codec.decode(type_name, entry.event_type, payload, version or 0, sequence_number)
    return replace(
        entry,
        failed_at=_EPOCH + timedelta(microseconds=given["failed_at"]),
        replayed_at=None if given["replayed_at"] is None else _EPOCH + timedelta(microseconds=given["replayed_at"]),
        waiting=bool(given["waiting"]),
        replayed=bool(given["replayed"]),
        event_data=codec.decode_value(given["event_data"]),
        event=event,
    )


def _microseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def conditions(wanted: DeadLetterFilter) -> tuple[str, list[Any]]:
    """Return the conditions of a filter, each with a leading AND, and their parameters."""
    clauses, params = "", []
    for column in ("entry_id", "event_type", "handler_name", "aggregate_id"):
        value = getattr(wanted, column)
        if value is not None:
            clauses += f" AND {column} = ?"
            params.append(value)
    if wanted.replayed is not None:
        # A literal, so that the partial index on pending entries can be used.
        clauses += f" AND replayed = {int(wanted.replayed)}"
    if wanted.failed_before is not None:
        clauses += " AND failed_at < ?"
        params.append(_microseconds(wanted.failed_before))
    if wanted.up_to is not None:
        clauses += " AND position <= ?"
        params.append(wanted.up_to)
    return clauses, params


GROUPS: Final = (
    "error_type, handler_name, event_type, count(*), min(failed_at), max(failed_at), min(position)",
    "GROUP BY error_type, handler_name, event_type",
)
"""Columns and clause of the statement that groups entries."""


def from_groups(rows: Sequence[Sequence[Any]]) -> list[tuple[DeadLetterGroup, int]]:
    """Return groups and the position of the first entry of each."""
    return [
        (
            DeadLetterGroup(
                error_type,
                handler,
                event_type,
                int(count),
                _EPOCH + timedelta(microseconds=int(first)),
                _EPOCH + timedelta(microseconds=int(last)),
            ),
            int(position),
        )
        for error_type, handler, event_type, count, first, last, position in rows
    ]
