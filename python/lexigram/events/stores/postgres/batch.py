"""Encodes appends as the arguments of one call of the append function, and reads its answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncpg.pgproto.pgproto import UUID

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.stores._primitives import Appended, already_stored
from lexigram.events.stores.partition import partition_hash
from lexigram.events.stores.postgres.append_function import Status

if TYPE_CHECKING:
    from lexigram.events.messages.codec import EncodedEvent
    from lexigram.events.stores.condition import ResolvedCondition

NEXT: Final = (
    "SELECT {append_next}($1::text, $2::bigint, $3::bigint, $4::uuid, $5::bigint[], $6::bigint[], $7::integer[], "
    "$8::uuid[], $9::bigint[], $10::{given}[], $11::integer[], $12::text[])"
)

CALL: Final = (
    "SELECT statuses, versions, positions, before, keys, current, kinds FROM {append}($1::boolean, $2::text, $3::text[], "
    "$4::bigint[], $5::text[], $6::text[], $7::integer[], $8::bigint[], $9::integer[], $10::bigint[], $11::text[], "
    "$12::integer[], $13::integer[], $14::integer[], $15::uuid[], $16::bigint[], $17::{given}[], $18::integer[], $19::text[])"
)


class AppendRequest(NamedTuple):
    """One append, encoded."""

    stream_id: str
    events: Sequence[EncodedEvent]
    expected_version: int | None
    condition: ResolvedCondition | None


def encode_batch(requests: Sequence[AppendRequest], binary: bool) -> tuple[list[Any], ...]:
    """Return the array arguments, from `p_streams` to `t_tag`.

    Args:
        binary: Payloads go into a `bytea` column.
    """
    streams: dict[str, int] = {}
    types: dict[tuple[str, str], int] = {}
    a_stream, a_expected, a_count = [], [], []
    conditions: list[ResolvedCondition | None] = []
    e_append: list[int] = []
    e_offset: list[int] = []
    e_type: list[int] = []
    e_id: list[UUID] = []
    e_at: list[int] = []
    e_payload: list[Any] = []
    t_event: list[int] = []
    t_tag: list[str] = []
    for number, (stream_id, events, expected, condition) in enumerate(requests, 1):
        a_stream.append(streams.setdefault(stream_id, len(streams) + 1))
        a_expected.append(-1 if expected is None else expected)
        a_count.append(len(events))
        conditions.append(condition)
        for offset, (event_id, type_name, event_type, at, tags, payload) in enumerate(events, 1):
            e_append.append(number)
            e_offset.append(offset)
            e_type.append(types.setdefault((type_name, event_type), len(types) + 1))
            e_id.append(UUID(event_id))
            e_at.append(at)
            e_payload.append(payload if binary else payload.decode())
            if tags:
                for tag in dict.fromkeys(tags):
                    t_event.append(len(e_id))
                    t_tag.append(tag)
    if not any(conditions):
        conditions.clear()
    return (
        list(streams),
        [partition_hash(stream_id) for stream_id in streams],
        [name for name, _ in types],
        [name for _, name in types],
        a_stream,
        a_expected,
        a_count,
        [condition and condition.after for condition in conditions],
        [condition and _items(condition) for condition in conditions],
        e_append,
        e_offset,
        e_type,
        e_id,
        e_at,
        e_payload,
        t_event,
        t_tag,
    )


def outcome(request: AppendRequest, status: int, version: int, position: int) -> Appended | Exception:
    """Return where an append was stored, or the error to raise."""
    if status <= Status.STORED_BEFORE:
        return Appended(version, position)
    if status == Status.PARTLY_STORED:
        return already_stored(request.stream_id)
    expected, stream_id = request.expected_version, request.stream_id
    if status == Status.WRONG_VERSION:
        text = f"stream {stream_id!r} is at version {version}, not {expected}; nothing was written"
    else:
        assert request.condition is not None
        text = (
            f"an event that the append condition watches was stored at position {position}, after position "
            f"{request.condition.after}; nothing was written to {stream_id!r}"
        )
    return ConcurrencyError(text, expected_version=expected, actual_version=version)


def _items(condition: ResolvedCondition) -> str:
    items = [
        {"types": None if item.types is None else sorted(item.types), "tags": sorted(item.tags)}
        for item in condition.query
    ]
    return json.dumps(items)
