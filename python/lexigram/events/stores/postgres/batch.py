"""Encodes appends as the arguments of one call of the append function, and reads its answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncpg.pgproto.pgproto import UUID

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.stores._primitives import Appended, already_stored
from lexigram.events.stores.partition import partition_hash
from lexigram.events.stores.postgres.append_function import Status
from lexigram.events.stores.postgres.requests import AppendRequest

if TYPE_CHECKING:
    from lexigram.events.stores.condition import ResolvedCondition

NEXT: Final = (
    "SELECT {append_next}($1::text, $2::bigint, $3::bigint, $4::uuid, $5::text[], $6::bigint[], $7::bigint[], "
    "$8::bigint[], $9::integer[], $10::uuid[], $11::bigint[], $12::{given}[], $13::integer[], $14::text[])"
)

CALL: Final = (
    "SELECT statuses, versions, positions, before, keys, current, kinds FROM {append}($1::boolean, $2::text, $3::text[], "
    "$4::bigint[], $5::text[], $6::text[], $7::integer[], $8::bigint[], $9::integer[], $10::bigint[], $11::text[], "
    "$12::integer[], $13::integer[], $14::integer[], $15::uuid[], $16::bigint[], $17::{given}[], $18::integer[], $19::text[])"
)


class Columns(NamedTuple):
    """Events of a batch in order, by column; the last two have one element for each tag, events counted from 1.

    None stands for an empty list, which takes the driver longer.
    """

    type_names: Sequence[str]
    event_types: Sequence[str]
    ids: list[UUID]
    times: Sequence[int]
    payloads: Sequence[Any]
    tagged: list[int] | None
    tags: list[str] | None


def columns(requests: Sequence[AppendRequest], binary: bool) -> Columns:
    """Lay the events of all appends out by column.

    Args:
        binary: Payloads go into a `bytea` column.
    """
    rows = zip(*(event for request in requests for event in request.events), strict=True)
    ids, type_names, event_types, times, tags, given = rows
    tagged: list[int] = []
    names: list[str] = []
    if any(tags):
        for number, own in enumerate(tags, 1):
            if own:
                distinct = dict.fromkeys(own)
                tagged += [number] * len(distinct)
                names += distinct
    payloads = given if binary else [payload.decode() for payload in given]
    return Columns(type_names, event_types, list(map(UUID, ids)), times, payloads, tagged or None, names or None)


def encode_batch(requests: Sequence[AppendRequest], binary: bool) -> tuple[Any, ...]:
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
    for number, (stream_id, events, expected, condition) in enumerate(requests, 1):
        count = len(events)
        a_stream.append(streams.setdefault(stream_id, len(streams) + 1))
        a_expected.append(-1 if expected is None else expected)
        a_count.append(count)
        conditions.append(condition)
        e_append += [number] * count
        e_offset += range(1, count + 1)
    if not any(conditions):
        conditions.clear()
    type_names, event_types, *rest = columns(requests, binary)
    e_type = [types.setdefault(names, len(types) + 1) for names in zip(type_names, event_types, strict=True)]
    return (
        list(streams),
        hashes(streams),
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
        *rest,
    )


def hashes(streams: Iterable[str]) -> list[int]:
    """Return what says which partition each stream is in."""
    return [partition_hash(stream_id) for stream_id in streams]


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
