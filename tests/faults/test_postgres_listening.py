"""Who is notified of commits on PostgreSQL: those that follow the log, from the moment they first wait."""

from __future__ import annotations

import asyncio

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
