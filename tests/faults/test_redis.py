"""Redis under races, crashes, cuts and cancellation: nothing acknowledged is lost, nothing is stored twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from lexigram.events.exceptions import (
    ConcurrencyError,
)
from lexigram.events.stores.redis.checkpoint_store import RedisCheckpointStore
from lexigram.events.stores.redis.event_store import RedisEventStore
from lexigram.events.testing.samples import added, positions, skus, versions
from tests.faults import redis_shop, redis_writer
from tests.faults.redis_checks import METHOD, check_the_log, namespace, process
from tests.faults.redis_writer import Noted, batch

if TYPE_CHECKING:
    from tools.servers.base import Server


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisEventStore]:
    """A new, empty store."""
    async with RedisEventStore(redis_url, namespace()) as store:
        yield store


async def test_64_coroutines_racing_on_one_stream_have_one_winner_per_version(store: RedisEventStore) -> None:
    """Everybody appends three events by optimistic concurrency; the losers get both versions and try again."""
    conflicts = 0

    async def race(number: int) -> None:
        nonlocal conflicts
        won = 0
        version = 0
        while won < 3:
            try:
                version = await store.append("counter", added(f"{number}.{won}"), expected_version=version)
            except ConcurrencyError as error:
                assert error.expected_version == version
                assert error.actual_version is not None
                assert error.actual_version > version
                conflicts, version = conflicts + 1, error.actual_version
            else:
                won += 1

    await asyncio.gather(*(race(number) for number in range(64)))
    events = await store.read("counter")
    assert versions(events) == positions(events) == list(range(1, 64 * 3 + 1))
    assert sorted(skus(events)) == sorted(f"{number}.{won}" for number in range(64) for won in range(3))
    assert conflicts > 64


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


async def follow(url: str, batches: int, size: int) -> None:
    """Follow while a process appends batches, and look at every position."""
    name = namespace()
    writer = process(redis_writer.write_many, url, name, batches, size)
    async with RedisEventStore(url, name) as store:
        async with asyncio.timeout(3000):
            expected = 0
            async for event in store.subscribe(batch_size=1000):
                expected += 1
                assert event.sequence_number == expected, "the next position, none skipped"
                if expected == batches * size:
                    break
        await asyncio.to_thread(writer.join)
        assert writer.exitcode == 0
        assert await store.head() == batches * size


@pytest.mark.slow
async def test_a_follower_of_100_000_events_skips_none(redis_url: str) -> None:
    """While they are being written by another process."""
    await follow(redis_url, 500, 200)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_follower_of_a_million_events_skips_none(redis_url: str) -> None:
    """The same, ten times as long."""
    await follow(redis_url, 5000, 200)


async def test_another_process_wakes_a_follower_without_polling(redis_url: str) -> None:
    """With a backstop of a minute, what another connection appends arrives at once."""
    name = namespace()
    async with RedisEventStore(redis_url, name) as reading, RedisEventStore(redis_url, name) as writing:
        reading.poll_interval_seconds = 60.0
        waiting = asyncio.create_task(reading.wait_for_events(0, 30.0))
        await asyncio.sleep(0.1)
        await writing.append("a", added("1"))
        assert await asyncio.wait_for(waiting, 5)


async def test_a_killed_server_loses_nothing_and_stores_nothing_twice(own_redis: Server) -> None:
    """kill -9 under load, twice, and a restart on the same data: the writers just take longer."""
    name, acknowledged, running = namespace(), set(), True
    async with RedisEventStore(own_redis.url, name, require_durable=True, retry_seconds=30.0) as store:

        async def write(number: int) -> None:
            n = 0
            while running:
                n += 1
                key = f"{number}/{n}"
                if n % 5 == 0:
                    async with store.unit_of_work():
                        await store.append(f"s{n % 7}", batch(key, 2))
                        await store.append(f"beside-{number}", batch(f"{key}+", 1))
                else:
                    await store.append(f"s{n % 7}", batch(key, 1 + n % 4))
                acknowledged.add(key)

        writers = [asyncio.create_task(write(number)) for number in range(16)]
        for _ in range(2):
            await asyncio.sleep(0.3)
            own_redis.kill()
            before = len(acknowledged)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own_redis.restart)  # type: ignore[attr-defined]
            while len(acknowledged) < before + 32:
                await asyncio.sleep(0.01)
        running = False
        await asyncio.gather(*writers)
        assert len(acknowledged) > 64
        await check_the_log(store, acknowledged)


async def test_killed_writers_leave_nothing_half_done(redis_url: str) -> None:
    """kill -9 of a client: what it was told is there, and its batches and units of work are whole."""
    name, acknowledged = namespace(), set()
    for run in range(3):
        reading, writing = multiprocessing.get_context(METHOD).Pipe(duplex=False)
        writer = process(redis_writer.write_until_killed, redis_url, name, str(run), writing)
        writing.close()
        end = None
        while end is None or time.monotonic() < end:
            if await asyncio.to_thread(reading.poll, 0.005 if end else 30):
                acknowledged.add(reading.recv_bytes().decode())
                end = end or time.monotonic() + 0.1
        writer.kill()
        await asyncio.to_thread(writer.join)
        try:
            while True:
                acknowledged.add(reading.recv_bytes().decode())
        except (EOFError, OSError):
            reading.close()
    async with RedisEventStore(redis_url, name) as store:
        assert len(acknowledged) > 10
        await check_the_log(store, acknowledged)


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
