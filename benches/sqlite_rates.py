"""How many durable appends per second SQLite takes, against what the disk itself can do in the same minute.

The rate of a disk wanders from second to second, so everything is measured in short slices, in turn: the bare disk, a
one-row commit, each way of appending; then again. The medians over the rounds are compared. Run alone:
`python -m benches.sqlite_rates`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benches.figures import Figure, show
from lexigram.events import AggregateRoot, EventSourcingRepository
from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.sqlite.event_store import SqliteEventStore

ROUNDS = 15
SECONDS = 0.15
WRITES = 40
PAGE = b"x" * 4096
NOTE = "a payload of about two hundred bytes in all, which is what events of real programs tend to have"


class LinePlaced(DomainEvent):
    """An event of ordinary size."""

    order: str
    number: int
    sku: str
    note: str


class Order(AggregateRoot):
    """An aggregate with one counter."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.lines = 0

    def place(self, number: int) -> None:
        """Record one line."""
        self._apply(LinePlaced(order="order-1", number=number, sku="12345", note=NOTE))

    def _handle_line_placed(self, _: LinePlaced) -> None:
        self.lines += 1


class Way(NamedTuple):
    """One way of appending, and how many times the fdatasync rate it has to reach."""

    writers: int
    batch: int = 1
    tags: bool = False
    bar: float | None = None


WAYS = {
    "1 coroutine": Way(1, bar=0.45),
    "8 coroutines": Way(8),
    "64 coroutines": Way(64, bar=8.0),
    "256 coroutines": Way(256),
    "64 coroutines, two tags per event": Way(64, tags=True, bar=3.5),
    "16 coroutines, events in batches of 100": Way(16, batch=100),
}


def sqlite_rates(rounds: int = ROUNDS) -> dict[str, Any]:
    """Return medians over the rounds: fdatasync calls, one-row commits and appended events, each per second."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as directory:
        found = asyncio.run(measure(Path(directory), rounds))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    return {
        "fdatasync": medians["fdatasync"],
        "one-row commit": medians["one-row commit"],
        "appends": {name: {"rate": medians[name], "bar": way.bar} for name, way in WAYS.items()},
    }


async def measure(directory: Path, rounds: int) -> dict[str, list[float]]:
    """Return one rate per round of everything there is to measure."""
    found: dict[str, list[float]] = {name: [] for name in ("fdatasync", "one-row commit", *WAYS)}
    raw = os.open(directory / "raw", os.O_WRONLY | os.O_CREAT)
    plain = open_plain(directory / "plain.db")
    async with AsyncExitStack() as stack:
        stores = {
            name: await stack.enter_async_context(SqliteEventStore(str(directory / f"{number}.db")))
            for number, name in enumerate(WAYS)
        }
        for round_ in range(rounds):
            found["fdatasync"].append(rate(lambda: write_and_sync(raw)))
            found["one-row commit"].append(rate(lambda: plain.execute("INSERT INTO rows (value) VALUES ('x')")))
            for name, way in WAYS.items():
                found[name].append(await append_rate(stores[name], way, round_))
    os.close(raw)
    plain.close()
    return found


def load_milliseconds() -> float:
    """Return the median time to load an aggregate of 1,000 events."""
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(_load(f"{directory}/events.db"))


async def _load(path: str) -> float:
    async with SqliteEventStore(path) as store:
        repository, order = EventSourcingRepository(Order, store), Order("order-1")
        for number in range(1000):
            order.place(number)
        await repository.save(order)
        times = []
        for _ in range(20):
            started = time.perf_counter()
            loaded = await repository.get("order-1")
            times.append((time.perf_counter() - started) * 1000)
            assert loaded is not None
            assert loaded.lines == 1000
    return statistics.median(times)


def write_and_sync(file: int) -> None:
    """Append 4 KiB to a growing file and sync it: what a log has to do for each commit."""
    os.write(file, PAGE)
    getattr(os, "fdatasync", os.fsync)(file)


def open_plain(path: Path) -> sqlite3.Connection:
    """Return a connection for one small row per transaction, WAL and `synchronous=FULL`, without any of our code."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, value TEXT)")
    return connection


async def append_rate(store: SqliteEventStore, way: Way, round_: int) -> float:
    """Return events per second of `way.writers` coroutines, each with its own stream and expected versions."""
    end = time.perf_counter() + SECONDS

    async def write(writer: int) -> int:
        stream_id = f"order-{round_}-{writer}"
        version = 0
        while time.perf_counter() < end:
            tags = (f"order:{writer}", f"sku:{version % 500}") if way.tags else ()
            events = [
                LinePlaced(order=stream_id, number=version + part, sku="12345", note=NOTE, tags=tags)
                for part in range(way.batch)
            ]
            version = await store.append(stream_id, events, version)
        return version

    started = time.perf_counter()
    versions = await asyncio.gather(*(write(writer) for writer in range(way.writers)))
    return sum(versions) / (time.perf_counter() - started)


def rate(call: Callable[[], object]) -> float:
    """Return calls per second by the median duration: a hiccup of the disk is not its rate."""
    durations = []
    for _ in range(WRITES):
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    return 1 / statistics.median(durations)


def main() -> None:
    """Print the rates."""
    rates = sqlite_rates()
    print(f"fdatasync {rates['fdatasync']:,.0f}/s (median), one-row commits {rates['one-row commit']:,.0f}/s")
    for name, row in rates["appends"].items():
        print(f"{name:<58} {row['rate']:>18,.0f}/s")
        ratio = row["rate"] / rates["fdatasync"]
        show(Figure(f"SQLite: appends, {name}, against fdatasync", ratio, "x", at_least=row["bar"]))
    show(Figure("SQLite: repository load of 1,000 events", load_milliseconds(), "ms", at_most=3))


if __name__ == "__main__":
    main()
