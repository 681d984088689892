"""kill -9 in the middle of projections and sagas on SQLite."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.sagas.types import SagaStatus
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from tests.flow import shop_worker

WORKER = Path(shop_worker.__file__)
HAPPY = ["reserved", "charged", "shipped"]
UNDONE = ["reserved", "charged", "refunded", "released"]


def start(path: Path, orders: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(path), str(orders)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )


def run_with_kills(path: Path, orders: int, kills: int, seed: int) -> int:
    """Kill the worker at random moments, then let it finish; return how many kills hit it at work."""
    chance, hits = random.Random(seed), 0
    for _ in range(kills):
        with start(path, orders) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.25))
            hits += process.poll() is None
            process.kill()
    with start(path, orders) as process:
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    assert output.splitlines()[-1] == "done"
    return hits


async def check(path: Path, orders: int) -> None:
    """Compare read models and sagas with what the log says."""
    async with SqliteEventStore(str(path)) as store:
        sold: Counter[str] = Counter()
        deeds: dict[int, list[str]] = defaultdict(list)
        positions = []
        for event in await store.read_all():
            positions.append(event.sequence_number)
            if isinstance(event, shop_worker.OrderPlaced):
                sold[event.item] += 1
            else:
                deeds[event.order].append(event.what)
        assert positions == list(range(1, len(positions) + 1))
        assert sum(sold.values()) == orders
        assert dict(deeds) == {order: HAPPY if order % 3 else UNDONE for order in range(orders)}
        engine = store.engine
        assert dict(await engine.fetch_all("SELECT item, count FROM sales")) == dict(sold)
        done = Counter(what for whats in deeds.values() for what in whats)
        assert dict(await engine.fetch_all("SELECT what, count FROM deeds")) == dict(done)
        sagas = SqlSagaStore(store)
        records = await sagas.list_by_name("fulfil")
        await sagas.close()
    states = {int(str(record.correlation_key)): record.status for record in records}
    assert states == {order: SagaStatus.COMPLETED if order % 3 else SagaStatus.COMPENSATED for order in range(orders)}


def test_after_any_kill_models_equal_the_log_and_no_step_ran_twice(tmp_path: Path) -> None:
    """Each saga reaches exactly one end; positions have no gap; every order is counted once."""
    path, orders = tmp_path / "shop.db", 120
    assert run_with_kills(path, orders, kills=4, seed=7) >= 1
    asyncio.run(check(path, orders))


@pytest.mark.soak
def test_many_kills(tmp_path: Path) -> None:
    """The same, fifty times."""
    for seed in range(50):
        path = tmp_path / f"shop-{seed}.db"
        run_with_kills(path, 150, kills=5, seed=seed)
        asyncio.run(check(path, 150))
