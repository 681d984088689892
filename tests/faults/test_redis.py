"""Redis under races, crashes, cuts and cancellation: nothing acknowledged is lost, nothing is stored twice."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from lexigram.events.stores.redis.checkpoint_store import RedisCheckpointStore
from lexigram.events.stores.redis.event_store import RedisEventStore
from lexigram.events.testing.samples import added
from tests.faults import redis_shop, redis_writer
from tests.faults.redis_checks import METHOD, check_the_log, namespace, process
from tests.faults.redis_writer import Noted, batch

if TYPE_CHECKING:
    pass


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisEventStore]:
    """A new, empty store."""
    async with RedisEventStore(redis_url, namespace()) as store:
        yield store


async def test_a_follower_sees_no_gap_while_two_processes_and_two_stores_write(redis_url: str) -> None:
    """The follower starts at the first event; what it saw is the final log, in order."""
    name, count = namespace(), 120
    writers = [process(redis_writer.write, redis_url, name, part, count) for part in ("a", "b")]
    seen: list[Noted] = []
    total = 4 * sum(1 + n % 3 for n in range(count))
    async with RedisEventStore(redis_url, name) as one, RedisEventStore(redis_url, name) as two:

        async def write(store: RedisEventStore, part: str) -> None:
            for n in range(count):
                await store.append(f"shared-{n % 5}", batch(f"{part}/{n}", 1 + n % 3))

        ours = asyncio.gather(write(one, "c"), write(two, "d"))
        async with asyncio.timeout(30):
            async for event in one.subscribe(batch_size=50):
                seen.append(event)
                assert event.sequence_number == len(seen), "the next position, none skipped"
                if len(seen) == total:
                    break
        await ours
        for writer in writers:
            await asyncio.to_thread(writer.join)
            assert writer.exitcode == 0
        assert await check_the_log(two, {event.batch for event in seen}) == total


async def test_another_process_wakes_a_follower_without_polling(redis_url: str) -> None:
    """With a backstop of a minute, what another connection appends arrives at once."""
    name = namespace()
    async with RedisEventStore(redis_url, name) as reading, RedisEventStore(redis_url, name) as writing:
        reading.poll_interval_seconds = 60.0
        waiting = asyncio.create_task(reading.wait_for_events(0, 30.0))
        await asyncio.sleep(0.1)
        await writing.append("a", added("1"))
        assert await asyncio.wait_for(waiting, 5)


async def test_sagas_killed_anywhere_run_every_step_exactly_once(redis_url: str) -> None:
    """Step appends and saga state are one call: after kill -9, again and again, no step is missing or repeated."""
    name, orders = namespace(), 120
    for run in range(3):
        reading, writing = multiprocessing.get_context(METHOD).Pipe(duplex=False)
        worker = process(redis_shop.main, redis_url, name, orders, writing)
        writing.close()
        await asyncio.to_thread(reading.recv_bytes)
        await asyncio.sleep(0.15 + run * 0.1)
        worker.kill()
        await asyncio.to_thread(worker.join)
        reading.close()
    await redis_shop.run(redis_url, name, orders)
    async with RedisEventStore(redis_url, name) as store, RedisCheckpointStore(store) as checkpoints:
        for order in range(orders):
            did = [event.what for event in await store.read(f"saga-{order}")]
            assert did == ["reserved", "charged", "refunded" if order % 3 == 0 else "shipped"], order
        head = await store.head()
        assert await checkpoints.get_checkpoint("seen") == head == orders * 3
    # A projection goes on where the last process has left it.
    assert await redis_shop.run(redis_url, name, orders) == []
