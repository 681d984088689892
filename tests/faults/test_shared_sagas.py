"""Several processes share sagas; they are killed, and stopped for longer than their lease."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import InMemoryCheckpointStore, InMemoryEventStore, InMemorySagaStore
from lexigram.events.exceptions import EventValidationError
from lexigram.events.sagas.sharing import SagaSharing
from lexigram.events.sagas.types import SagaStatus
from tests.backends import saga_store
from tests.faults import saga_worker
from tests.faults.projection_worker import LEASE_SECONDS, open_store
from tests.faults.saga_worker import PARTITIONS, sharing
from tests.faults.workers import Workers, database, disturb

HAPPY = ["reserved", "charged", "shipped"]
UNDONE = ["reserved", "charged", "refunded", "released"]


@pytest.fixture(params=["sqlite", "postgres"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    """No workers yet, on an empty database."""
    group = Workers(Path(saga_worker.__file__), request.param, database(request, tmp_path))
    yield group
    group.stop_all()


async def storm(workers: Workers, seed: int, orders: int, rounds: int) -> None:
    """Start sagas here, have them run elsewhere while workers come and go, and compare what they did."""
    chance = random.Random(seed)
    async with open_store(workers.backend, workers.where) as store, saga_store(workers.backend, store) as sagas:
        async with store.checkpoint_store() as checkpoints:
            manager, client = sharing(sagas, store, checkpoints, works=False)
            async with client:
                for _ in range(3):
                    await asyncio.to_thread(workers.start)

                async def place() -> None:
                    for order in range(orders):
                        await manager.start("fulfil", {"order": order}, f"o-{order}", wait=False)
                        await asyncio.sleep(0.005)

                placing = asyncio.create_task(place())
                await disturb(workers, chance, rounds, LEASE_SECONDS)
                await placing
                async with asyncio.timeout(60):
                    await asyncio.gather(*(manager.start("fulfil", {}, f"o-{order}") for order in range(orders)))
                records = await sagas.list_by_name("fulfil")
            deeds: dict[int, list[str]] = defaultdict(list)
            for event in await store.read_all():
                deeds[event.order].append(event.what)
    assert dict(deeds) == {order: HAPPY if order % 3 else UNDONE for order in range(orders)}
    ends = {record.data["order"]: record.status for record in records}
    assert ends == {order: SagaStatus.COMPLETED if order % 3 else SagaStatus.COMPENSATED for order in range(orders)}


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
async def test_every_step_has_one_effect_whatever_happens_to_the_workers(workers: Workers) -> None:
    """Killed, stopped past their lease and woken, ended, started: no saga is stuck, no step counts twice."""
    await storm(workers, seed=3, orders=120, rounds=8)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(30))
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
async def test_many_storms(workers: Workers, seed: int) -> None:
    """The same, longer and again and again."""
    await storm(workers, seed=seed, orders=500, rounds=25)


async def test_sagas_are_shared_between_managers_and_move_when_one_leaves() -> None:
    """Both run some; what one leaves unfinished the other goes on with; whoever started it can wait for it."""
    store, sagas, checkpoints = InMemoryEventStore(), InMemorySagaStore(), InMemoryCheckpointStore()
    first, first_share = sharing(sagas, store, checkpoints, works=True)
    second, second_share = sharing(sagas, store, checkpoints, works=True)
    async with first_share:
        async with second_share:
            async with asyncio.timeout(10):
                while not len(first_share.group.held) == len(second_share.group.held) == PARTITIONS // 2:
                    await asyncio.sleep(0.02)
            ids = [f"o-{order}" for order in range(20)]
            assert {first_share.owns(saga_id) for saga_id in ids} == {True, False}
            assert all(first_share.owns(saga_id) != second_share.owns(saga_id) for saga_id in ids)
            await asyncio.gather(*(second.start("fulfil", {"order": n}, saga_id) for n, saga_id in enumerate(ids)))
        async with asyncio.timeout(10):
            while len(first_share.group.held) < PARTITIONS:
                await asyncio.sleep(0.02)
            await first.start("fulfil", {"order": 100}, "o-100")
    statuses = {record.status for record in await sagas.list_by_name("fulfil")}
    assert statuses == {SagaStatus.COMPLETED, SagaStatus.COMPENSATED}
    events = await store.read_all()
    assert len(events) == sum(len(UNDONE if order % 3 == 0 else HAPPY) for order in (*range(20), 100))


async def test_a_saga_and_who_waits_for_it_can_be_cancelled_together() -> None:
    """At Ctrl-C everything is cancelled at once: the caller does not start the saga again and wait for ever."""
    checkpoints = InMemoryCheckpointStore()
    manager, share = sharing(InMemorySagaStore(), InMemoryEventStore(), checkpoints, works=False)
    async with share:
        before = asyncio.all_tasks()
        waiting = asyncio.create_task(manager.start("fulfil", {"order": 1}, "o-1"))
        while not manager.running:
            await asyncio.sleep(0)
        (saga,) = asyncio.all_tasks() - before - {waiting}
        saga.cancel()
        waiting.cancel()
        await asyncio.wait((saga, waiting), timeout=5)
        assert saga.cancelled()
        assert waiting.cancelled()
        assert not manager.running


@pytest.mark.parametrize(("argument", "value"), [("partitions", 0), ("poll_seconds", 0), ("lease_seconds", -1)])
def test_bad_arguments_are_named(argument: str, value: Any) -> None:
    """Each by its field."""
    from lexigram.events import SagaManager

    with pytest.raises(EventValidationError, match=argument):
        SagaSharing(SagaManager(), InMemoryCheckpointStore(), **{argument: value})
