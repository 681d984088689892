"""Parallel steps that failed wait like single ones: the delay is stored, and keeps no other saga from running."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events.config import SagaConfig
from lexigram.events.sagas.context import SagaContext, SagaStepResult
from lexigram.events.sagas.orchestrator import OrchestratedStep, SagaOrchestrator
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.sagas.store import InMemorySagaStore, SagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus

DELAY = 0.4


class Act:
    """Fails so many times, then succeeds; notes each call and its time.

    Args:
        lasts: Seconds that a call takes.
    """

    def __init__(self, name: str, calls: list[tuple[str, float]], fails: int = 0, lasts: float = 0.0) -> None:
        self.name, self.calls, self.fails, self.lasts = name, calls, fails, lasts

    async def execute(self, ctx: SagaContext) -> SagaStepResult:
        self.calls.append((self.name, time.monotonic()))
        if self.lasts:
            await asyncio.sleep(self.lasts)
        if self.fails:
            self.fails -= 1
            raise ConnectionError(f"{self.name} is away")
        return SagaStepResult.Ok()

    async def compensate(self, ctx: SagaContext) -> SagaStepResult:
        self.calls.append((f"undo {self.name}", time.monotonic()))
        return SagaStepResult.Ok()


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SagaStore]:
    """An empty saga store."""
    async with InMemorySagaStore() if request.param == "memory" else SqlSagaStore(str(tmp_path / "s.db")) as store:
        yield store


def orchestrator(store: SagaStore, *group: Act, delay: float = DELAY, **options: Any) -> SagaOrchestrator:
    """Return a program with one saga of parallel steps, and one of a single step."""
    config = SagaConfig(retry_delay_seconds=delay, max_retries_per_step=2)
    found = SagaOrchestrator(store, config=config, **options)
    lead, *others = (OrchestratedStep(act.name, act) for act in group)
    lead.parallel = others
    found.define("group", [lead])
    found.define("single", [OrchestratedStep("one", Act("one", []))])
    return found


async def stored(store: SagaStore, saga_id: str) -> SagaRecord:
    """Return the record."""
    record = await store.load(saga_id)
    assert record is not None
    return record


def count(calls: list[tuple[str, float]], name: str) -> int:
    """Return how often a step was called."""
    return [called for called, _ in calls].count(name)


async def test_the_delay_takes_no_place_and_each_step_has_its_own(store: SagaStore) -> None:
    """With room for one saga another one runs through; a finished neighbour is not called again."""
    calls: list[tuple[str, float]] = []
    program = orchestrator(store, Act("a", calls, 2), Act("b", calls), Act("c", calls, 1), max_concurrent=1)
    async with program:
        await program.start("group", saga_id="g", wait=False)
        async with asyncio.timeout(5):
            while (await stored(store, "g")).wake_at is None:
                await asyncio.sleep(0.01)
        started = time.monotonic()
        other = await program.start("single")
        assert time.monotonic() - started < DELAY / 2
        assert (await stored(store, other)).status is SagaStatus.COMPLETED
        record = await program.wait_for("g", 10)
    assert record.status is SagaStatus.COMPLETED
    assert [count(calls, name) for name in "abc"] == [3, 1, 2]
    first, second, third = (moment for name, moment in calls if name == "a")
    assert second - first >= 0.9 * DELAY
    assert third - second >= 2 * 0.9 * DELAY
    assert (record.wake_at, record.step("a").retry_at) == (None, None)


async def test_a_restart_keeps_the_delay(store: SagaStore) -> None:
    """The step that failed is not tried at once; the one that was interrupted is."""
    calls: list[tuple[str, float]] = []
    async with orchestrator(store, Act("a", calls, 1), Act("b", calls, lasts=60.0)) as program:
        await program.start("group", saga_id="g", wait=False)
        async with asyncio.timeout(5):
            while (await stored(store, "g")).step("a").retry_at is None:
                await asyncio.sleep(0.01)
        await program.close(timeout=0)
    assert [count(calls, name) for name in "ab"] == [1, 1]
    async with orchestrator(store, Act("a", calls), Act("b", calls)) as program:
        assert await program.resume() == ["g"]
    assert (await stored(store, "g")).status is SagaStatus.COMPLETED
    assert [count(calls, name) for name in "ab"] == [2, 2]
    first, second = (moment for name, moment in calls if name == "a")
    assert second - first >= 0.9 * DELAY


async def test_a_step_that_has_failed_for_good_ends_the_trials_of_the_others(store: SagaStore) -> None:
    """What runs is waited for and undone; what waits for another attempt is not tried again."""
    calls: list[tuple[str, float]] = []
    acts = Act("a", calls, 9), Act("b", calls, lasts=0.05), Act("c", calls, 1)
    program = orchestrator(store, *acts, delay=0.0)
    async with program:
        record = await stored(store, await program.start("group", saga_id="g"))
    assert record.status is SagaStatus.COMPENSATED
    assert [count(calls, name) for name in ("a", "b", "c")] == [3, 1, 2]
    assert sorted(name for name, _ in calls if name.startswith("undo")) == ["undo b", "undo c"]
