"""Several processes share event-driven sagas, their follower, commands and timers; they are killed and stopped."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from lexigram.events.sagas.types import SagaStatus
from tests.backends import saga_store
from tests.faults import process_worker
from tests.faults.process_worker import Closed, Deed, Noted, Opened, expected
from tests.faults.projection_worker import LEASE_SECONDS, open_store
from tests.faults.workers import Workers, database, disturb

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")


@pytest.fixture(params=["sqlite", "postgres"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    """No workers yet, on an empty database."""
    group = Workers(Path(process_worker.__file__), request.param, database(request, tmp_path))
    yield group
    group.stop_all()


async def storm(workers: Workers, seed: int, keys: int, rounds: int) -> None:
    """Append events of many processes, each kind to a stream of its own, while workers come and go."""
    chance = random.Random(seed)
    async with open_store(workers.backend, workers.where) as store, saga_store(workers.backend, store) as sagas:

        async def happen() -> None:
            for key in range(keys):
                await store.append(f"opened-{key}", [Opened(key=key)])
                for number in range(3):
                    await store.append(f"noted-{key}", [Noted(key=key, number=number)])
                if key % 2 == 0:
                    await store.append(f"closed-{key}", [Closed(key=key)])
                await asyncio.sleep(0.005)

        for _ in range(3):
            await asyncio.to_thread(workers.start)
        happening = asyncio.create_task(happen())
        await disturb(workers, chance, rounds, LEASE_SECONDS)
        await happening
        async with asyncio.timeout(60):
            while True:
                records = await sagas.list_by_name("process")
                if len(records) == keys and all(record.status.is_terminal for record in records):
                    break
                await asyncio.sleep(0.1)
        deeds: dict[int, list[str]] = defaultdict(list)
        async for event in store.stream_by_type(Deed):
            deeds[event.key].append(event.what)
    assert {record.status for record in records} == {SagaStatus.COMPLETED}
    assert dict(deeds) == {key: expected(key) for key in range(keys)}


async def test_every_command_is_carried_out_once_and_in_order_whatever_happens_to_the_workers(
    workers: Workers,
) -> None:
    """Killed, stopped past their lease and woken, ended, started: no event, command or timer is lost or counts twice."""
    await storm(workers, seed=4, keys=60, rounds=8)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
async def test_many_storms(workers: Workers, seed: int) -> None:
    """The same, longer and again and again."""
    await storm(workers, seed=seed, keys=300, rounds=25)
