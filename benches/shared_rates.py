"""How much faster a read model is built by two processes than by one, on SQLite and PostgreSQL.

The processes share the partitions out and pause, then the log is written, then the clock starts; it stops when the
last one has stored its last position: what is compared is the work, not starting Python or sharing out. Once with a
handler that only adds up, where the database works as long as the processes do, and once with one that works for 200 µs on
each event, as one with rules of its own does. Beside each rate stands how much of the machine the processes of the package took.

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
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from benches.figures import Figure, show
from lexigram.events import DomainEvent, PostgresEventStore, ProjectionConfig, ProjectionManager, SqliteEventStore
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.projections.durable import DurableProjection

STREAMS = 40
ROUNDS = 2
BAR = 1.6


class Load(NamedTuple):
    """What is built.

    Args:
        title: Said behind "a read model".
        events: Length of the log.
        work: Seconds that the handler works on each event, besides adding up.
    """

    title: str
    events: int
    work: float


LOADS = {"light": Load("", 60_000, 0), "heavy": Load(", 200 µs of Python per event", 8_000, 200e-6)}
"""By the name of the projection, which is also that of its table."""


class Booked(DomainEvent):
    """One movement of an account, which is a stream."""

    account: str
    place: int
    amount: int


def work_on(events: Sequence[Booked], seconds: float) -> None:
    """Keep this thread busy for so long per event, by its own clock: on a shared core it takes longer."""
    end = time.thread_time() + len(events) * seconds
    while time.thread_time() < end:
        sum(range(50))


class SqliteBookings(DurableProjection):
    """An upsert per event, in the writer thread; rows of different streams are different rows."""

    handles = (Booked,)

    def project_batch(self, connection: Any, events: Sequence[Booked]) -> None:
        work_on(events, LOADS[self.name].work)
        connection.executemany(
            f"INSERT INTO {self.tables[0]} VALUES (?, ?) ON CONFLICT (place) DO UPDATE SET amount = amount + excluded.amount",
            [(f"{event.account}:{event.place}", event.amount) for event in events],
        )


class PostgresBookings(DurableProjection):
    """One statement for a batch, the rows of one place added up before."""

    handles = (Booked,)

    async def project_batch(self, connection: Any, events: Sequence[Booked]) -> None:
        work_on(events, LOADS[self.name].work)
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
    """Be one of the workers: own one partition, wait for the sign, build, say so with the CPU seconds that it took."""
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
        used = time.process_time()
        manager.resume(name)
        await manager.wait_for(name, LOADS[name].events, timeout=120)
        print("done", time.process_time() - used, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def owned(status: dict[str, Any] | None) -> int:
    """Return how many partitions this process has."""
    assert status is not None
    return sum(part["owner"] for part in status.get("partitions", [status]))


async def fill(where: str, count: int) -> None:
    """Write a log of so many events."""
    size = count // STREAMS // 3
    async with open_store(where) as store:
        for start in range(0, count, size):
            account = f"account-{start // size % STREAMS}"
            events = [Booked(account=account, place=n % 100, amount=1) for n in range(start, min(start + size, count))]
            await store.append(account, events)
        if isinstance(store, PostgresEventStore):
            # What the server does by itself a minute later.
            for table in (store.engine.names.events, store.engine.names.streams):
                await store.engine.execute(f"ANALYZE {table}")


class Built(NamedTuple):
    """Events per second, and how much of the cores' time the workers and the whole machine worked meanwhile."""

    rate: float
    workers: float
    machine: float


def busy() -> float:
    """Return the seconds that all cores have worked since the machine was started; 0 where the system does not tell."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    ticks = [int(value) for value in path.read_text().split(maxsplit=9)[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # neither idle nor waiting for the disk


async def build(where: str, name: str, workers: int) -> Built:
    """Let so many processes build the read model of a new log."""
    command = [sys.executable, "-m", "benches.shared_rates", where, name, str(workers)]
    pipe, events = asyncio.subprocess.PIPE, LOADS[name].events
    started = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(workers)]

    async def hear(word: bytes) -> float:
        """Return the sum of what the workers say behind this word, as soon as all have said it."""
        said = 0.0
        for process in started:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 120)
            assert line.startswith(word), f"a worker said {line!r}, not {word!r}"
            said += float(line[len(word) :] or 0)
        return said

    try:
        await hear(b"ready\n")
        await fill(where, events)
        begun, before = time.perf_counter(), busy()
        for process in started:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        used = await hear(b"done ")
        seconds = time.perf_counter() - begun
        cores = seconds * (os.cpu_count() or 1)
        return Built(events / seconds, used / cores, (busy() - before) / cores)
    finally:
        for process in started:
            assert process.stdin is not None
            process.stdin.close()
        await asyncio.gather(*(process.wait() for process in started))


async def measure(backend: str, where: str, name: str) -> None:
    """Print the rates of one and of two processes, measured in turns with a log each, and their ratio."""
    found: dict[int, list[Built]] = {1: [], 2: []}
    for turn in range(ROUNDS):
        for workers, builds in found.items():
            builds.append(await build(f"{where}_{name}_{turn}_{workers}", name, workers))
    title = LOADS[name].title
    for workers, who in ((1, "one process"), (2, "two")):
        rate, own, machine = (statistics.median(values) for values in zip(*found[workers], strict=True))
        show(Figure(f"{backend}: a read model{title}, by {who}", rate, "events/s"))
        print(f"{'':<58} {own:.0%} of all cores worked for it in our processes, {machine:.0%} in all")
    ratio = statistics.median(two.rate / one.rate for one, two in zip(*found.values(), strict=True))
    # On SQLite a handler works inside the one write transaction that a file has at a time.
    bar = None if LOADS[name].work and backend == "SQLite" else BAR
    show(Figure(f"{backend}: two processes against one{title}", ratio, "x", at_least=bar))


async def main() -> None:
    """SQLite, then PostgreSQL where LEXIGRAM_TEST_POSTGRES_URL names one."""
    url = os.environ.get("LEXIGRAM_TEST_POSTGRES_URL")
    for name in LOADS:
        with tempfile.TemporaryDirectory() as folder:
            await measure("SQLite", f"{folder}/events.db", name)
        if url:
            await measure("PostgreSQL", f"{url}|bench_{uuid4().hex[:8]}", name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    else:
        asyncio.run(main())
