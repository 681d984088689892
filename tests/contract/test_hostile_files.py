"""Files whose checksum is right and whose content is not: a hostile or careless tool may have written them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import DomainEvent, EventPersistenceError, EventValidationError, InMemoryEventStore
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.interchange import _entries, export_events, import_events
from lexigram.events.stores.migration import LogDigest


class Sold(DomainEvent):
    sku: str


def _edit(line: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n"


def _write(path: Path, lines: list[bytes]) -> None:
    digest = LogDigest()
    path.write_bytes(b"".join(lines))
    with path.open("rb") as file:
        file.readline()
        with suppress(EventValidationError):
            for _, facts in _entries(file, EventCodec()):
                digest.add_facts(facts)
    end = {"count": digest.count, "sha256": digest.hexdigest()}
    path.write_bytes(b"".join([*lines[:-1], _edit(lines[-1], data=end)]))


async def test_versions_that_do_not_rise_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """With a line and a field, not as a conflict in the middle of the import."""
    source, target, path = InMemoryEventStore(), InMemoryEventStore(), tmp_path / "log.jsonl"
    await source.append("a", [Sold(sku="1"), Sold(sku="2"), Sold(sku="3")])
    await export_events(source, path)
    lines = path.read_bytes().splitlines(keepends=True)
    _write(path, [*lines[:3], _edit(lines[3], streamversion=2), lines[4]])
    with pytest.raises(EventValidationError, match="line 4, streamversion: 2 does not come after 2"):
        await import_events(path, target, batch_size=1)
    assert await target.head() == 0


async def test_an_event_id_that_comes_twice_is_an_error(tmp_path: Path) -> None:
    """The second one counts as a retry in the store; the import said that it was stored."""
    source, target, path = InMemoryEventStore(), InMemoryEventStore(), tmp_path / "log.jsonl"
    for stream_id in ("a", "b", "a"):
        await source.append(stream_id, [Sold(sku="1")])
    await export_events(source, path)
    lines = path.read_bytes().splitlines(keepends=True)
    again = json.loads(lines[1])
    _write(path, [*lines[:3], _edit(lines[3], id=again["id"], data=again["data"]), lines[4]])
    with pytest.raises(EventPersistenceError, match="an event id comes twice"):
        await import_events(path, target)
    assert await target.head() == 0
