"""kill -9 of servers and of clients under load, on every backend that has them: nothing acknowledged is lost or hidden."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.stores.mongodb.config import MongoDBConfig
from tests.backends import address, open_store
from tests.faults.batches import WritingProcess, batch, check_log, follow, follow_until, write_for_ever

DURABLE = ("sqlite", "postgres", "mongodb", "redis")


def own_address(server: str, url: str) -> Any:
    """Return what a store on a server of this test alone is built from."""
    if server == "postgres":
        return PostgresEventStoreConfig(dsn=url, schema_name="killed", pool_min_size=1)
    if server == "mongo":
        return MongoDBConfig(uri=f"{url}?connectTimeoutMS=500", database="killed", max_pool_size=4)
    return (url, f"killed:{uuid4().hex}")


@pytest.mark.slow
@pytest.mark.parametrize(("server", "backend"), [("postgres", "postgres"), ("mongo", "mongodb"), ("redis", "redis")])
async def test_a_killed_server_loses_nothing_and_hides_nothing(
    server: str, backend: str, request: pytest.FixtureRequest
) -> None:
    """Twice, with a restart on the same data: stores go on by themselves, and a reader that follows skips nothing."""
    own = request.getfixturevalue(f"own_{server}")
    where = own_address(server, own.url)
    options: dict[str, Any] = {"retry_seconds": 60.0, "require_durable": True} if backend == "redis" else {}
    acknowledged: set[str] = set()
    async with open_store(backend, where, **options) as first, open_store(backend, where, **options) as second:
        reading = open_store(backend, where)
        await reading.connect()
        seen = 0

        async def read() -> None:
            nonlocal seen
            async for position in follow(reading):
                seen = position

        following = asyncio.create_task(read())
        writers = [
            asyncio.create_task(write_for_ever((first, second)[n % 2], "w", n, acknowledged.add)) for n in range(12)
        ]

        async def until_more(count: int) -> None:
            before = len(acknowledged)
            async with asyncio.timeout(60):
                while len(acknowledged) < before + count:
                    assert not any(task.done() for task in (following, *writers)), "they go on"
                    await asyncio.sleep(0.01)

        await until_more(100)
        for _ in range(2):
            own.kill()
            before = len(acknowledged)
            await asyncio.sleep(0.1)
            assert len(acknowledged) <= before + 12, "the server was away"
            await asyncio.to_thread(own.restart)
            await until_more(100)
        for task in writers:
            task.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        # A cancelled append may still be stored: the log is at rest when a later one is.
        for store in (first, second):
            await store.append("end", batch(uuid4().hex, 1))
        stored = await check_log(first, acknowledged)
        assert len(stored - {name for name in stored if name.endswith("+")}) <= len(acknowledged) + len(writers) + 2
        head = await first.head()
        async with asyncio.timeout(30):
            while seen < head:
                assert not following.done(), following
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await reading.close()


@pytest.mark.slow
@pytest.mark.parametrize("backend", DURABLE)
async def test_a_killed_client_leaves_only_whole_batches(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What it was told is there once, units of work are whole, others go on at once, a reader that follows skips nothing."""
    where = address(backend, request, tmp_path, 92)
    acknowledged: set[str] = set()
    async with open_store(backend, where) as store, open_store(backend, where) as reading:
        for run in range(4):
            process = WritingProcess(backend, where, f"run{run}")
            await process.works()
            await asyncio.sleep(random.uniform(0.02, 0.3))
            told = process.kill()
            assert told
            acknowledged |= told
            async with asyncio.timeout(10):
                await store.append("survivor", batch(f"survivor{run}", 1))
            acknowledged.add(f"survivor{run}")
            await follow_until(reading, await store.head(), 30)
        await check_log(store, acknowledged)
