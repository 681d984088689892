"""Repositories, sagas, projections, relays are crashed, cancelled and stalled at every await, on three backends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import (
    InMemoryEventStore,
    InMemorySagaStore,
    ProjectionConfig,
    ProjectionManager,
    SagaManager,
    SagaSharing,
)
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.testing.scheduler import Trial, explore, replay, simulate
from tests.backends import address
from tests.faults import bus_trials, repository_trials, saga_trials, table_trials, trials
from tests.faults.trials import Durable, DurableTrial

SAGAS = (saga_trials.Sagas, saga_trials.SharedSagas, saga_trials.Children, saga_trials.Trips, saga_trials.Follower)
OTHERS = (
    trials.Projection,
    trials.Rebuilt,
    trials.Parked,
    trials.Unparked,
    trials.Shared,
    trials.Relay,
    bus_trials.Handled,
    bus_trials.Replayed,
    repository_trials.Saved,
)
TRIALS = (*SAGAS, *OTHERS)
IN_TABLES = (table_trials.Inline, table_trials.Switched)
"""These need a database with tables."""

STALL_SECONDS = 10 * trials.LEASE_SECONDS

MakeTrial = Callable[[], Trial]


def on_database(backend: str, trial: type[DurableTrial], request: pytest.FixtureRequest, tmp_path: Path) -> MakeTrial:
    """Return a maker of trials, each on an empty database."""
    numbers = count()

    def make() -> Trial:
        # One schema on PostgreSQL, emptied for each trial; a new file on SQLite.
        number = 0 if backend == "postgres" else next(numbers)
        return trial(Durable(backend, address(backend, request, tmp_path, number)))

    return make


@pytest.mark.parametrize("trial", [*TRIALS, saga_trials.Timers])
def test_invariants_hold_at_every_await_in_memory(trial: type[DurableTrial]) -> None:
    """A read model equals its recomputation, a saga ends once, every entry is delivered, no effect is doubled."""
    found = explore(trial, seed=1, crash_again=True, stall_seconds=STALL_SECONDS, at_most=50)
    assert found.points["crash"] > 30
    assert found.points["cancel"] > 30
    assert not found.unreached


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
@pytest.mark.parametrize("trial", [*TRIALS, *IN_TABLES])
def test_invariants_hold_at_some_awaits_on_a_database(
    backend: str, trial: type[DurableTrial], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The same on threads and sockets; a crash kills a process with its connections."""
    make = on_database(backend, trial, request, tmp_path)
    some = 4 if backend == "sqlite" else 2
    found = explore(make, seed=1, at_most=some, in_memory=False)
    assert found.points["crash"] > 20
    assert found.points["cancel"] > 20


@pytest.mark.parametrize("seconds", [3600, -3600])
@pytest.mark.parametrize(
    "trial", [saga_trials.ClockSet, saga_trials.Timers, trials.Relay, trials.Shared, trials.Parked, bus_trials.Handled]
)
def test_invariants_hold_when_somebody_sets_the_clock(trial: type[DurableTrial], seconds: float) -> None:
    """An hour forward or back at any await: sagas end once, timers fire once, leases and deliveries go on."""
    explore(trial, seed=1, crash=False, cancel=False, jump_seconds=seconds, at_most=100, limit_seconds=9000)


@pytest.mark.soak
@pytest.mark.parametrize("trial", [*TRIALS, saga_trials.Timers])
def test_invariants_hold_at_every_await_in_every_order(trial: type[DurableTrial]) -> None:
    """Many seeds, so many orders of the tasks, and all awaits of each."""
    for seed in range(20):
        explore(trial, seed=seed, crash_again=True, stall_seconds=STALL_SECONDS)


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
@pytest.mark.parametrize("trial", [*TRIALS, *IN_TABLES])
def test_invariants_hold_at_every_await_on_a_database(
    backend: str, trial: type[DurableTrial], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """All awaits on threads and sockets, in three orders."""
    for seed in range(3):
        make = on_database(backend, trial, request, tmp_path)
        explore(make, seed=seed, crash_again=True, stall_seconds=2 * trials.LEASE_SECONDS, in_memory=False)


def test_a_red_seed_replays_identically_in_another_process() -> None:
    """The trace of each trial is the same step by step, whatever the seed of string hashes."""
    script = (
        "from lexigram.events.testing.scheduler import replay\nfrom tests.faults.test_every_await import TRIALS\n"
        "for trial in TRIALS:\n    for fault in ('none', 'crash:31', 'cancel:33'):\n"
        "        print(trial.__name__, replay(trial, fault, seed=9))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert told[0].count("Run(") == 3 * len(TRIALS)
    assert str(replay(TRIALS[0], "crash:31", seed=9)) in told[0]


def stopping_cancelled(turns: int, begin: Callable[[], Any]) -> list[str]:
    """Cancel a `stop()` so many turns of the loop after its beginning; return the tasks that are left a little later."""

    async def main() -> list[str]:
        before = asyncio.all_tasks()
        stop = await begin()
        # Ready tasks run in any order: without this, some stops would be cancelled before they begin.
        begun = asyncio.Event()

        async def end() -> None:
            begun.set()
            await stop()

        stopping = asyncio.create_task(end())
        await begun.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait((stopping,))
        await asyncio.sleep(1)
        return [task.get_name() for task in asyncio.all_tasks() - before]

    return simulate(main)


@pytest.mark.parametrize("turns", range(14))
def test_stopping_can_be_cancelled_and_leaves_no_task_behind(turns: int) -> None:
    """Neither one that follows the log, nor one that renews leases for ever, so that nobody else gets the work."""

    async def projections() -> Any:
        store = InMemoryEventStore()
        config = ProjectionConfig(shared=True, partitions=2)
        manager = ProjectionManager(store, InMemoryCheckpointStore(), config=config)
        manager.register(trials.Once(store))
        await manager.start()
        await asyncio.sleep(1)
        return manager.stop

    async def sagas() -> Any:
        manager = SagaManager(InMemorySagaStore(), services={"store": InMemoryEventStore()})
        manager.register(saga_trials.Pack)
        share = SagaSharing(manager, InMemoryCheckpointStore(), partitions=2)
        await share.start()
        await manager.start("pack", {"order": "1"}, wait=False)
        return share.stop

    assert stopping_cancelled(turns, projections) == []
    assert stopping_cancelled(turns, sagas) == []
