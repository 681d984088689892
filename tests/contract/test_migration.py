"""A log is copied between any two backends and through files, exactly, and goes on where it was interrupted."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import date
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import (
    DomainEvent,
    EventPersistenceError,
    EventValidationError,
    InMemoryEventStore,
    SqliteEventStore,
    event_type,
)
from lexigram.events.messages.codec import EventCodec
from lexigram.events.messages.registry import EventTypeRegistry
from lexigram.events.stores.interchange import export_events, import_events
from lexigram.events.stores.migration import Copier, migrate, migrate_store, verify_migration
from tests.backends import BACKENDS, MakeStore, make_store

__all__ = ["make_store"]


@event_type("tests.migration.stocked")
class Stocked(DomainEvent):
    sku: str
    price: Decimal
    on: date
    labels: tuple[str, ...] = ()


class Sold(DomainEvent):
    sku: str


def stocked(number: int) -> Stocked:
    """Return an event with tags, metadata and values that JSON alone does not know."""
    event = Stocked(sku=f"s{number} 😀", price=Decimal("1.10") * number, on=date(2024, 2, 29), labels=("a", "b"))
    return event.with_tags(f"sku:{number}", 'odd "tag", with comma').with_correlation_id("c1")


def unknown() -> Any:
    """Return an event as it is read where its class is not known, with a payload in an unusual form."""
    known = EventCodec().encode(Sold(sku="x"))
    payload = known.payload.replace(b'"sku":"x"', b'"sku" : "x",  "gone":[1.50,1e2]')
    return EventCodec().decode("other.program.Vanished", "Vanished", payload, 0, None)


async def fill(store: Any) -> None:
    """Store a log with everything that a copy could get wrong: runs, holes at the beginning and in the middle."""
    for number in range(4):
        await store.append("a", [stocked(number), Sold(sku="1")])
        await store.append(f"b{number % 2}", [stocked(number)])
    await store.append("gone", [Sold(sku="2"), Sold(sku="3")])
    await store.append("a", [unknown()])
    await store.append("c", [stocked(9)])
    await store.compact("a", 3)
    await store.compact("b1", 1)
    await store.delete_stream("gone")


async def contents(store: Any) -> list[Any]:
    """Return everything that a reader sees, with versions and positions."""
    return [(e.sequence_number, e.version, e.event_id, e) for e in await store.read_all()]


@pytest.mark.parametrize(("first", "second"), list(permutations(BACKENDS, 2)))
async def test_a_copy_is_exact(make_store: MakeStore, first: str, second: str) -> None:
    """Ids, versions, positions, holes, counters of removed streams, tags, unknown events: all as in the source."""
    async with make_store(first) as source, make_store(second) as target:
        await fill(source)
        seen: list[tuple[int, int]] = []
        result = await migrate(source, target, batch_size=3, on_progress=lambda done, head: seen.append((done, head)))
        assert result.success
        assert result.events_migrated == await source.get_events_count() == await target.get_events_count()
        assert await contents(target) == await contents(source)
        assert await target.head() == await source.head() == seen[-1][1]
        assert await verify_migration(source, target) == (True, [])
        for stream in ("a", "b1", "gone", "c"):
            assert await target.get_stream_version(stream) == await source.get_stream_version(stream)
            assert await target.read(stream) == await source.read(stream)
        assert await target.query(tags=["sku:9"]) == await source.query(tags=["sku:9"])
        assert await target.append("gone", [Sold(sku="new")]) == 3
        last = (await target.read_all())[-1]
        assert last.sequence_number == await source.head() + 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_interrupted_copy_goes_on(
    make_store: MakeStore, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was copied is not copied again; whatever batch was the last, the end is the same."""
    async with make_store("memory") as source:
        await fill(source)
        for batches_before in range(1, 4):
            async with make_store(backend) as target:
                copy, left = Copier.copy, [batches_before]

                async def failing(self: Copier, batch: Any, copy: Any = copy, left: list[int] = left) -> None:
                    if not left[0]:
                        raise KeyboardInterrupt
                    left[0] -= 1
                    await copy(self, batch)

                with monkeypatch.context() as patch:
                    patch.setattr(Copier, "copy", failing)
                    with pytest.raises(KeyboardInterrupt):
                        await migrate(source, target, batch_size=2)
                result = await migrate(source, target, batch_size=2)
                assert result.events_migrated == await source.get_events_count() - 2 * batches_before
                assert await verify_migration(source, target) == (True, [])


COPYING = """
import asyncio, sys
from lexigram.events import SqliteEventStore, migrate

async def main():
    async with SqliteEventStore(sys.argv[1]) as source, SqliteEventStore(sys.argv[2]) as target:
        await migrate(source, target, batch_size=20, on_progress=lambda done, head: print(done, flush=True))

asyncio.run(main())
"""


async def test_a_killed_copy_goes_on(tmp_path: Path) -> None:
    """kill -9 anywhere in it: the next call copies what is missing, and both logs are equal in the end."""
    where = [str(tmp_path / name) for name in ("source.db", "target.db")]
    async with SqliteEventStore(where[0]) as source, SqliteEventStore(where[1]) as target:
        for number in range(200):
            await source.append(f"s{number % 7}", [Sold(sku=str(n)) for n in range(10)])
        await source.compact("s3", 90)
        copied = 0
        for reports in (2, 5, 9):
            process = subprocess.Popen([sys.executable, "-c", COPYING, *where], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            for _ in range(reports):
                progress = int(await asyncio.to_thread(process.stdout.readline))
            process.kill()
            process.communicate()
            assert progress > copied, "it went on where the last one was killed"
            copied = progress
        result = await migrate(source, target)
        assert 0 < result.events_migrated <= await source.head() - copied
        assert await verify_migration(source, target) == (True, [])
        assert await contents(target) == await contents(source)


async def test_a_target_with_other_events_is_refused_and_unchanged() -> None:
    """By `migrate` with an error, by `migrate_store` in its result."""
    source, target = InMemoryEventStore(), InMemoryEventStore()
    await fill(source)
    await target.append("other", [Sold(sku="x")])
    before = await contents(target)
    with pytest.raises(EventPersistenceError, match="other events than the source"):
        await migrate(source, target)
    result = await migrate_store(source, target)
    assert not result.success
    assert "other events" in result.errors[0]
    assert await contents(target) == before


async def test_a_dry_run_writes_nothing_and_counts() -> None:
    """The count is that of the events which a real run would copy."""
    source, target = InMemoryEventStore(), InMemoryEventStore()
    await fill(source)
    result = await migrate_store(source, target, dry_run=True)
    assert result.success
    assert result.events_migrated == await source.get_events_count()
    assert await target.head() == 0


async def test_differences_are_named() -> None:
    """The first ones, with position and what differs."""
    source, target = InMemoryEventStore(), InMemoryEventStore()
    event = stocked(1)
    await source.append("a", [event, Sold(sku="1")])
    await target.append("a", [event.with_tags("other")])
    equal, differences = await verify_migration(source, target)
    assert not equal
    assert differences[0].startswith("position 1 differs in tags")
    assert "position 2" in differences[1]
    assert "missing in the target" in differences[1]


@pytest.mark.parametrize("bad", [{"source": 5}, {"target": None}, {"batch_size": 0}])
async def test_bad_arguments_are_named(bad: dict[str, Any]) -> None:
    """Each by its field."""
    arguments: dict[str, Any] = {"source": InMemoryEventStore(), "target": InMemoryEventStore(), **bad}
    with pytest.raises(EventValidationError, match=next(iter(bad))):
        await migrate(**arguments)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_file_brings_everything_back(make_store: MakeStore, backend: str, tmp_path: Path) -> None:
    """Through JSON Lines: equal events, positions, versions and bytes of unknown events."""
    path = tmp_path / "log.jsonl"
    async with make_store(backend) as source, make_store("memory") as target, make_store(backend) as again:
        await fill(source)
        written = await export_events(source, path, source="urn:test", batch_size=4)
        read = await import_events(path, target, batch_size=3)
        assert read.checksum == written.checksum
        assert await contents(target) == await contents(source)
        assert await verify_migration(source, target) == (True, [])
        copied = [e for e in await target.read_all() if type(e).__name__ == "UnknownEvent"]
        assert [e.payload for e in copied] == [e.payload for e in await source.read_all() if hasattr(e, "payload")]
        await import_events(path, again)
        assert await verify_migration(source, again) == (True, [])
        assert (await import_events(path, again)).events_migrated == 0


async def test_each_line_is_a_cloud_event(tmp_path: Path) -> None:
    """With the required attributes, and extension attributes named as the specification allows."""
    source, path = InMemoryEventStore(), tmp_path / "log.jsonl"
    await fill(source)
    await export_events(source, path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == await source.get_events_count() + 2
    for line in lines:
        assert {"specversion", "id", "source", "type"} <= line.keys()
        assert all(name.isalnum() and name == name.lower() for name in line)
        assert all(isinstance(value, str | int | bool) for name, value in line.items() if name != "data")
    assert lines[1]["time"].endswith("Z")
    assert lines[1]["type"] == "tests.migration.stocked" or lines[1]["type"].endswith("Sold")


def _edit(line: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n"


def _edit_data(line: bytes, **changes: Any) -> bytes:
    return _edit(line, data={**json.loads(line)["data"], **changes})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:-1], "ends without its last line"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 3, position"),
        (lambda lines: [lines[0], lines[1][:-9] + b"\n", *lines[2:]], "line 2, line: not JSON"),
        (lambda lines: [lines[0], *lines[2:]], "the events of the file are"),
        (lambda lines: [lines[0], _edit(lines[1], subject=7), *lines[2:]], "line 2, subject"),
        (lambda lines: [lines[0], _edit(lines[1], id="x"), *lines[2:]], "line 2, id"),
        (lambda lines: [lines[0], _edit(lines[1], specversion="0.3"), *lines[2:]], "line 2, specversion"),
        (lambda lines: lines[1:], "line 1, type"),
        (lambda lines: [*lines, *lines], "something follows the last line"),
        (lambda lines: [lines[0], _edit(lines[1], position=-1), *lines[2:]], "line 2, position"),
        (lambda lines: [lines[0], _edit(lines[1], streamversion=10**30), *lines[2:]], "line 2, streamversion"),
        (lambda lines: [lines[0], _edit(lines[1], time="yesterday"), *lines[2:]], "line 2, time"),
        (lambda lines: [lines[0], _edit(lines[1], time="2024-01-01T00:00:00Z"), *lines[2:]], "the events of the file"),
        (lambda lines: [lines[0], _edit(lines[1], tags="sku:1"), *lines[2:]], "line 2, tags"),
        (lambda lines: [lines[0], _edit(lines[1], tags='["sku:2"]'), *lines[2:]], "the events of the file are"),
        (lambda lines: [_edit_data(lines[0], head=10**6), *lines[1:]], "line 1, data"),
        (lambda lines: [_edit_data(lines[0], head=True), *lines[1:]], "line 1, data.head"),
        (lambda lines: [_edit_data(lines[0], removed={}), *lines[1:]], "line 1, data"),
        (lambda lines: [_edit_data(lines[0], removed={"a": "3"}), *lines[1:]], "line 1, data.removed"),
        (lambda lines: [_edit_data(lines[0], removed={"": 3}), *lines[1:]], "line 1, data.removed.*must not be empty"),
        (lambda lines: [lines[0], b"[" * 100_000 + b"\n", *lines[2:]], "line 2, line: not JSON"),
        (lambda lines: [lines[0], _edit(lines[1], tags="[" * 100_000), *lines[2:]], "line 2, tags"),
        (lambda lines: [lines[0], _edit(lines[1], subject=""), *lines[2:]], "line 2, subject.*must not be empty"),
        (lambda lines: [lines[0], _edit(lines[1], type="\ud800"), *lines[2:]], "line 2, data.*surrogates"),
    ],
)
async def test_a_damaged_file_is_refused_before_anything_is_written(tmp_path: Path, damage: Any, message: str) -> None:
    """One error names line and field."""
    source, target, path = InMemoryEventStore(), InMemoryEventStore(), tmp_path / "log.jsonl"
    await fill(source)
    await export_events(source, path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(damage(lines)))
    with pytest.raises(EventValidationError, match=message):
        await import_events(path, target)
    assert await target.head() == 0


def bought(*, newer: bool) -> type[DomainEvent]:
    """Return a class of the same name as the program had it before, or as it has it now."""
    if newer:

        class Bought(DomainEvent):
            sku: str
            count: int = 1
    else:

        class Bought(DomainEvent):  # type: ignore[no-redef]
            sku: str

    return Bought


async def test_a_program_whose_classes_have_changed_reads_an_older_file(tmp_path: Path) -> None:
    """The checksum is of what the file says; a class that has gained a field since says it otherwise."""
    source, target, path = InMemoryEventStore(), InMemoryEventStore(), tmp_path / "log.jsonl"
    older = bought(newer=False)
    await source.append("a", [older(sku="1"), older(sku="2").with_tags("t")])
    await export_events(source, path)
    newer = bought(newer=True)
    await import_events(path, target)
    events = await target.read("a")
    assert [(type(event), event.sku, event.count) for event in events] == [(newer, "1", 1), (newer, "2", 1)]
    assert (await import_events(path, target)).events_migrated == 0


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_source_that_removes_events_between_two_copies(make_store: MakeStore, backend: str) -> None:
    """What was copied and then removed from the source goes from the copy, too."""
    source = InMemoryEventStore()
    await fill(source)
    async with make_store(backend) as target:
        await migrate(source, target)
        await source.compact("a", 6)
        await source.delete_stream("b0")
        await source.append("a", [Sold(sku="later")])
        result = await migrate(source, target)
        assert (result.events_migrated, await verify_migration(source, target)) == (1, (True, []))
        assert await contents(target) == await contents(source)


class LosingStore(InMemoryEventStore):
    """Removes and appends events whenever a page was read, while there are `changes`."""

    changes = 0

    async def _read_all(self, request: Any) -> Any:
        page = await super()._read_all(request)
        if self.changes:
            self.changes -= 1
            version = (await self._bounds("a")).first
            await self.compact("a", version + 1)
            await self.append("a", [Sold(sku="later")])
        return page


async def test_a_source_that_goes_on_and_removes_events_meanwhile(tmp_path: Path) -> None:
    """The copy, and the file, are of one moment; what came since comes with the next copy."""
    source, target, restored, path = LosingStore(), InMemoryEventStore(), InMemoryEventStore(), tmp_path / "log.jsonl"
    for number in range(10):
        await source.append("a", [stocked(number), Sold(sku="1")])
        await source.append(f"b{number % 2}", [stocked(number)])
    await source.delete_stream("b0")
    source.changes = 3
    await migrate(source, target, batch_size=2)
    await migrate(source, target, batch_size=2)
    assert await verify_migration(source, target) == (True, [])
    source.changes = 3
    await export_events(source, path, batch_size=2)
    await import_events(path, restored)
    assert await verify_migration(source, restored) == (True, [])


async def test_an_export_gives_up_where_events_are_removed_all_the_time(tmp_path: Path) -> None:
    """Rather than go on for ever; no file appears."""
    source, path = LosingStore(), tmp_path / "log.jsonl"
    await source.append("a", [stocked(number) for number in range(100)])
    source.changes = 1000
    with pytest.raises(EventPersistenceError, match="each of 5 attempts"):
        await export_events(source, path)
    assert not path.exists()


async def test_a_file_names_types_as_the_store_does(tmp_path: Path) -> None:
    """An alias of the store's own registry outlives a class that moves."""
    registry, path = EventTypeRegistry(), tmp_path / "log.jsonl"
    registry.register(Sold, "shop.sold")
    source, target = InMemoryEventStore(registry=registry), InMemoryEventStore(registry=registry)
    await source.append("a", [Sold(sku="1")])
    await export_events(source, path)
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[1])["type"] == "shop.sold"
    await import_events(path, target)
    assert await contents(target) == await contents(source)


async def test_lines_of_another_producer_are_read(tmp_path: Path) -> None:
    """The order of attributes and white space do not matter."""
    source, target, path = InMemoryEventStore(), InMemoryEventStore(), tmp_path / "log.jsonl"
    await source.append("a", [stocked(1), Sold(sku="1")])
    await export_events(source, path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    turned = [json.dumps(dict(reversed(line.items())), indent=None) for line in lines]
    path.write_text("\n".join(turned) + "\n", encoding="utf-8")
    await import_events(path, target)
    assert await contents(target) == await contents(source)
