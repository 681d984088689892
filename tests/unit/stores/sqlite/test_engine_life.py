"""The life of an engine: shared by stores, event loops and threads, ended by the last of them, not inherited by a fork."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events.config import SqliteConfig
from lexigram.events.exceptions import (
    EventStoreConnectionError,
    EventValidationError,
)
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.stores.sqlite.checkpoint_store import SqliteCheckpointStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.stores.sqlite.snapshot_store import SqliteSnapshotStore
from lexigram.events.testing.samples import added
from tests.unit.stores.sqlite.helpers import database_threads, engine_of, hold_the_writer


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteEventStore]:
    """A store on a file of its own."""
    async with SqliteEventStore(str(tmp_path / "events.db")) as store:
        yield store


def test_event_loops_in_several_threads_share_one_engine(tmp_path: Path) -> None:
    """Each gets its own answers; together they leave one log without gaps."""
    path = str(tmp_path / "events.db")
    engines: list[Any] = []

    async def work(name: str) -> None:
        async with SqliteEventStore(path) as store:
            engines.append(store.engine)
            for _ in range(5):
                await asyncio.gather(*(store.append(name, added("x")) for _ in range(10)))
            assert await store.get_stream_version(name) == 50
            barrier.wait(10)

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=lambda name=name: asyncio.run(work(name))) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(engines) == 3
    assert len(set(map(id, engines))) == 1
    assert database_threads() == []

    async def check() -> list[int]:
        async with SqliteEventStore(path) as store:
            return [event.sequence_number for event in await store.read_all()]

    assert asyncio.run(check()) == list(range(1, 151))


async def test_close_finishes_what_is_queued_and_leaves_no_thread(tmp_path: Path) -> None:
    """Appends that wait when the store is closed are stored and answered; later ones get one clear error."""
    path = str(tmp_path / "events.db")
    store = SqliteEventStore(path)
    await store.connect()
    engine = engine_of(store)
    task, go = await hold_the_writer(engine)
    appends = [asyncio.create_task(store.append("a", added(str(n)))) for n in range(20)]
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0.01)
    go.set()
    await asyncio.gather(task, closing, *appends)
    assert database_threads() == []
    with pytest.raises(EventStoreConnectionError, match="closed"):
        await engine.run(lambda _connection: None)
    async with SqliteEventStore(path) as again:
        assert await again.get_stream_version("a") == 20


async def test_memory_databases_are_shared_on_purpose_only() -> None:
    """By the same configuration object or by passing the store; equal strings are two databases."""
    config = SqliteConfig(database=":memory:")
    async with (
        SqliteEventStore(config) as first,
        SqliteEventStore(config) as second,
        SqliteEventStore(":memory:") as third,
        SqliteEventStore(":memory:") as fourth,
        SqliteEventStore(third) as fifth,
    ):
        await first.append("a", added("1"))
        await third.append("a", added("1", "2"))
        assert [await s.head() for s in (first, second, third, fourth, fifth)] == [1, 1, 2, 0, 2]


async def test_other_settings_for_an_open_file_are_refused(store: SqliteEventStore) -> None:
    """Two stores of one file cannot disagree about durability."""
    config = SqliteConfig(database=store.database.path, synchronous="OFF")
    with pytest.raises(EventValidationError, match="same SqliteConfig"):
        await SqliteEventStore(config).connect()
    assert await store.append("a", added("1")) == 1


FORK = """
import asyncio, os, sys
from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.testing.samples import added

async def child(store, path):
    try:
        await store.append("a", added("child"))
        return 1
    except EventStoreConnectionError as error:
        assert "forked" in str(error), error
    await store.close()
    async with SqliteEventStore(path) as own:
        await own.append("a", added("child"))
    return 0

async def main(path):
    store = SqliteEventStore(path)
    await store.connect()
    await store.append("a", added("parent"))
    return store

if hasattr(os, "fork"):
    path = sys.argv[1]
    with asyncio.Runner() as runner:
        store = runner.run(main(path))
        pid = os.fork()
        if pid == 0:
            os._exit(asyncio.new_event_loop().run_until_complete(child(store, path)))
        assert os.waitpid(pid, 0)[1] == 0
        runner.run(store.append("a", added("parent again")))
        assert runner.run(store.get_stream_version("a")) == 3
        runner.run(store.close())
"""


def test_a_forked_child_opens_its_own_store(tmp_path: Path) -> None:
    """The parent's store refuses to work in the child, and the parent's keeps working."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(tmp_path / "events.db")]
    subprocess.run(command, check=True, timeout=60)


def test_a_program_that_forgets_to_close_ends_cleanly(tmp_path: Path) -> None:
    """Neither a hanging exit nor an error message, and everything acknowledged is stored."""
    path = str(tmp_path / "events.db")
    program = (
        "import asyncio\n"
        "from lexigram.events.stores.sqlite.event_store import SqliteEventStore\n"
        "from lexigram.events.testing.samples import added\n"
        f"store = SqliteEventStore({path!r})\n"
        "asyncio.run(store.append('a', added('1')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert done.stderr == ""

    async def check() -> int:
        async with SqliteEventStore(path) as store:
            return await store.head()

    assert asyncio.run(check()) == 1


async def test_units_that_write_at_their_end_notice_other_writers_too(tmp_path: Path) -> None:
    """Even where nothing was ever appended in another way, cached versions are forgotten when others have written."""
    path = str(tmp_path / "events.db")
    async with SqliteEventStore(path) as store:
        for version in range(3):
            async with store.deferred_unit_of_work():
                await store.append("a", added(str(version)), expected_version=version * 2)
            other = sqlite3.connect(path, isolation_level=None)
            other.execute(
                "INSERT INTO events SELECT position + 1, stream, version + 1, type, randomblob(16), occurred_at, payload "
                "FROM events ORDER BY position DESC LIMIT 1"
            )
            other.close()
        assert await store.get_stream_version("a") == 6
        await store.compact("a", 6)
        assert await store.append("b", added("next")) == 1
        assert await store.head() == 7


@pytest.mark.parametrize("kind", [SqliteEventStore, SqliteCheckpointStore, SqliteSnapshotStore, SqlSagaStore])
async def test_a_store_that_is_closed_while_it_connects_leaves_nothing_open(tmp_path: Path, kind: type[Any]) -> None:
    """Whoever uses it first is told, whoever closes it need not wait."""
    path = str(tmp_path / "early.db")
    store = kind(path)
    uses = {
        SqliteEventStore: lambda: store.head(),
        SqliteCheckpointStore: lambda: store.get_checkpoint("orders"),
        SqliteSnapshotStore: lambda: store.load("order-1"),
        SqlSagaStore: lambda: store.load("order-1"),
    }
    first = asyncio.create_task(uses[kind]())
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(EventStoreConnectionError, match="closed"):
        await first
    assert not [thread.name for thread in threading.enumerate() if path in thread.name]
    await (store.initialize() if kind is SqlSagaStore else store.connect())
    await store.close()
