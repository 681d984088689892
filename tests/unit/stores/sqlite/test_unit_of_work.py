"""The unit of work on SQLite: application rows, appends, checkpoints in one transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextvars import Context
from pathlib import Path

import pytest
import pytest_asyncio

from lexigram.events.exceptions import EventStoreConnectionError, EventStoreError, EventValidationError
from lexigram.events.stores.sqlite.checkpoint_store import SqliteCheckpointStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.stores.sqlite.idempotency_store import SqliteIdempotencyStore
from lexigram.events.testing.samples import added, skus


@pytest_asyncio.fixture(params=["file", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteEventStore]:
    """A store with an application table beside its own."""
    path = ":memory:" if request.param == "memory" else str(tmp_path / "events.db")
    async with SqliteEventStore(path) as store:
        await store.engine.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, total INTEGER)")
        yield store


async def totals(store: SqliteEventStore) -> dict[str, int]:
    """The application's rows."""
    return dict(await store.engine.fetch_all("SELECT id, total FROM orders"))


async def test_everything_inside_is_committed_together(store: SqliteEventStore) -> None:
    """Rows, events, checkpoint and idempotency mark; each call answers as usual."""
    checkpoints, marks = SqliteCheckpointStore(store), SqliteIdempotencyStore(store)
    async with checkpoints, marks:
        async with store.unit_of_work() as unit:
            assert await unit.execute("INSERT INTO orders VALUES ('a', 1)") == 1
            assert await unit.executemany("INSERT INTO orders VALUES (?, ?)", [("b", 2), ("c", 3)]) == 2
            assert await unit.fetch_one("SELECT total FROM orders WHERE id = ?", ("b",)) == (2,)
            assert await unit.fetch_one("SELECT total FROM orders WHERE id = 'z'") is None
            assert len(await unit.fetch_all("SELECT * FROM orders")) == 3
            assert await unit.run(lambda connection: connection.total_changes) > 0
            assert await store.append("a", added("1"), expected_version=0) == 1
            await checkpoints.save_checkpoint("orders", 7)
            assert await marks.claim("consumer", "m1")
            assert await store.engine.execute("UPDATE orders SET total = 10 WHERE id = 'a'") == 1
        assert await totals(store) == {"a": 10, "b": 2, "c": 3}
        assert skus(await store.read("a")) == ["1"]
        assert await checkpoints.get_checkpoint("orders") == 7
        assert await marks.is_processed("consumer", "m1")


async def test_everything_inside_is_rolled_back_together(store: SqliteEventStore) -> None:
    """An exception undoes rows, events, checkpoint and mark."""
    checkpoints, marks = SqliteCheckpointStore(store), SqliteIdempotencyStore(store)
    async with checkpoints, marks:
        with pytest.raises(KeyError):
            async with store.unit_of_work() as unit:
                await unit.execute("INSERT INTO orders VALUES ('a', 1)")
                await store.append("a", added("1"))
                await checkpoints.save_checkpoint("orders", 7)
                await marks.mark_processed("consumer", "m1")
                raise KeyError
        assert await totals(store) == {}
        assert await store.head() == 0
        assert await checkpoints.get_checkpoint("orders") == 0
        assert not await marks.is_processed("consumer", "m1")
    assert await store.append("a", added("2")) == 1


async def test_a_failing_statement_undoes_only_itself(store: SqliteEventStore) -> None:
    """The caller may catch it and go on; a failing function leaves nothing of what it wrote."""

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO orders VALUES ('half', 1)")
        raise ValueError

    async with store.unit_of_work() as unit:
        await unit.execute("INSERT INTO orders VALUES ('a', 1)")
        with pytest.raises(sqlite3.IntegrityError):
            await unit.executemany("INSERT INTO orders VALUES (?, ?)", [("b", 2), ("a", 3)])
        with pytest.raises(ValueError):
            await unit.run(half)
        await unit.execute("INSERT INTO orders VALUES ('c', 3)")
    assert await totals(store) == {"a": 1, "c": 3}


async def test_cancelled_inside_a_statement_it_is_rolled_back(store: SqliteEventStore) -> None:
    """At whatever moment; the writer is free for the next one at once."""

    async def work(number: int) -> None:
        async with store.unit_of_work() as unit:
            for part in range(3):
                await unit.execute("INSERT INTO orders VALUES (?, ?)", (f"{number}.{part}", part))
                await store.append(f"s{number}", added(str(part)))

    for number in range(40):
        task = asyncio.create_task(work(number))
        await asyncio.sleep(0.0003 * (number % 10))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.wait_for(store.append("after", added("x")), 5) == number + 1
    for number in range(40):
        rows = [key for key in await totals(store) if key.startswith(f"{number}.")]
        assert len(rows) in (0, 3)
        assert await store.get_stream_version(f"s{number}") == len(rows)


async def test_it_gives_the_writer_back_when_it_takes_too_long(store: SqliteEventStore) -> None:
    """The transaction is undone at the timeout, later calls say why, and others were not blocked for ever."""
    with pytest.raises(EventStoreError, match=r"longer than 0.05 s"):
        async with store.unit_of_work(timeout_seconds=0.05) as unit:
            await unit.execute("INSERT INTO orders VALUES ('slow', 1)")
            other = asyncio.create_task(store.append("a", added("1")), context=Context())
            assert await asyncio.wait_for(other, 5) == 1
            await unit.execute("INSERT INTO orders VALUES ('slow', 2)")
    assert await totals(store) == {}


async def test_a_commit_after_the_timeout_raises(store: SqliteEventStore) -> None:
    """Nothing is reported as committed that was rolled back."""
    events = added("1")
    with pytest.raises(EventStoreError, match="longer than"):
        async with store.unit_of_work(timeout_seconds=0.02):
            await store.append("a", events)
            await asyncio.sleep(0.1)
    assert events[0].sequence_number is None
    assert await store.head() == 0


async def test_another_task_queues_behind_it(store: SqliteEventStore) -> None:
    """Its append is stored after the block's commit."""
    async with store.unit_of_work():
        await store.append("a", added("inside"))
        outside = asyncio.create_task(store.append("a", added("outside")), context=Context())
        await asyncio.sleep(0.02)
        assert not outside.done()
        await store.append("a", added("inside too"))
    assert await outside == 3
    assert skus(await store.read("a")) == ["inside", "inside too", "outside"]


async def test_an_empty_block_does_not_wait_for_the_writer(store: SqliteEventStore) -> None:
    """It begins with its first statement."""
    async with store.unit_of_work():
        await store.append("a", added("1"))

        async def empty() -> None:
            async with store.unit_of_work():
                pass

        await asyncio.wait_for(asyncio.create_task(empty(), context=Context()), 5)


async def test_a_unit_that_has_ended_says_so(store: SqliteEventStore) -> None:
    """Also when a task outlives the block in which it was started."""
    async with store.unit_of_work() as unit:
        await unit.execute("INSERT INTO orders VALUES ('a', 1)")
    with pytest.raises(EventStoreError, match="has ended"):
        await unit.execute("INSERT INTO orders VALUES ('b', 1)")

    async def later() -> int:
        await asyncio.sleep(0.02)
        return await store.append("a", added("1"))

    async with store.unit_of_work() as unit:
        await unit.execute("INSERT INTO orders VALUES ('b', 1)")
        task = asyncio.create_task(later())
    assert await task == 1


async def test_closing_the_store_ends_an_open_block(tmp_path: Path) -> None:
    """It is rolled back, with the clear error of a closed store."""
    path = str(tmp_path / "events.db")
    store = SqliteEventStore(path)
    with pytest.raises(EventStoreConnectionError, match="closed"):
        async with store.unit_of_work():
            await store.append("a", added("1"))
            await store.close()
    async with SqliteEventStore(path) as again:
        assert await again.head() == 0


async def test_many_blocks_at_once_are_served_one_after_the_other(store: SqliteEventStore) -> None:
    """Each sees what the ones before it have done: no lost update."""
    await store.engine.execute("INSERT INTO orders VALUES ('sum', 0)")

    async def add() -> None:
        async with store.unit_of_work() as unit:
            row = await unit.fetch_one("SELECT total FROM orders")
            assert row is not None
            await unit.execute("UPDATE orders SET total = ?", (row[0] + 1,))
            await store.append("sum", added("x"))

    await asyncio.gather(*(add() for _ in range(30)), *(store.append("beside", added("y")) for _ in range(30)))
    assert await totals(store) == {"sum": 30}
    assert await store.head() == 60


@pytest.mark.parametrize("timeout", [0, -1, "1", True, float("nan")])
async def test_a_bad_timeout_is_refused(store: SqliteEventStore, timeout: float) -> None:
    """It must be a number of seconds above 0."""
    with pytest.raises(EventValidationError) as caught:
        store.unit_of_work(timeout_seconds=timeout)
    assert caught.value.field == "timeout_seconds"
