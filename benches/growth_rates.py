"""What appends and reads of the last events cost in logs of a thousand to a million events, on SQLite and PostgreSQL.

The logs of all sizes are there at the same time and are measured in turns; costs are minima over the rounds, as what noise
adds is not growth. `--largest 10_000_000` goes on to ten million.

Run: python tools/services.py run postgres -- python -m benches.growth_rates
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

from benches.figures import Figure, show
from benches.postgres_rates import event
from lexigram.events import PostgresEventStore, SqliteEventStore
from lexigram.events.config import PostgresEventStoreConfig

SMALLEST = 1_000
STREAMS = 100
BATCH = 500
ROUNDS = 80
WRITERS = 8
READS = 5
BOUND = 0.2


async def fill(store: Any, size: int) -> None:
    """Append until the log has `size` events, in streams that grow with it."""
    for start in range(0, size, BATCH):
        await store.append(f"stream-{start // BATCH % STREAMS}", [event() for _ in range(min(BATCH, size - start))])


async def append(store: Any) -> float:
    """Return microseconds for one round of appends, of one event each and all at once."""
    events = [event() for _ in range(WRITERS)]
    started = time.perf_counter()
    await asyncio.gather(*(store.append(f"stream-{number}", [one]) for number, one in enumerate(events)))
    return (time.perf_counter() - started) * 1e6


async def tail(store: Any) -> float:
    """Return microseconds for asking where the log ends and reading its last 100 events."""
    times = []
    for _ in range(READS):
        started = time.perf_counter()
        assert len(await store.read_all(await store.head() - 100)) == 100
        times.append(time.perf_counter() - started)
    return min(times) * 1e6


async def measure(backend: str, stores: dict[int, Any]) -> None:
    """Fill the logs, then print the costs at each size and how far they are from those of the smallest log."""
    for size, store in stores.items():
        await fill(store, size)
    costs: dict[str, dict[int, list[float]]] = {}
    for name, operation in (("append", append), ("tail", tail)):
        for store in stores.values():
            await operation(store)
        for _ in range(ROUNDS):
            for size, store in stores.items():
                costs.setdefault(name, {}).setdefault(size, []).append(await operation(store))
    print(f"{backend}: {WRITERS} appends at once, and head with the last 100 events")
    for size in stores:
        print(f"at {size:>10,} events: {min(costs['append'][size]):>8,.0f} µs, {min(costs['tail'][size]):>8,.0f} µs")
    for name, found in costs.items():
        ratios = [min(found[size]) / min(found[SMALLEST]) for size in stores]
        worst = max(ratios, key=lambda ratio: abs(ratio - 1))
        text = f"{backend}: {name}, {SMALLEST:,} to {max(stores):,} events"
        show(Figure(text, worst, "x", at_least=1 - BOUND, at_most=1 + BOUND))


async def main(largest: int) -> None:
    """SQLite, then PostgreSQL where LEXIGRAM_TEST_POSTGRES_URL names one."""
    sizes = [SMALLEST]
    while sizes[-1] < largest:
        sizes.append(sizes[-1] * 10)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as folder:
        async with AsyncExitStack() as stack:
            files = {size: SqliteEventStore(f"{folder}/{size}.db") for size in sizes}
            await measure("SQLite", {size: await stack.enter_async_context(store) for size, store in files.items()})
    url = os.environ.get("LEXIGRAM_TEST_POSTGRES_URL")
    if url:
        run = uuid4().hex[:8]
        configs = {size: PostgresEventStoreConfig(dsn=url, schema_name=f"grow_{run}_{size}") for size in sizes}
        async with AsyncExitStack() as stack:
            logs = {
                size: await stack.enter_async_context(PostgresEventStore(config)) for size, config in configs.items()
            }
            try:
                await measure("PostgreSQL", logs)
            finally:
                for size, store in logs.items():
                    await store.engine.execute(f"DROP SCHEMA grow_{run}_{size} CASCADE")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=1_000_000, help="size of the largest log")
    asyncio.run(main(parser.parse_args().largest))
