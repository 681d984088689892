"""How much faster a read model is built by two processes than by one, on SQLite and PostgreSQL.

The processes share the partitions out and pause, then the log is written, then the clock starts; it stops when the
last one has stored its last position: what is compared is the work, not starting Python or sharing out.

Run: python tools/services.py run postgres -- python -m benches.shared_rates
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from benches.figures import Figure, show
from lexigram.events import DomainEvent, PostgresEventStore, ProjectionConfig, ProjectionManager, SqliteEventStore
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.projections.durable import DurableProjection

EVENTS = 60_000
STREAMS = 40
ROUNDS = 2
BAR = 1.6


class Booked(DomainEvent):
    """One movement of an account, which is a stream."""

    account: str
    place: int
    amount: int


class SqliteBookings(DurableProjection):
    """An upsert per event, in the writer thread; rows of different streams are different rows."""

    handles = (Booked,)

    def project_batch(self, connection: Any, events: Sequence[Booked]) -> None:
        connection.executemany(
            f"INSERT INTO {self.tables[0]} VALUES (?, ?) ON CONFLICT (place) DO UPDATE SET amount = amount + excluded.amount",
            [(f"{event.account}:{event.place}", event.amount) for event in events],
        )


class PostgresBookings(DurableProjection):
    """One statement for a batch, the rows of one place added up before."""

    handles = (Booked,)

    async def project_batch(self, connection: Any, events: Sequence[Booked]) -> None:
        sums: dict[str, int] = {}
        for event in events:
            place = f"{event.account}:{event.place}"
            sums[place] = sums.get(place, 0) + event.amount
        await connection.execute(
            f"INSERT INTO {self.tables[0]} AS t SELECT * FROM unnest($1::text[], $2::bigint[]) "
            "ON CONFLICT (place) DO UPDATE SET amount = t.amount + excluded.amount",
            list(sums),
            list(sums.values()),
        )


def projection(where: str, name: str) -> DurableProjection:
    """Return the projection whose name is also that of its table."""
    base = PostgresBookings if "|" in where else SqliteBookings
    schema = f"CREATE TABLE IF NOT EXISTS {name} (place TEXT PRIMARY KEY, amount BIGINT NOT NULL)"
    made: DurableProjection = type(name, (base,), {"name": name, "tables": (name,), "schema": (schema,)})()
    return made


def open_store(where: str) -> Any:
    """Return the store of a file, or of `URL|schema`."""
    url, _, schema = where.partition("|")
    if not schema:
        return SqliteEventStore(where)
    return PostgresEventStore(PostgresEventStoreConfig(dsn=url, schema_name=schema, pool_max_size=6))


async def work(where: str, name: str, workers: int) -> None:
    """Be one of the workers: own one partition, wait for the sign, build, say so."""
    config = ProjectionConfig(shared=True, partitions=workers, lease_seconds=1.5, batch_size=1000)
    async with open_store(where) as store, ProjectionManager(store, config=config) as manager:
        manager.register(projection(where, name))
        settled = 0
        while settled < 8:  # the first one to start has all of them until the next balance, every third of a lease
            await asyncio.sleep(0.1)
            settled = settled + 1 if owned(manager.get_status(name)) == 1 else 0
        manager.pause(name)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        manager.resume(name)
        await manager.wait_for(name, EVENTS, timeout=120)
        print("done", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def owned(status: dict[str, Any] | None) -> int:
    """Return how many partitions this process has."""
    assert status is not None
    return sum(part["owner"] for part in status.get("partitions", [status]))


async def fill(where: str) -> None:
    """Write the log."""
    async with open_store(where) as store:
        for start in range(0, EVENTS, 500):
            account = f"account-{start // 500 % STREAMS}"
            events = [Booked(account=account, place=n % 100, amount=1) for n in range(start, start + 500)]
            await store.append(account, events)
        if isinstance(store, PostgresEventStore):
            # What the server does by itself a minute later.
            for table in (store.engine.names.events, store.engine.names.streams):
                await store.engine.execute(f"ANALYZE {table}")


async def build(where: str, name: str, workers: int) -> float:
    """Return events per second of so many processes."""
    command = [sys.executable, "-m", "benches.shared_rates", where, name, str(workers)]
    pipe = asyncio.subprocess.PIPE
    started = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(workers)]

    async def hear(word: bytes) -> None:
        for process in started:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 120)
            assert line.strip() == word, f"a worker said {line!r}, not {word!r}"

    try:
        await hear(b"ready")
        await fill(where)
        begun = time.perf_counter()
        for process in started:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        await hear(b"done")
        return EVENTS / (time.perf_counter() - begun)
    finally:
        for process in started:
            assert process.stdin is not None
            process.stdin.close()
        await asyncio.gather(*(process.wait() for process in started))


async def measure(backend: str, where: str) -> None:
    """Print the rates of one and of two processes, measured in turns with a log each, and their ratio."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(ROUNDS):
        for workers, found in rates.items():
            found.append(await build(f"{where}_{turn}_{workers}", "bookings", workers))
    one, two = (statistics.median(found) for found in rates.values())
    show(Figure(f"{backend}: a read model built by one process", one, "events/s"))
    show(Figure(f"{backend}: by two processes", two, "events/s"))
    ratios = [after / before for before, after in zip(*rates.values(), strict=True)]
    show(Figure(f"{backend}: two processes against one", statistics.median(ratios), "x", at_least=BAR))


async def main() -> None:
    """SQLite, then PostgreSQL where LEXIGRAM_TEST_POSTGRES_URL names one."""
    with tempfile.TemporaryDirectory() as folder:
        await measure("SQLite", f"{folder}/events.db")
    url = os.environ.get("LEXIGRAM_TEST_POSTGRES_URL")
    if url:
        await measure("PostgreSQL", f"{url}|bench_{uuid4().hex[:8]}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(main())
