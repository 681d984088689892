"""Rates of the PostgreSQL store, what the disk does meanwhile, and what the unsafe way and bare statements reach.

The disk wanders from second to second, so everything is measured in short slices, in turn, and then again; the verdict is
that of the median, and the best round stands beside it. Run alone:
`python tools/services.py run postgres -- python -m benches.postgres_rates`.

The unsafe way is a pool of ten connections, each append one INSERT with a position from a sequence: what a first
version usually looks like, and what lets readers skip events (docs/decisions/0009-order-on-postgresql.md). The bare way to
read, decide and append is one SELECT and one such INSERT: two round trips and a commit, without any check.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg

from benches.figures import Figure, show
from lexigram.events import AggregateRoot, DomainEvent, EventSourcingRepository
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.postgres import PostgresEventStore

ROUNDS, SECONDS = 9, 0.25
SYNCS, BLOCK = 40, b"x" * 8192
Append = Callable[[int, int], Awaitable[Any]]
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


async def rate(append: Append, writers: int, seconds: float) -> tuple[float, float, float]:
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


class Case(NamedTuple):
    """One way of appending.

    Args:
        column: Its name in the table of rounds.
        name: Its name among the figures.
        append: Appends once, given the number of the writer and how many times it has.
        writers: How many do so at once.
        bar: Appends per second to reach.
        slow: Milliseconds that the 99th percentile may take.
    """

    column: str
    name: str
    append: Append
    writers: int = 1
    bar: float | None = None
    slow: float | None = None


def sync_rate(file: int) -> float:
    """Return how many times a second a block that exists is written and synced, by the median: a commit is one of these."""
    durations = []
    for number in range(SYNCS):
        started = time.perf_counter()
        os.pwrite(file, BLOCK, number * len(BLOCK))
        os.fdatasync(file)
        durations.append(time.perf_counter() - started)
    return 1 / statistics.median(durations)


async def take_turns(cases: list[Case], rounds: int, seconds: float) -> dict[str, list[tuple[float, float, float]]]:
    """Return the rates of each case, one for each round, and print them beside the rate of the disk."""
    found: dict[str, list[tuple[float, float, float]]] = {case.column: [] for case in cases}
    for case in cases:
        await rate(case.append, case.writers, seconds)
    print(f"{rounds} rounds of {seconds:g} s each, all in turn; figures are medians. Per second in each round:")
    print("  ".join(f"{column:>9}" for column in ("fdatasync", *found)))
    with tempfile.TemporaryFile() as disk:
        disk.write(BLOCK * SYNCS)
        os.fsync(disk.fileno())
        for _ in range(rounds):
            row = [sync_rate(disk.fileno())]
            for case in cases:
                found[case.column].append(await rate(case.append, case.writers, seconds))
                row.append(found[case.column][-1][0])
            print("  ".join(f"{value:>9,.0f}" for value in row), flush=True)
    return found


def show_case(case: Case, found: list[tuple[float, float, float]]) -> float:
    """Print the median rate with its bar, the best one and the latencies; return the median rate."""
    rates, medians, slow = ([turn[place] for turn in found] for place in range(3))
    median, p99 = statistics.median(rates), statistics.median(slow)
    show(Figure(case.name, median, "/s", at_least=case.bar))
    print(f"{'':<58} best {max(rates):,.0f}/s; p50 {statistics.median(medians):.2f} ms, p99 {p99:.2f} ms")
    if case.slow is not None:
        show(Figure(f"{case.name}, p99", p99, "ms", at_most=case.slow))
        print(f"{'':<58} best {min(slow):.2f} ms")
    return median


async def measure(url: str, rounds: int, seconds: float) -> None:
    """Print all rates."""
    config = PostgresEventStoreConfig(dsn=url, schema_name=f"bench_{uuid4().hex[:8]}")
    async with (
        PostgresEventStore(config) as store,
        asyncpg.create_pool(url, min_size=11, max_size=11) as pool,
        pool.acquire() as alone,
    ):
        appends, decisions = append_cases(store), await decision_cases(store, alone)
        unsafe = Case(
            "unsafe", "PostgreSQL: one INSERT each on a pool of 10 (unsafe), 64 at once", await unsafe_way(pool), 64
        )
        found = await take_turns([*appends, unsafe, *decisions], rounds, seconds)
        median = {case.column: show_case(case, found[case.column]) for case in (*appends, unsafe, *decisions)}
        show(Figure("PostgreSQL: append of 100 events, per event", 1e4 / median["batch"], "µs", at_most=15))
        show(Figure("PostgreSQL: ours against the unsafe way", median["64"] / median["unsafe"], "x", at_least=3))
        show(Figure("PostgreSQL: read, decide, append against bare statements", median["decide"] / median["bare"], "x"))
        await load(store)


def append_cases(store: PostgresEventStore) -> list[Case]:
    """Return the ways of appending to the store."""

    async def one(writer: int, _: int) -> None:
        await store.append(f"s{writer}", [event()])

    async def tagged(writer: int, count: int) -> None:
        await store.append(f"t{writer}", [event((f"cart:{writer}", f"sku:{count % 50}"))])

    async def many(_: int, __: int) -> None:
        await store.append("bulk", [event() for _ in range(100)])

    name = "PostgreSQL: appends of one event"
    return [
        Case("1", f"{name}, 1 at once", one),
        Case("8", f"{name}, 8 at once", one, 8),
        Case("64", f"{name}, 64 at once", one, 64, 35_000, 5),
        Case("256", f"{name}, 256 at once", one, 256, 50_000),
        Case("tags", f"{name}, two tags, 64 at once", tagged, 64, 25_000),
        Case("batch", "PostgreSQL: appends of 100 events, 1 at once", many),
    ]


async def unsafe_way(connection: Any) -> Append:
    """Return how to append without a lock, on a connection or those of a pool."""
    table, codec, versions = f"unsafe_{uuid4().hex[:8]}", EventCodec(), itertools.count()
    await connection.execute(UNSAFE_TABLE.format(table=table))
    sql = f"INSERT INTO {table} (stream_id, version, event_id, type, payload) VALUES ($1, $2, $3, $4, $5)"

    async def append(writer: int, _: int) -> None:
        encoded = codec.encode(event())
        values = (f"s{writer}", next(versions), encoded.event_id.hex(), "ItemAdded", encoded.payload.decode())
        await connection.execute(sql, *values)

    return append


async def decision_cases(store: PostgresEventStore, connection: Any) -> list[Case]:
    """Return reading 15 events, deciding and appending: on the condition that nothing relevant came between, and bare."""
    for number in range(20):
        for _ in range(15):
            await store.append(f"d{number}", [event((f"decision:{number}",))])
    names, streams, insert = store.engine.names, itertools.count(), await unsafe_way(connection)
    select = (
        f"SELECT e.payload::text, e.position FROM {names.tags} g JOIN {names.events} e USING (position) "
        "WHERE g.tag = $1 ORDER BY position"
    )

    async def decide(_: int, count: int) -> None:
        found, condition = await store.query_for_append(types=[ItemAdded], tags=[f"decision:{count % 20}"])
        assert len(found) == 15
        await store.append(f"r{next(streams)}", [event()], condition=condition)

    async def bare(writer: int, count: int) -> None:
        assert len(await connection.fetch(select, f"decision:{count % 20}")) == 15
        await insert(writer, count)

    return [
        Case("decide", "PostgreSQL: read, decide, append; 15 rows read, 1 at once", decide, bar=1_400),
        Case("bare", "PostgreSQL: the same by bare SELECT and INSERT, 1 at once", bare),
    ]


async def load(store: PostgresEventStore) -> None:
    """Measure how long a repository takes to load an aggregate."""
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
    median = statistics.median(times) * 1000
    show(Figure("PostgreSQL: repository load of 1,000 events", median, "ms", at_most=4))


def main() -> None:
    """Run on the server that LEXIGRAM_TEST_POSTGRES_URL names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often everything takes its turn")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of each turn")
    options = parser.parse_args()
    asyncio.run(measure(os.environ["LEXIGRAM_TEST_POSTGRES_URL"], options.rounds, options.seconds))


if __name__ == "__main__":
    main()
