"""A subscription outlasts its server's absence: it goes on from its position when the server is back."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.testing.samples import added
from tests.backends import MakeStore, make_store

__all__ = ["make_store"]

SERVERS = ("postgres", "mongo", "redis")


@pytest.fixture(autouse=True)
def _sockets_of_the_driver() -> Iterator[None]:
    """pymongo leaves a socket to the collector when a client is closed while it connects; that is not our finding."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def impatient_store(server: str, url: str) -> AbstractEventStore:
    """Return a store that gives up soon, so that the subscription has to be the patient one."""
    if server == "postgres":
        from lexigram.events.stores.postgres import PostgresEventStore

        return PostgresEventStore(url)
    if server == "mongo":
        from lexigram.events.config import MongoDBEventStoreConfig
        from lexigram.events.stores.mongodb.event_store import MongoDBEventStore

        config = MongoDBEventStoreConfig(
            connection_string=url, database_name="lx_followers", server_selection_timeout=300
        )
        return MongoDBEventStore(None, config)
    from lexigram.events.stores.redis.event_store import RedisEventStore

    return RedisEventStore(url, "followers", retry_seconds=0.3)


class Follower:
    """A task that follows a store; `seen` has the positions and skus that came."""

    def __init__(self, store: AbstractEventStore) -> None:
        self.seen: list[tuple[int | None, str]] = []
        self._store = store
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for event in self._store.subscribe():
            self.seen.append((event.sequence_number, event.sku))

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so; the follower's own error is the test's."""
        async with asyncio.timeout(60):
            while not reached():
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.01)

    async def ends(self) -> None:
        """Wait for its end."""
        async with asyncio.timeout(20):
            await self._task


@asynccontextmanager
async def following(store: AbstractEventStore) -> AsyncIterator[Follower]:
    """Follow an open store within the block."""
    follower = Follower(store)
    try:
        yield follower
    finally:
        follower._task.cancel()
        await asyncio.wait((follower._task,))


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
async def test_a_killed_server_is_waited_for(
    server: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice: one line in the log per outage, then exactly the events that follow; closed meanwhile, it ends."""
    own = request.getfixturevalue(f"own_{server}")

    def waits() -> list[str]:
        lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        return [line for line in lines if line.startswith("a subscription waits at position ")]

    async with impatient_store(server, own.url) as store, following(store) as follower:
        for number in (1, 2):
            await append_patiently(store, str(number))
            await follower.until(lambda number=number: len(follower.seen) == number)  # type: ignore[misc]
            await asyncio.to_thread(own.kill)
            await follower.until(lambda number=number: len(waits()) == number)  # type: ignore[misc]
            await asyncio.sleep(0.5)  # several attempts
            await asyncio.to_thread(own.restart)
        await append_patiently(store, "3")
        await follower.until(lambda: len(follower.seen) == 3)
        assert follower.seen == [(1, "1"), (2, "2"), (3, "3")]
        assert [line.split(" for its store: ")[0] for line in waits()] == [
            "a subscription waits at position 1",
            "a subscription waits at position 2",
        ]

        await asyncio.to_thread(own.kill)
        await follower.until(lambda: len(waits()) == 3)
        await store.close()
        with pytest.raises(EventStoreConnectionError, match="closed"):
            await follower.ends()


async def append_patiently(store: AbstractEventStore, sku: str) -> None:
    """Append one event, again while the server is not ready for it."""
    events = added(sku)
    async with asyncio.timeout(60):
        while True:
            try:
                await store.append("a", events)
                return
            except EventStoreConnectionError:
                await asyncio.sleep(0.05)


async def test_a_sqlite_file_that_another_program_keeps_locked_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a write-ahead log a writer keeps readers out."""
    from lexigram.events.config import SqliteConfig
    from lexigram.events.stores.sqlite import SqliteEventStore

    path = tmp_path / "events.db"
    config = SqliteConfig(database=str(path), wal_mode=False, journal_mode="DELETE", busy_timeout_seconds=0.05)
    async with SqliteEventStore(config) as store, following(store) as follower:
        store.poll_interval_seconds = 0.05
        await store.append("a", added("1"))
        await follower.until(lambda: len(follower.seen) == 1)
        other: Any = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        await follower.until(lambda: "a subscription waits at position 1" in caplog.text)
        other.execute("ROLLBACK")
        other.close()
        await append_patiently(store, "2")
        await follower.until(lambda: len(follower.seen) == 2)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_a_position_behind_the_end_is_mentioned(
    make_store: MakeStore, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has begun anew, perhaps. At its very end, or in an empty one from the beginning, nothing is wrong."""
    async with make_store(backend) as store:
        for position in (0, 1):
            following = asyncio.ensure_future(anext(aiter(store.subscribe(position))))
            await asyncio.sleep(0.05)
            assert not following.done()
            await store.append("a", added("1"))
            await asyncio.wait_for(following, 20)
        assert caplog.records == []
        following = asyncio.ensure_future(anext(aiter(store.subscribe(9))))
        async with asyncio.timeout(20):
            while "begins behind position 9, but the log ends at 2" not in caplog.text:
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.wait((following,))


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_that_was_never_there_is_an_error(server: str) -> None:
    """The first read raises like any other call: the address may be wrong."""
    from tools.servers.base import free_port

    scheme, path = {
        "postgres": ("postgresql://postgres@", "/x"),
        "mongo": ("mongodb://", ""),
        "redis": ("redis://", ""),
    }[server]
    store = impatient_store(server, f"{scheme}127.0.0.1:{free_port()}{path}")
    async with asyncio.timeout(20):
        with pytest.raises(EventStoreConnectionError):
            async for _ in store.subscribe():
                pass
