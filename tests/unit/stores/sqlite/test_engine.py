"""The engine: group commit with answers of their own, cancellation, sharing, shutdown."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lexigram.events.config import SqliteConfig
from lexigram.events.exceptions import (
    ConcurrencyError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventStoreError,
)
from lexigram.events.stores.sqlite import direct
from lexigram.events.stores.sqlite import engine as engine_module
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.testing.samples import added, skus
from tests.unit.stores.sqlite.helpers import engine_of, hold_the_writer


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteEventStore]:
    """A store on a file of its own."""
    async with SqliteEventStore(str(tmp_path / "events.db")) as store:
        yield store


async def test_concurrent_appends_share_commits(store: SqliteEventStore) -> None:
    """What waits for the writer is committed together."""
    engine = engine_of(store)
    task, go = await hold_the_writer(engine)
    appends = [asyncio.create_task(store.append(f"s{n % 20}", added(str(n)))) for n in range(200)]
    await asyncio.sleep(0.01)
    before = engine.commits
    go.set()
    await asyncio.gather(task, *appends)
    assert engine.commits - before == 2
    assert await store.head() == 200


async def test_a_conflict_does_not_touch_its_neighbours(store: SqliteEventStore) -> None:
    """In one commit: successes, a wrong version, a repeated append, a half-repeated one, an application error."""
    repeated = added("first")
    await store.append("a", repeated)
    copies = await store.read("a")
    engine = engine_of(store)
    task, go = await hold_the_writer(engine)

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half_done (x)")
        raise KeyError("mine")

    calls = [
        store.append("a", added("second"), expected_version=1),
        store.append("a", added("late"), expected_version=1),
        store.append("b", added("other"), expected_version=0),
        store.append("a", copies, expected_version=0),
        engine.run(fail),
        store.append("a", [*copies, *added("mixed")]),
        store.append("a", added("third"), expected_version=2),
    ]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0.01)
    go.set()
    await task
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[0] == 2
    assert isinstance(outcomes[1], ConcurrencyError)
    assert (outcomes[1].expected_version, outcomes[1].actual_version) == (1, 2)
    assert outcomes[2] == 1
    assert outcomes[3] == 1, "a retry answers what the first attempt stored"
    assert isinstance(outcomes[4], KeyError)
    assert isinstance(outcomes[5], EventPersistenceError)
    assert outcomes[6] == 3
    assert skus(await store.read("a")) == ["first", "second", "third"]
    assert await engine.fetch_all("SELECT name FROM sqlite_master WHERE name = 'half_done'") == []


@pytest.mark.parametrize("action", ["COMMIT", "ROLLBACK", "method"])
async def test_a_function_cannot_end_the_shared_transaction(store: SqliteEventStore, action: str) -> None:
    """It would tear its neighbours apart; it gets an error and they are stored."""

    def misbehave(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE mine (x)")
        if action == "method":
            connection.commit()
        else:
            connection.execute(action)

    with pytest.raises(EventStoreError, match="must not commit or roll back"):
        await engine_of(store).run(misbehave)
    assert await store.append("a", added("1")) == 1
    assert await store.engine.fetch_all("SELECT name FROM sqlite_master WHERE name = 'mine'") == []


async def test_a_cancelled_append_that_still_waits_is_not_stored(store: SqliteEventStore) -> None:
    """Its neighbours are, and the event can be appended later."""
    events = added("cancelled")
    task, go = await hold_the_writer(engine_of(store))
    cancelled = asyncio.create_task(store.append("a", events))
    other = asyncio.create_task(store.append("a", added("other")))
    await asyncio.sleep(0.01)
    cancelled.cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(task, other)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert skus(await store.read("a")) == ["other"]
    assert await store.append("a", events, expected_version=1) == 2


async def test_appends_cancelled_at_any_moment_are_whole_or_absent(store: SqliteEventStore) -> None:
    """Whatever the moment: no half batch, numbers without gaps, and the store goes on."""

    async def one(number: int) -> None:
        await store.append(f"s{number % 3}", added(*[f"{number}.{part}" for part in range(3)]))

    for round_ in range(40):
        tasks = [asyncio.create_task(one(round_ * 10 + number)) for number in range(10)]
        await asyncio.sleep(0.0002 * (round_ % 8))
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    events = await store.read_all()
    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
    batches: dict[str, list[str]] = {}
    for event in events:
        number, part = event.sku.split(".")
        batches.setdefault(number, []).append(part)
    assert all(parts == ["0", "1", "2"] for parts in batches.values())
    assert len(batches) >= 200, "what was not cancelled is there"


async def test_a_retry_after_a_cancelled_append_stores_it_once(store: SqliteEventStore) -> None:
    """The outcome of a cancelled append is unknown; appending the same events again settles it."""
    for number in range(30):
        events = added(str(number))
        task = asyncio.create_task(store.append("a", events))
        await asyncio.sleep(0.0001 * (number % 5))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.append("a", events)
    assert skus(await store.read("a")) == [str(number) for number in range(30)]


async def test_more_callers_than_the_queue_holds_wait_their_turn(
    store: SqliteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is bounded; nobody is refused or lost."""
    monkeypatch.setattr(engine_module, "MAX_WAITING", 3)
    await asyncio.gather(*(store.append("a", added(str(n))) for n in range(100)))
    assert await store.get_stream_version("a") == 100
    found = await asyncio.gather(*(store.get_stream_version("a") for _ in range(100)))
    assert found == [100] * 100


async def test_a_large_and_many_small_appends_are_all_served(store: SqliteEventStore) -> None:
    """A commit has a limit, and small appends queued behind a large one get their turn in the next."""
    large = asyncio.create_task(store.append("large", added(*map(str, range(6000)))))
    await asyncio.gather(*(store.append(f"s{n}", added("x")) for n in range(1500)))
    assert await large == 6000
    assert await store.head() == 7500


async def test_a_lock_held_elsewhere_is_waited_for_then_reported(tmp_path: Path) -> None:
    """Within the timeout the append succeeds; beyond it there is one clear error, nothing stored, and a usable store."""
    path = str(tmp_path / "events.db")
    async with SqliteEventStore(SqliteConfig(database=path, busy_timeout_seconds=0.15)) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.append("a", added("1")))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        other.execute("ROLLBACK")
        assert await waiting == 1
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(EventStoreConnectionError, match="busy_timeout"):
            await store.append("a", added("2"))
        assert await store.head() == 1, "readers do not wait for the lock"
        other.execute("ROLLBACK")
        other.close()
        assert await store.append("a", added("3")) == 2


async def test_what_another_connection_wrote_is_noticed(store: SqliteEventStore) -> None:
    """Cached versions, keys and positions are only used while nobody else has written."""
    await store.append("a", added("1"))
    other = sqlite3.connect(store.database.path, isolation_level=None)
    other.execute("INSERT INTO event_streams (key, stream_id, partition_hash) VALUES (2, 'b', 0)")
    other.execute("INSERT INTO events SELECT position + 1, 2, 1, type, zeroblob(16), occurred_at, payload FROM events")
    other.close()
    with pytest.raises(ConcurrencyError):
        await store.append("b", added("2"), expected_version=0)
    events = added("3")
    assert await store.append("c", events) == 1
    assert events[0].sequence_number == 3


async def test_a_reader_thread_survives_an_error(store: SqliteEventStore) -> None:
    """The error reaches its caller, and the next read works, as often as one likes."""
    for _ in range(20):
        with pytest.raises(sqlite3.OperationalError):
            await store.engine.fetch_all("SELECT * FROM nowhere")
        with pytest.raises(RuntimeError):
            await store.engine.read(lambda _connection: next(iter(())), snapshot=True)
    with pytest.raises(EventStoreError, match="cannot write"):
        await store.engine.fetch_all("DELETE FROM events")
    assert await store.engine.fetch_one("SELECT 1") == (1,)


async def test_a_snapshot_read_sees_one_moment(store: SqliteEventStore) -> None:
    """Appends between its statements do not show."""
    loop = asyncio.get_running_loop()

    def twice(connection: sqlite3.Connection) -> tuple[int, int]:
        first = connection.execute("SELECT count(*) FROM events").fetchone()[0]
        asyncio.run_coroutine_threadsafe(store.append("a", added("1")), loop).result(10)
        return first, connection.execute("SELECT count(*) FROM events").fetchone()[0]

    assert await store.engine.read(twice, snapshot=True) == (0, 0)
    assert await store.engine.read(twice) == (1, 2)


async def test_lookups_move_to_a_reader_thread_when_they_are_slow(
    store: SqliteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cold disk must not hold up the event loop; a quick one answers on the spot."""
    await store.append("a", added("1"))

    async def thread_of_a_lookup() -> int:
        return await store.engine.look_up(lambda _connection: threading.get_ident())

    assert await thread_of_a_lookup() == threading.get_ident()
    monkeypatch.setattr(direct, "_SLOW_SECONDS", 0.0)
    assert await thread_of_a_lookup() == threading.get_ident()
    assert await thread_of_a_lookup() != threading.get_ident()
    assert skus(await store.read("a")) == ["1"]


async def test_a_lookup_that_fails_reports_what_a_reader_thread_finds(store: SqliteEventStore) -> None:
    """The direct connection only ever saves time."""
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await store.engine.find("SELECT * FROM nowhere")
    assert await store.engine.find("SELECT 1") == (1,)


@pytest.mark.parametrize("limit", [1, 63, 64, 65, 199, 200, 201, None])
async def test_streams_around_the_size_of_a_lookup_are_read_whole(store: SqliteEventStore, limit: int | None) -> None:
    """Short reads and long ones take different ways and return the same."""
    names = [str(number) for number in range(200)]
    await store.append("a", added(*names))
    assert skus(await store.read("a", limit=limit)) == names[:limit]
    assert skus(await store.read("a", 101, limit=limit)) == names[100:][:limit]
    assert skus(await store.read("a", 1, 64, limit=limit)) == names[:64][:limit]
