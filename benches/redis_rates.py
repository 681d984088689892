"""What appends and reads on Redis cost, with the bare driver doing the same writes beside them.

Run: python benches/redis_rates.py    (starts its own server with `appendfsync always`; a few seconds)
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redis.asyncio import BlockingConnectionPool, Redis

from benches.figures import Figure, show
from lexigram.events import DomainEvent, EventCodec
from lexigram.events.stores.redis import RedisEventStore
from tools.services import services

SECONDS = 0.6


class Measured(DomainEvent):
    """An event of usual size."""

    order_id: str
    customer: str
    amount: int
    note: str = "a few words that somebody has typed in"


def event(number: int) -> Measured:
    """Return a fresh event."""
    return Measured(order_id=f"order-{number}", customer="c-17", amount=number)


async def rate(coroutines: int, work: Callable[[int, int], Awaitable[Any]]) -> tuple[float, float]:
    """Return calls per second and the 99th percentile in milliseconds of `work(coroutine, n)` from many coroutines."""
    end = time.perf_counter() + SECONDS
    latencies: list[float] = []

    async def one(coroutine: int) -> None:
        n = 0
        while (begin := time.perf_counter()) < end:
            await work(coroutine, n)
            latencies.append(time.perf_counter() - begin)
            n += 1

    begin = time.perf_counter()
    await asyncio.gather(*(one(coroutine) for coroutine in range(coroutines)))
    elapsed = time.perf_counter() - begin
    return len(latencies) / elapsed, statistics.quantiles(latencies, n=100)[98] * 1000


def sync_rate(directory: str) -> float:
    """Return how many times a second this machine syncs a file."""
    with tempfile.TemporaryFile(dir=directory) as file:
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < 0.3:
            file.write(b"x" * 200)
            file.flush()
            os.fsync(file.fileno())
            count += 1
        return count / (time.perf_counter() - begin)


def bare_append(client: Redis, codec: EventCodec) -> Callable[[int, int], Awaitable[Any]]:
    """Return the same writes by the driver alone: one transaction for each append, nothing checked."""
    prefix, position = f"bare:{uuid4().hex}:", 0

    async def append(coroutine: int, n: int) -> None:
        nonlocal position
        encoded, stream, position = codec.encode(event(n)), f"s{coroutine}", position + 1
        pipeline = client.pipeline(transaction=True)
        fields: Any = {
            "type": encoded.type_name, "name": encoded.event_type, "data": encoded.payload, "version": n,
            "stream": stream, "time": encoded.occurred_at_us, "id": encoded.event_id, "tags": "",
        }  # fmt: skip
        pipeline.hincrby(f"{prefix}versions", stream, 1)
        pipeline.incrby(f"{prefix}head", 1)
        pipeline.xadd(f"{prefix}log", fields)
        pipeline.rpush(f"{prefix}stream:{stream}", position)
        pipeline.hset(f"{prefix}ids", encoded.event_id, str(position))
        pipeline.zadd(f"{prefix}type:{encoded.type_name}", {str(position): position})
        await pipeline.execute()

    return append


async def our_rate(url: str, coroutines: int) -> tuple[float, float]:
    """Return the rate and 99th percentile of single-event appends through the event store."""
    async with RedisEventStore(url, f"bench:{uuid4().hex}") as store:
        return await rate(coroutines, lambda c, n: store.append(f"s{c}", [event(n)]))


async def measure(url: str) -> None:
    """Print one line for each measure."""
    pool = BlockingConnectionPool.from_url(url, max_connections=64)
    client = Redis(connection_pool=pool)
    print(f"fsync rate of this machine: {sync_rate('.'):,.0f}/s")
    print(f"{'single-event appends':34}{'ours/s':>10}{'p99 ms':>9}{'driver/s':>11}{'p99 ms':>9}{'ratio':>8}")
    for coroutines in (1, 8, 64, 256):
        ours, our_p99 = await our_rate(url, coroutines)
        bare, bare_p99 = await rate(coroutines, bare_append(client, EventCodec()))
        label = f"{coroutines} coroutines"
        print(f"{label:34}{ours:>10,.0f}{our_p99:>9.2f}{bare:>11,.0f}{bare_p99:>9.2f}{ours / bare:>8.2f}")
        show(Figure(f"Redis: appends, {coroutines} at once, against the bare driver", ours / bare, "x", at_least=0.5))
    namespace = f"bench:{uuid4().hex}"
    async with RedisEventStore(url, namespace) as store:
        batches, _ = await rate(1, lambda c, n: store.append("s", [event(k) for k in range(100)]))
        print(f"{'batch of 100, per event':34}{1e6 / batches / 100:>10.1f} us")
        loads, _ = await rate(1, lambda c, n: store.read("s", 1, 1000))
        print(f"{'read a stream of 1,000':34}{1000 / loads:>10.2f} ms")
        pages, _ = await rate(1, lambda c, n: store.read_all(0, 1000))
        print(f"{'read 1,000 of all events':34}{1000 / pages:>10.2f} ms")
    raw, _ = await rate(1, lambda c, n: client.xrange(f"{{{namespace}}}:log", count=1000))
    print(f"{'driver: XRANGE of 1,000 entries':34}{1000 / raw:>10.2f} ms")
    await client.aclose()
    await pool.disconnect()


if __name__ == "__main__":
    with services(["redis"]) as group:
        asyncio.run(measure(group.get("redis").url))
