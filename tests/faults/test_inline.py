"""Processes that append with an inline projection are killed: its rows always equal the log, with nobody catching up."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.faults import inline_worker
from tests.faults.projection_worker import open_store
from tests.faults.workers import Workers, database


@pytest.fixture(params=["sqlite", "postgres"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    """No workers yet, on an empty database."""
    group = Workers(
        Path(inline_worker.__file__), request.param, database(request, tmp_path), f"inline_{uuid4().hex[:8]}"
    )
    yield group
    group.stop_all()


async def compare(store: Any, table: str) -> int:
    """Compare log and read model in one transaction; return the number of events."""
    amounts, payments = Counter[str](), Counter[str]()
    async with store.unit_of_work() as unit:
        if hasattr(unit, "numbered_parameters"):  # on SQLite it is alone
            await unit.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        rows = await unit.fetch_all(f"SELECT account, amount, payments FROM {table}")
        events = await store.read_all()
    for event in events:
        amounts[event.account] += event.amount
        payments[event.account] += 1
    assert {row[0]: (int(row[1]), int(row[2])) for row in rows} == {a: (amounts[a], payments[a]) for a in payments}
    return len(events)


async def storm(workers: Workers, seed: int, rounds: int) -> None:
    """Kill and start processes; compare meanwhile and at the end."""
    chance, table = random.Random(seed), workers.more[0]
    async with open_store(workers.backend, workers.where) as store:
        await asyncio.to_thread(workers.start)
        for number in range(rounds):
            while len(workers.running) < 3:
                await asyncio.to_thread(workers.start)
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            await compare(store, table)
            victim = chance.choice(workers.running)
            if number % 3 == 2:
                await asyncio.to_thread(workers.end, victim)
            else:
                workers.kill(victim)
        workers.stop_all()
        assert await compare(store, table) > 10 * rounds


async def test_rows_equal_the_log_at_every_moment(workers: Workers) -> None:
    """Three processes append, one after the other is killed; failing appends leave neither events nor rows."""
    await storm(workers, seed=1, rounds=6)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(30))
async def test_many_storms(workers: Workers, seed: int) -> None:
    """The same, again and again."""
    await storm(workers, seed=seed, rounds=12)
