"""Who is notified of commits on PostgreSQL: those that follow the log, from the moment they first wait."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from lexigram.events.stores.postgres import PostgresEventStore
from lexigram.events.testing.samples import added, skus
from tests.postgres_schemas import EmptySchemas


async def test_only_a_store_whose_readers_wait_listens(postgres_url: str) -> None:
    """One that only writes has no connection for it; a reader is woken by others' commits long before it would look."""
    config = EmptySchemas(postgres_url, purpose="listening").config()
    async with PostgresEventStore(config) as writer, PostgresEventStore(config) as reader:
        reader.poll_interval_seconds = 60
        await writer.append("a", added("1"))
        assert skus(await reader.read("a")) == ["1"]
        listeners = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%{reader.engine.channel}%'"
        assert (await writer.engine.fetch_one(listeners))[0] == 0

        seen: asyncio.Queue[str] = asyncio.Queue()

        async def follow() -> None:
            async for event in reader.subscribe():
                seen.put_nowait(event.sku)

        following = asyncio.create_task(follow())
        async with asyncio.timeout(20):
            assert await seen.get() == "1"
            await writer.append("a", added("2"))  # while it begins to listen, perhaps
            assert await seen.get() == "2"
            while not reader.engine.is_listening:
                await asyncio.sleep(0.01)
            assert (await writer.engine.fetch_one(listeners))[0] == 1
            await writer.append("a", added("3"))
            assert await seen.get() == "3"
        assert not writer.engine.is_listening
        following.cancel()
        await asyncio.wait((following,))


async def test_a_batch_is_notified_once(postgres_url: str) -> None:
    """However many appends share its commit: notifications cost PostgreSQL a lock of all databases."""
    config = EmptySchemas(postgres_url, purpose="listening").config()
    heard: list[Any] = []
    async with PostgresEventStore(config) as store, PostgresEventStore(config) as reader:
        waiting = asyncio.create_task(reader.wait_for_events(10_000, 60))
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.add_listener(store.engine.channel, lambda *message: heard.append(message))
            async with asyncio.timeout(20):
                while not reader.engine.is_listening:
                    await asyncio.sleep(0.01)
                before = store.engine.committer.commits
                await asyncio.gather(*(store.append(f"s{n % 7}", added(str(n))) for n in range(200)))
                commits = store.engine.committer.commits - before
                assert commits < 20
                while len(heard) < commits:
                    await asyncio.sleep(0.01)
            await connection.fetch("SELECT 1")
            assert len(heard) == commits
        finally:
            await connection.close()
            waiting.cancel()
            await asyncio.wait((waiting,))
