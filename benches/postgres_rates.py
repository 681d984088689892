"""Rates of the PostgreSQL store against the unsafe way: `python tools/services.py run postgres -- python -m benches.postgres_rates`.

The unsafe way is a pool of ten connections, each append one INSERT with a position from a sequence: what a first
version usually looks like, and what lets readers skip events (docs/decisions/0009-order-on-postgresql.md).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any
from uuid import uuid4

import asyncpg

from benches.figures import Figure, show
from lexigram.events import AggregateRoot, DomainEvent, EventSourcingRepository
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.postgres import PostgresEventStore

UNSAFE_TABLE = """CREATE TABLE {table} (position bigserial PRIMARY KEY, stream_id text NOT NULL, version bigint NOT NULL,
event_id uuid NOT NULL UNIQUE, type text NOT NULL, payload json NOT NULL, UNIQUE (stream_id, version))"""


class ItemAdded(DomainEvent):
    """A typical event."""

    sku: str
    quantity: int
    price: Decimal
    note: str = "delivered to the neighbour"


class Cart(AggregateRoot):
    """An aggregate with one counter."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.items = 0

    def add(self) -> None:
        """Record one item."""
        self._apply(event())

    def _handle_item_added(self, _: ItemAdded) -> None:
        self.items += 1


def event(tags: tuple[str, ...] = ()) -> ItemAdded:
    """Return a fresh event."""
    return ItemAdded(sku="A-1001", quantity=3, price=Decimal("19.90"), tags=tags)


async def rate(
    append: Callable[[int, int], Awaitable[Any]], writers: int, seconds: float
) -> tuple[float, float, float]:
    """Return appends per second and the median and 99th percentile of their latency in ms."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def write(writer: int) -> None:
        count = 0
        while (started := time.perf_counter()) < end:
            await append(writer, count)
            latencies.append(time.perf_counter() - started)
            count += 1

    begun = time.perf_counter()
    await asyncio.gather(*(write(number) for number in range(writers)))
    elapsed = time.perf_counter() - begun
    cuts = statistics.quantiles(latencies, n=100)
    return len(latencies) / elapsed, cuts[49] * 1000, cuts[98] * 1000


def show_rate(name: str, writers: int, result: tuple[float, float, float], bar: float | None = None) -> None:
    """Print the rate with its bar, then the latencies."""
    rate, median, slow = result
    show(Figure(f"{name}, {writers} at once", rate, "/s", at_least=bar))
    print(f"{'':<58} p50 {median:.2f} ms, p99 {slow:.2f} ms")


async def against_unsafe(url: str, append: Callable[[int, int], Awaitable[Any]], seconds: float) -> None:
    """Measure the store and the pool without a lock in turns, 64 writers each, and print the medians."""
    table, codec = f"unsafe_{uuid4().hex[:8]}", EventCodec()
    async with asyncpg.create_pool(url, min_size=10, max_size=10) as pool:
        await pool.execute(UNSAFE_TABLE.format(table=table))
        sql = f"INSERT INTO {table} (stream_id, version, event_id, type, payload) VALUES ($1, $2, $3, $4, $5)"
        versions = itertools.count()

        async def bare(writer: int, _: int) -> None:
            encoded = codec.encode(event())
            values = (f"s{writer}", next(versions), encoded.event_id.hex(), "ItemAdded", encoded.payload.decode())
            await pool.execute(sql, *values)

        found: dict[str, list[float]] = {"ours": [], "unsafe": []}
        for _ in range(5):
            found["ours"].append((await rate(append, 64, seconds / 2))[0])
            found["unsafe"].append((await rate(bare, 64, seconds / 2))[0])
    ours, unsafe = (statistics.median(found[way]) for way in ("ours", "unsafe"))
    print(f"in turns, 64 writers: ours {ours:,.0f}/s, one INSERT each on a pool of 10 (unsafe) {unsafe:,.0f}/s")
    show(Figure("PostgreSQL: ours against the unsafe way", ours / unsafe, "x", at_least=3))


async def measure(url: str, seconds: float) -> None:
    """Print all rates."""
    config = PostgresEventStoreConfig(dsn=url, schema_name=f"bench_{uuid4().hex[:8]}")
    async with PostgresEventStore(config) as store:

        async def one(writer: int, _: int) -> None:
            await store.append(f"s{writer}", [event()])

        async def tagged(writer: int, count: int) -> None:
            await store.append(f"t{writer}", [event((f"cart:{writer}", f"sku:{count % 50}"))])

        async def many(_: int, count: int) -> None:
            await store.append("bulk", [event() for _ in range(100)])

        await rate(one, 8, 0.3)
        for writers, bar in ((1, None), (8, None), (64, 35_000), (256, 50_000)):
            result = await rate(one, writers, seconds)
            show_rate("PostgreSQL: appends of one event", writers, result, bar)
            if writers == 64:
                show(Figure("PostgreSQL: append of one event, 64 at once, p99", result[2], "ms", at_most=5))
        show_rate("PostgreSQL: appends of one event, two tags", 64, await rate(tagged, 64, seconds), 25_000)
        result = await rate(many, 1, seconds)
        show(Figure("PostgreSQL: append of 100 events, per event", 1e6 / result[0] / 100, "µs", at_most=15))
        await against_unsafe(url, one, seconds)

        repository = EventSourcingRepository(Cart, store)
        cart = Cart("cart-1")
        for _ in range(1000):
            cart.add()
        await repository.save(cart)
        times = []
        for _ in range(20):
            started = time.perf_counter()
            loaded = await repository.get("cart-1")
            assert loaded is not None
            assert loaded.items == 1000
            times.append(time.perf_counter() - started)
        load = statistics.median(times) * 1000
        show(Figure("PostgreSQL: repository load of 1,000 events", load, "ms", at_most=4))
        await decide(store, seconds)


async def decide(store: PostgresEventStore, seconds: float) -> None:
    """Measure read, decide, append on the condition that nothing relevant came between: one client, 15 rows each."""
    for number in range(20):
        for _ in range(15):
            await store.append(f"d{number}", [event((f"decision:{number}",))])

    async def one(_: int, count: int) -> None:
        tag = f"decision:{count % 20}"
        _found, condition = await store.query_for_append(types=[ItemAdded], tags=[tag])
        await store.append(f"r{count}", [event()], condition=condition)

    show_rate("PostgreSQL: read, decide, append; 15 rows read", 1, await rate(one, 1, seconds), 1_400)


def main() -> None:
    """Run on the server that LEXIGRAM_TEST_POSTGRES_URL names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    asyncio.run(measure(os.environ["LEXIGRAM_TEST_POSTGRES_URL"], parser.parse_args().seconds))


if __name__ == "__main__":
    main()
