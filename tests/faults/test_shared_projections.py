"""Several processes share projections; they are killed, and stopped for longer than their lease."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import PostgresEventStore, ProjectionConfig, ProjectionManager
from lexigram.events.exceptions import ProjectionRebuildError
from tests.faults import projection_worker
from tests.faults.projection_worker import LEASE_SECONDS, Balances, Moved, manager, open_store
from tests.faults.workers import Workers, database, disturb
from tests.postgres_schemas import EmptySchemas

WORKER = Path(projection_worker.__file__)
ROOT = WORKER.parent.parent.parent
PARTITIONS = 4


@pytest.fixture(params=["sqlite", "postgres"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    """No workers yet, on an empty database."""
    where = database(request, tmp_path)
    group = Workers(WORKER, request.param, where, str(PARTITIONS))
    yield group
    group.stop_all()


async def tables(store: Any) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Return both read models."""
    balances = await store.engine.fetch_all("SELECT account, amount, moves FROM balances")
    counts = await store.engine.fetch_all("SELECT account, moves FROM counts")
    return {row[0]: (int(row[1]), int(row[2])) for row in balances}, {row[0]: int(row[1]) for row in counts}


async def check(store: Any, watcher: Any) -> None:
    """Wait for the head, then compare the read models with a recomputation from the log."""
    head = await store.head()
    for name in ("balances", "count"):
        await watcher.wait_for(name, head, timeout=40)
    amounts, moves = Counter[str](), Counter[str]()
    for event in await store.read_all():
        amounts[event.account] += event.amount
        moves[event.account] += 1
    assert await tables(store) == ({a: (amounts[a], moves[a]) for a in moves}, dict(moves))


async def storm(workers: Workers, seed: int, events: int, rounds: int) -> None:
    """Append while workers come and go, then compare."""
    chance = random.Random(seed)
    async with open_store(workers.backend, workers.where) as store:
        if workers.backend == "postgres":  # in the schema that all tests share
            await store.engine.execute("DROP TABLE IF EXISTS balances, counts")
        watcher = manager(store, PARTITIONS)
        for _ in range(3):
            await asyncio.to_thread(workers.start)

        async def write() -> None:
            for number in range(events // 5):
                account = f"{number % 7:02}-{chance.randrange(12)}"
                await store.append(account, [Moved(account=account, amount=chance.randrange(-9, 99)) for _ in range(5)])
                if number % 10 == 0:
                    await asyncio.sleep(0.01)

        writing = asyncio.create_task(write())
        try:
            await disturb(workers, chance, rounds, LEASE_SECONDS)
            await writing
            await check(store, watcher)
        finally:
            writing.cancel()
            await watcher.stop()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
async def test_read_models_are_exact_whatever_happens_to_the_workers(workers: Workers) -> None:
    """Killed, stopped past their lease and woken, ended, started: each event counts exactly once."""
    await storm(workers, seed=11, events=3_000, rounds=10)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
async def test_many_storms(workers: Workers, seed: int) -> None:
    """The same, longer and again and again."""
    await storm(workers, seed=seed, events=10_000, rounds=25)


class ManyTables(Balances):
    """Creates enough tables for two processes to meet over one."""

    name = "many"
    tables = tuple(f"many{number}" for number in range(6))
    schema = tuple(f"CREATE TABLE IF NOT EXISTS {table} (account TEXT PRIMARY KEY)" for table in tables)


async def test_workers_that_start_at_once_create_the_tables_once(postgres_url: str) -> None:
    """PostgreSQL's `IF NOT EXISTS` fails in one of two processes that do it at once; none may be faulted by that."""
    config = EmptySchemas(postgres_url, purpose="w").config()
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(PostgresEventStore(config)) for _ in range(4)]
        for table in ManyTables.tables:
            await stores[0].engine.execute(f"DROP TABLE IF EXISTS {table}")
        managers = [ProjectionManager(store, config=ProjectionConfig(shared=True)) for store in stores]
        for found in managers:
            found.register(ManyTables())
        await asyncio.gather(*(found.start() for found in managers))
        errors = [(found.get_status("many") or {})["last_error"] for found in managers]
        await asyncio.gather(*(found.stop() for found in managers))
    assert errors == [None] * 4


async def test_partitions_are_shared_fairly_as_workers_come_and_go(tmp_path: Path) -> None:
    """One has all four, two have two each, and the one that is left has all of them again."""

    async def owned(*managers: Any) -> list[int]:
        for _ in range(400):
            found = [sum(part["owner"] for part in found.get_status("balances")["partitions"]) for found in managers]
            if sum(found) == PARTITIONS and max(found) - min(found) <= 1:
                return found
            await asyncio.sleep(0.02)
        return found

    async with open_store("sqlite", str(tmp_path / "fair.db")) as store:
        first, second = manager(store, PARTITIONS), manager(store, PARTITIONS)
        async with first:
            assert await owned(first) == [4]
            async with second:
                assert await owned(first, second) == [2, 2]
                with pytest.raises(ProjectionRebuildError, match="Another worker"):
                    await first.rebuild("balances")
            assert await owned(first) == [4]
            for number in range(50):
                await store.append(f"a{number}", [Moved(account=f"a{number}", amount=1)])
            await first.wait_for("balances", 50, timeout=20)
            assert await first.rebuild("balances") == 50
            await check(store, first)
