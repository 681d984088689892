"""Units of work on SQLite that keep their writes until the end."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lexigram.events.exceptions import ConcurrencyError, EventStoreConnectionError
from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.sqlite.event_store import SqliteEventStore


class Noted(DomainEvent):
    """Something was noted."""

    text: str = ""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteEventStore]:
    async with SqliteEventStore(str(tmp_path / "events.db")) as opened:
        await opened.engine.execute("CREATE TABLE notes (text TEXT PRIMARY KEY)")
        yield opened


async def texts(store: SqliteEventStore, stream: str) -> list[str]:
    return [event.text for event in await store.read(stream)]


async def test_appends_are_written_together_at_the_end_and_stamped(store: SqliteEventStore) -> None:
    """Until then nobody sees them and no transaction is open: another append goes through meanwhile."""
    first, second, go = Noted(text="1"), Noted(text="2"), asyncio.Event()

    async def append_alone() -> None:
        await go.wait()
        await store.append("c", [Noted(text="alone")])

    alone = asyncio.create_task(append_alone())  # begun before the unit, so it does not belong to it
    async with store.deferred_unit_of_work():
        assert await store.append("a", [first], 0) == 1
        assert await store.append("b", [second], 0) == 1
        assert first.sequence_number is None
        go.set()
        await asyncio.wait_for(alone, 5)
    assert (await store.read("c"))[0].sequence_number == 1
    assert (first.sequence_number, first.version) == (2, 1)
    assert (second.sequence_number, second.version) == (3, 1)


async def test_a_conflict_shows_at_the_end_and_nothing_is_written(store: SqliteEventStore) -> None:
    """Neither the conflicting append nor its neighbours, nor deferred calls; the store goes on working."""
    await store.append("a", [Noted(text="0")])
    unit = store.deferred_unit_of_work()
    with pytest.raises(ConcurrencyError) as caught:
        async with unit:
            unit.defer(lambda connection: connection.execute("INSERT INTO notes VALUES ('x')"))  # type: ignore[attr-defined]
            await store.append("b", [Noted(text="1")], 0)
            await store.append("a", [Noted(text="2")], 0)
    assert (caught.value.expected_version, caught.value.actual_version) == (0, 1)
    assert await store.engine.fetch_all("SELECT * FROM notes") == []
    assert await texts(store, "b") == []
    assert await store.append("b", [Noted(text="later")], 0) == 1
    assert await store.append("a", [Noted(text="later")], 1) == 2
    assert await store.head() == 3


async def test_reads_see_the_units_own_appends(store: SqliteEventStore) -> None:
    """A stream it has appended to, and anything that looks at all streams, is read inside the transaction."""
    await store.append("a", [Noted(text="0")])
    async with store.deferred_unit_of_work():
        assert await texts(store, "a") == ["0"]
        await store.append("a", [Noted(text="1")], 1)
        assert await texts(store, "b") == []
        assert await texts(store, "a") == ["0", "1"]
        await store.append("a", [Noted(text="2")], 2)
        assert [event.text for event in await store.read_all()] == ["0", "1", "2"]
    assert await texts(store, "a") == ["0", "1", "2"]


async def test_without_expected_version_it_becomes_an_ordinary_unit(store: SqliteEventStore) -> None:
    """The answer depends on what is stored; earlier writes come first."""
    async with store.deferred_unit_of_work() as unit:
        await store.append("a", [Noted(text="1")], 0)
        assert await store.append("a", [Noted(text="2")]) == 2
        assert await unit.execute("INSERT INTO notes VALUES ('x')") == 1
    assert await texts(store, "a") == ["1", "2"]
    assert await store.engine.fetch_all("SELECT * FROM notes") == [("x",)]


async def test_an_error_in_the_block_writes_nothing(store: SqliteEventStore) -> None:
    """Whether the transaction had begun or not."""
    for begin in (False, True):
        with pytest.raises(ValueError, match="no"):
            await _fail(store, begin=begin)
        assert await store.head() == 0


async def _fail(store: SqliteEventStore, *, begin: bool) -> None:
    async with store.deferred_unit_of_work():
        await store.append("a", [Noted(text="1")], 0)
        if begin:
            await store.append("a", [Noted(text="2")])
        raise ValueError("no")


async def test_of_many_units_on_one_stream_exactly_one_wins(store: SqliteEventStore) -> None:
    """All commit in the same group; versions have no gap."""

    async def note(number: int) -> bool:
        try:
            async with store.deferred_unit_of_work():
                await store.append("hot", [Noted(text=str(number))], 0)
                await store.append(f"own-{number}", [Noted()], 0)
        except ConcurrencyError:
            return False
        return True

    outcomes = await asyncio.gather(*(note(number) for number in range(20)))
    assert sum(outcomes) == 1
    assert await texts(store, "hot") == [str(outcomes.index(True))]
    assert await store.head() == 2


async def test_after_close_the_unit_is_refused(tmp_path: Path) -> None:
    """With the store's own error."""
    store = SqliteEventStore(str(tmp_path / "closed.db"))
    await store.connect()
    await store.close()
    with pytest.raises(EventStoreConnectionError):
        await _fail(store, begin=False)


@contextmanager
def inserts_of_events(store: SqliteEventStore) -> Iterator[list[str]]:
    """Collect the statements that insert events, as the writer executes them."""
    found: list[str] = []
    connection = store.engine._writer._transaction.connection  # type: ignore[attr-defined]
    connection.set_trace_callback(lambda sql: found.append(sql) if sql.startswith('INSERT INTO "events"') else None)
    try:
        yield found
    finally:
        connection.set_trace_callback(None)


async def test_units_that_end_together_are_written_together(store: SqliteEventStore) -> None:
    """Their appends, which may build on each other, are inserted in one go; those that come too late are left out."""
    await store.append("taken", [Noted()])

    async def note(number: int) -> bool:
        try:
            async with store.deferred_unit_of_work() as unit:
                unit.defer(lambda connection: connection.execute("INSERT INTO notes VALUES (?)", (number,)))  # type: ignore[attr-defined]
                await store.append(f"own-{number}", [Noted(text="1")], 0)
                await store.append(f"own-{number}", [Noted(text="2"), Noted(text="3")], 1)
                if number % 5 == 0:
                    await store.append("taken", [Noted()], 0)
        except ConcurrencyError:
            return False
        return True

    with inserts_of_events(store) as statements:
        outcomes = await asyncio.gather(*(note(number) for number in range(40)))
    assert outcomes == [number % 5 != 0 for number in range(40)]
    assert len(statements) < 32
    for number, noted in enumerate(outcomes):
        assert await texts(store, f"own-{number}") == (["1", "2", "3"] if noted else [])
    assert await store.head() == 1 + 3 * 32
    assert [event.sequence_number for event in await store.read_all()] == list(range(1, 98))
    assert len(await store.engine.fetch_all("SELECT * FROM notes")) == 32


async def test_a_call_that_fails_undoes_its_own_unit_only(store: SqliteEventStore) -> None:
    """The others that ended together with it are stored, without a gap."""

    async def note(number: int) -> bool:
        try:
            async with store.deferred_unit_of_work() as unit:
                await store.append(f"own-{number}", [Noted()], 0)
                text = "same" if number < 2 else str(number)
                unit.defer(lambda connection: connection.execute("INSERT INTO notes VALUES (?)", (text,)))  # type: ignore[attr-defined]
        except sqlite3.IntegrityError:
            return False
        return True

    assert sorted(await asyncio.gather(*(note(number) for number in range(12)))) == [False] + [True] * 11
    assert [event.sequence_number for event in await store.read_all()] == list(range(1, 12))
    assert len(await store.engine.fetch_all("SELECT * FROM notes")) == 11


async def test_a_unit_that_was_stored_before_is_not_stored_again(store: SqliteEventStore) -> None:
    """A retry with the same events after a lost answer, among other units."""
    events = [Noted(text=str(number)) for number in range(12)]

    async def note(number: int) -> None:
        async with store.deferred_unit_of_work():
            await store.append(f"own-{number}", [pickle.loads(kept[number])], 0)

    kept = [pickle.dumps(event) for event in events]
    await asyncio.gather(*(note(number) for number in range(0, 12, 2)))
    await asyncio.gather(*(note(number) for number in range(12)))
    assert await store.head() == 12
    assert sorted(event.text for event in await store.read_all()) == sorted(event.text for event in events)
