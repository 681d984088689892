"""Sagas defined as lists of action objects."""

from __future__ import annotations

import asyncio

import pytest

from lexigram.events.config import SagaConfig
from lexigram.events.exceptions import EventValidationError
from lexigram.events.sagas.context import SagaContext, SagaStepResult
from lexigram.events.sagas.orchestrator import OrchestratedStep, SagaAction, SagaOrchestrator
from lexigram.events.sagas.types import SagaStatus

QUICK = SagaConfig(retry_delay_seconds=0.0, max_retries_per_step=0)


class Act:
    """Notes that it was carried out or undone."""

    def __init__(self, name: str, trace: list[str], *, fails: bool = False, slow: bool = False) -> None:
        self.name, self.trace, self.fails, self.slow = name, trace, fails, slow

    async def execute(self, ctx: SagaContext) -> SagaStepResult:
        if self.slow:
            await asyncio.sleep(0.02)
        if self.fails:
            return SagaStepResult.fail(f"{self.name} refused")
        self.trace.append(self.name)
        return SagaStepResult.Ok({"by": self.name})

    async def compensate(self, ctx: SagaContext) -> SagaStepResult:
        self.trace.append(f"undo {self.name}")
        return SagaStepResult.Ok()


def step(name: str, trace: list[str], **options: object) -> OrchestratedStep:
    action = Act(name, trace, fails=bool(options.pop("fails", False)), slow=bool(options.pop("slow", False)))
    return OrchestratedStep(name, action, **options)  # type: ignore[arg-type]


async def outcome(steps: list[OrchestratedStep]) -> SagaStatus:
    orchestrator = SagaOrchestrator(config=QUICK)
    orchestrator.define("o", steps)
    record = await orchestrator.get(await orchestrator.start("o", {}))
    assert record is not None
    return record.status


async def test_steps_run_in_list_order_and_are_undone_in_reverse() -> None:
    """A failing action's own compensation is not called."""
    trace: list[str] = []
    assert isinstance(Act("a", trace), SagaAction)
    assert await outcome([step("a", trace), step("b", trace), step("c", trace, fails=True)]) is SagaStatus.COMPENSATED
    assert trace == ["a", "b", "undo b", "undo a"]


async def test_next_step_and_on_failure_choose_the_way() -> None:
    """A jump passes over steps; a named failure step replaces compensation."""
    trace: list[str] = []
    steps = [
        step("a", trace, next_step="c"),
        step("b", trace),
        step("c", trace, fails=True, on_failure="d"),
        step("never", trace),
        step("d", trace),
    ]
    assert await outcome(steps) is SagaStatus.COMPLETED
    assert trace == ["a", "d"]


async def test_parallel_steps_run_together_and_all_end_before_the_next() -> None:
    """The slow lead does not hold up the others; all are undone if a later step fails."""
    trace: list[str] = []
    group = step("slow", trace, slow=True, parallel=[step("quick", trace), step("quicker", trace)])
    assert await outcome([group, step("last", trace, fails=True)]) is SagaStatus.COMPENSATED
    assert trace[:3] == ["quick", "quicker", "slow"]
    assert sorted(trace[3:]) == ["undo quick", "undo quicker", "undo slow"]


async def test_a_failing_parallel_step_undoes_its_finished_neighbours() -> None:
    """Those that ended well are undone, the failed one is not."""
    trace: list[str] = []
    group = step("a", trace, parallel=[step("b", trace, fails=True), step("c", trace, slow=True)])
    orchestrator = SagaOrchestrator(config=QUICK)
    orchestrator.define("group", [group])
    record = await orchestrator.get(await orchestrator.start("group"))
    assert record is not None
    assert record.status is SagaStatus.COMPENSATED
    assert record.error is not None
    assert record.error.startswith("b: "), "the error names the step that failed, not the first of the group"
    assert sorted(trace) == ["a", "c", "undo a", "undo c"]


async def test_steps_that_lead_back_to_each_other_leave_other_tasks_running() -> None:
    """Until somebody cancels the saga, or its time is up."""
    trace: list[str] = []
    orchestrator = SagaOrchestrator(config=QUICK)
    orchestrator.define("o", [step("a", trace, next_step="b"), step("b", trace, fails=True, on_failure="a")])
    await orchestrator.start("o", saga_id="round", wait=False)
    async with asyncio.timeout(5):
        while len(trace) < 5:
            await asyncio.sleep(0)
        record = await orchestrator.cancel("round")
    assert record.status is SagaStatus.COMPENSATED


def test_definitions_that_cannot_work_are_refused() -> None:
    """Names used twice, jumps to nowhere, actions that cannot execute, no steps."""
    orchestrator = SagaOrchestrator()
    trace: list[str] = []
    with pytest.raises(EventValidationError, match="two steps named 'a'"):
        orchestrator.define("x", [step("a", trace), step("b", trace, parallel=[step("a", trace)])])
    with pytest.raises(EventValidationError, match="leads to 'z'"):
        orchestrator.define("x", [step("a", trace, next_step="z")])
    with pytest.raises(EventValidationError, match="no execute"):
        orchestrator.define("x", [OrchestratedStep("a", object())])  # type: ignore[arg-type]
    with pytest.raises(EventValidationError, match="has no steps"):
        orchestrator.define("x", [])
