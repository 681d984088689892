"""How fast a projection follows the log, rows and checkpoint in one transaction, on SQLite and PostgreSQL.

Run: python tools/services.py run postgres -- python -m benches.projection_rates
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from benches.figures import Figure, show
from lexigram.events import DomainEvent, PostgresEventStore, ProjectionConfig, ProjectionManager, SqliteEventStore
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.projections.durable import DurableProjection

EVENTS = 50_000
LATENCIES = 300


class Sold(DomainEvent):
    """A sale."""

    item: str
    amount: int


class Totals(DurableProjection):
    """A simple upsert read model."""

    name = "totals"
    handles = (Sold,)
    tables = ("totals",)
    schema = ("CREATE TABLE IF NOT EXISTS totals (item TEXT PRIMARY KEY, amount BIGINT NOT NULL)",)


class SqliteTotals(Totals):
    """In the writer thread."""

    def project_batch(self, connection: Any, events: Sequence[Sold]) -> None:
        connection.executemany(
            "INSERT INTO totals VALUES (?, ?) ON CONFLICT (item) DO UPDATE SET amount = amount + excluded.amount",
            [(event.item, event.amount) for event in events],
        )


class PostgresTotals(Totals):
    """One statement for a batch, the rows of one item added up before."""

    async def project_batch(self, connection: Any, events: Sequence[Sold]) -> None:
        sums: dict[str, int] = {}
        for event in events:
            sums[event.item] = sums.get(event.item, 0) + event.amount
        await connection.execute(
            "INSERT INTO totals AS t SELECT * FROM unnest($1::text[], $2::bigint[]) "
            "ON CONFLICT (item) DO UPDATE SET amount = t.amount + excluded.amount",
            list(sums),
            list(sums.values()),
        )


async def measure(name: str, store: Any, projection: Totals, bar: float) -> None:
    """Print the rate of catching up and the latency from append to visible row in an idle system."""
    async with store:
        for start in range(0, EVENTS, 500):
            await store.append(
                f"s{start % 7}", [Sold(item=f"i{n % 2000}", amount=1) for n in range(start, start + 500)]
            )
        async with ProjectionManager(store, config=ProjectionConfig(batch_size=1000)) as projections:
            started = time.perf_counter()
            projections.register(projection)
            await projections.wait_for("totals", await store.head(), timeout=120)
            elapsed = time.perf_counter() - started
            show(Figure(f"{name}: catching up, batches of 1,000", EVENTS / elapsed, "events/s", at_least=bar))
            started = time.perf_counter()
            await projections.rebuild("totals")
            show(Figure(f"{name}: rebuild", EVENTS / (time.perf_counter() - started), "events/s"))
            latencies = []
            for number in range(LATENCIES):
                event = Sold(item=f"i{number}", amount=1)
                await asyncio.sleep(0.01)
                started = time.perf_counter()
                await store.append("live", [event])
                await projections.wait_for("totals", event.sequence_number or 0, timeout=10)
                latencies.append((time.perf_counter() - started) * 1000)
            cuts = statistics.quantiles(latencies, n=100)
            show(Figure(f"{name}: append to visible row, idle, median", cuts[49], "ms", at_most=5))
            show(Figure(f"{name}: append to visible row, idle, 99th percentile", cuts[98], "ms", at_most=25))


async def main() -> None:
    """SQLite, then PostgreSQL where LEXIGRAM_TEST_POSTGRES_URL names one."""
    with tempfile.TemporaryDirectory() as folder:
        await measure("SQLite", SqliteEventStore(f"{folder}/events.db"), SqliteTotals(), 25_000)
    url = os.environ.get("LEXIGRAM_TEST_POSTGRES_URL")
    if url:
        config = PostgresEventStoreConfig(dsn=url, schema_name=f"bench_{uuid4().hex[:8]}")
        await measure("PostgreSQL", PostgresEventStore(config), PostgresTotals(), 20_000)


if __name__ == "__main__":
    asyncio.run(main())
