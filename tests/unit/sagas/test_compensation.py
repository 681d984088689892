"""Undoing a saga, and what operators do when that fails."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.config import SagaConfig
from lexigram.events.exceptions import EventValidationError, SagaError
from lexigram.events.sagas.base import SagaBase, saga_step
from lexigram.events.sagas.context import SagaContext, SagaStepResult
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.sagas.store import InMemorySagaStore
from lexigram.events.sagas.types import SagaStatus, SagaStepStatus

QUICK = SagaConfig(retry_delay_seconds=0.0, max_retries_per_step=1)


class World:
    """What the steps did, and what is to go wrong."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken: set[str] = set()

    def act(self, what: str) -> None:
        if what in self.broken:
            raise RuntimeError(f"{what} is broken")
        self.done.append(what)


async def undo_reserve(self: SagaBase, ctx: SagaContext) -> None:
    """A function outside of the class."""
    ctx.services.world.act("undo reserve")


class Order(SagaBase):
    """Three steps; the first and second can be undone, in two different forms."""

    name = "order"

    @saga_step(compensation=undo_reserve)
    async def reserve(self, ctx: SagaContext) -> SagaStepResult:
        ctx.services.world.act("reserve")
        return SagaStepResult.success(data={"id": 1})

    @saga_step("charge")
    async def take_money(self, ctx: SagaContext) -> None:
        ctx.services.world.act("charge")

    @saga_step("charge", compensation=True)
    async def give_money_back(self, ctx: SagaContext) -> None:
        assert ctx.step_results["reserve"] == {"id": 1}
        ctx.services.world.act("undo charge")

    @saga_step
    async def note(self, ctx: SagaContext) -> None:
        ctx.services.world.act("note")

    @saga_step
    async def ship(self, ctx: SagaContext) -> None:
        ctx.services.world.act("ship")


def manager_of(world: World, store: InMemorySagaStore | None = None, **options: Any) -> SagaManager:
    manager = SagaManager(store, config=QUICK, services={"world": world}, **options)
    manager.register(Order)
    return manager


async def test_finished_steps_are_undone_in_reverse_order() -> None:
    """A step without compensation is passed over; the saga ends compensated and keeps the error."""
    world = World()
    world.broken.add("ship")
    manager = manager_of(world)
    record = await manager.get(await manager.start("order"))
    assert record is not None
    assert world.done == ["reserve", "charge", "note", "undo charge", "undo reserve"]
    assert record.status is SagaStatus.COMPENSATED
    assert record.error == "ship: RuntimeError: ship is broken"
    assert {name: step.status for name, step in record.steps.items()} == {
        "reserve": SagaStepStatus.COMPENSATED,
        "charge": SagaStepStatus.COMPENSATED,
        "note": SagaStepStatus.COMPLETED,
        "ship": SagaStepStatus.FAILED,
    }


async def test_a_failed_compensation_is_never_reported_as_compensated() -> None:
    """It is tried again, then waits for an operator with the steps before it not yet undone."""
    world = World()
    world.broken |= {"ship", "undo charge"}
    manager = manager_of(world)
    record = await manager.get(await manager.start("order", saga_id="o"))
    assert record is not None
    assert record.status is SagaStatus.COMPENSATION_FAILED
    assert not record.status.is_terminal
    assert record.steps["charge"].compensation_attempts == 2
    assert record.steps["charge"].compensation_error == "RuntimeError: undo charge is broken"
    assert "undo reserve" not in world.done
    assert [found.saga_id for found in await manager.list(status=SagaStatus.COMPENSATION_FAILED)] == ["o"]


async def test_retry_goes_on_with_the_failed_compensation_only() -> None:
    """What was undone before is not undone twice."""
    world = World()
    world.broken |= {"ship", "undo reserve"}
    manager = manager_of(world)
    await manager.start("order", saga_id="o")
    world.broken.clear()
    record = await manager.retry("o")
    assert record.status is SagaStatus.COMPENSATED
    assert world.done == ["reserve", "charge", "note", "undo charge", "undo reserve"]
    with pytest.raises(SagaError, match="only failed ones can be retried"):
        await manager.retry("o")


async def test_force_complete_keeps_the_steps_true_states() -> None:
    """The record says that it was forced, from which state, and why."""
    world = World()
    world.broken |= {"ship", "undo charge"}
    manager = manager_of(world)
    await manager.start("order", saga_id="o")
    record = await manager.force_complete("o", "refunded by hand")
    assert record.status is SagaStatus.COMPLETED
    assert record.reason == "forced"
    assert record.metadata["forced"]["note"] == "refunded by hand"
    assert record.metadata["forced"]["from"] == "compensation_failed"
    assert record.steps["charge"].status is SagaStepStatus.COMPENSATING
    with pytest.raises(SagaError, match="ended already"):
        await manager.force_complete("o")


async def test_retry_of_a_failed_saga_repeats_only_the_failed_step() -> None:
    """Compensation switched off: the saga is FAILED, and goes on from the failed step."""
    world = World()
    world.broken.add("note")
    config = SagaConfig(retry_delay_seconds=0.0, max_retries_per_step=0, enable_compensation=False)
    manager = SagaManager(config=config, services={"world": world})
    manager.register(Order)
    await manager.start("order", saga_id="o")
    failed = await manager.get("o")
    assert failed is not None
    assert failed.status is SagaStatus.FAILED
    world.broken.clear()
    assert (await manager.retry("o")).status is SagaStatus.COMPLETED
    assert world.done == ["reserve", "charge", "note", "ship"]


async def test_cancel_rolls_the_running_step_back_and_undoes_the_others() -> None:
    """The cancelled step never finishes; the saga ends compensated, with the reason."""
    started = asyncio.Event()
    undone: list[str] = []

    class Long(SagaBase):
        def undo(self, ctx: SagaContext) -> None:
            undone.append(ctx.step_name)

        @saga_step(compensation="undo")
        async def first(self, ctx: SagaContext) -> None: ...

        @saga_step(compensation="undo")
        async def second(self, ctx: SagaContext) -> None:
            started.set()
            await asyncio.sleep(30)

    manager = SagaManager(config=QUICK)
    manager.register(Long)
    saga_id = await manager.start("Long", wait=False)
    await started.wait()
    record = await manager.cancel(saga_id, "not wanted any more")
    assert record.status is SagaStatus.COMPENSATED
    assert record.reason == "cancelled"
    assert record.error == "cancelled: not wanted any more"
    assert undone == ["first"]


async def test_a_saga_stopped_in_the_middle_is_resumed_without_repeating_steps() -> None:
    """What `close` interrupts goes on in the next manager on the same store."""
    world, store = World(), InMemorySagaStore()
    blocked = asyncio.Event()

    class Blocking(World):
        async def wait(self) -> None:
            blocked.set()
            await asyncio.sleep(30)

    class Resumable(Order):
        name = "resumable"

        async def note(self, ctx: SagaContext) -> None:
            if hasattr(ctx.services.world, "wait"):
                await ctx.services.world.wait()
            ctx.services.world.act("note")

    first = Blocking()
    manager = SagaManager(store, config=QUICK, services={"world": first})
    manager.register(Resumable)
    saga_id = await manager.start("resumable", wait=False)
    await blocked.wait()
    assert await manager.close(timeout=0.0) == [saga_id]
    assert first.done == ["reserve", "charge"]

    manager = SagaManager(store, config=QUICK, services={"world": world})
    manager.register(Resumable)
    assert await manager.resume() == [saga_id]
    assert world.done == ["note", "ship"]
    assert await manager.resume() == []


async def test_a_changed_step_list_is_refused_before_anything_is_resumed() -> None:
    """The error names the saga, where it stands, and both lists."""
    store = InMemorySagaStore()

    class Old(SagaBase):
        name = "changing"

        @saga_step
        async def one(self, ctx: SagaContext) -> None: ...

        @saga_step
        async def two(self, ctx: SagaContext) -> None:
            await asyncio.sleep(30)

    class New(SagaBase):
        name = "changing"

        @saga_step
        async def one(self, ctx: SagaContext) -> None: ...

        @saga_step
        async def inserted(self, ctx: SagaContext) -> None: ...

        @saga_step
        async def two(self, ctx: SagaContext) -> None: ...

    class Tolerant(New):
        def accepts_steps(self, stored: list[str], present: list[str]) -> bool:
            return set(stored) <= set(present)

    manager = SagaManager(store, config=QUICK)
    manager.register(Old)
    await manager.start("changing", saga_id="c", wait=False)
    await asyncio.sleep(0.02)
    await manager.close(timeout=0.0)

    changed = SagaManager(store, config=QUICK)
    changed.register(New)
    with pytest.raises(SagaError, match=r"changing c \(running at two\): began with \['one', 'two'\]"):
        await changed.resume()
    record = await store.load("c")
    assert record is not None
    assert record.status is SagaStatus.RUNNING
    tolerant = SagaManager(store, config=QUICK)
    tolerant.register(Tolerant)
    assert await tolerant.resume() == ["c"]
    assert (await tolerant.wait_for("c")).status is SagaStatus.COMPLETED


async def test_two_managers_on_one_store_never_both_finish_a_step() -> None:
    """The loser's write is refused, whatever it did is not stored, and the saga ends once."""
    store = InMemorySagaStore()
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}

    class Shared(SagaBase):
        @saga_step
        async def act(self, ctx: SagaContext) -> str:
            await gates[ctx.services.me].wait()
            return str(ctx.services.me)

    managers = {}
    for me in gates:
        managers[me] = SagaManager(store, config=QUICK, services={"me": me})
        managers[me].register(Shared)
    await managers["a"].start("Shared", saga_id="s", wait=False)
    resumed = asyncio.create_task(managers["b"].resume())
    await asyncio.sleep(0.01)
    gates["a"].set()
    await managers["a"].drain()
    gates["b"].set()
    with pytest.raises(SagaError, match="changed by another process"):
        await resumed
    record = await store.load("s")
    assert record is not None
    assert record.steps["act"].output == {"result": "a"}
    assert record.status is SagaStatus.COMPLETED


async def test_purge_deletes_only_what_ended_long_enough_ago() -> None:
    """Unfinished and recent sagas stay."""
    world = World()
    manager = manager_of(world)
    await manager.start("order", saga_id="recent")
    assert await manager.purge_finished(timedelta(hours=1)) == 0
    assert await manager.purge_finished(timedelta(0)) == 1
    assert await manager.get("recent") is None


@pytest.mark.parametrize("where", ["memory", "sqlite"])
async def test_sagas_are_listed_by_the_names_of_their_states_too(where: str, tmp_path: Path) -> None:
    """Whatever people type; a state that does not exist and a limit below 0 are refused by name."""
    async with InMemorySagaStore() if where == "memory" else SqlSagaStore(str(tmp_path / "sagas.db")) as store:
        manager = SagaManager(store, services={"world": World()})
        manager.register(Order)
        await manager.start("order", saga_id="o-1")
        for status in (SagaStatus.COMPLETED, "completed", ["running", "completed"]):
            assert [record.saga_id for record in await manager.list("order", status)] == ["o-1"]
        assert await manager.list(status="running") == await manager.list(limit=0) == []
        with pytest.raises(EventValidationError, match="'done' is not a valid SagaStatus; known: pending"):
            await manager.list(status="done")
        with pytest.raises(EventValidationError, match="limit"):
            await manager.list(limit=-1)


async def test_a_compensation_has_an_idempotency_key_of_its_own_and_keeps_it() -> None:
    """With the key of the step, a service that drops repetitions would drop the refund."""
    keys: list[str] = []

    class Charged(SagaBase):
        async def refund(self, ctx: SagaContext) -> None:
            keys.append(ctx.idempotency_key)
            if ctx.attempt == 1:
                raise ConnectionError

        @saga_step(compensation=refund)
        async def charge(self, ctx: SagaContext) -> None:
            keys.append(ctx.idempotency_key)
            if ctx.attempt == 1:
                raise ConnectionError

        @saga_step(max_retries=0)
        async def ship(self, ctx: SagaContext) -> None:
            raise ConnectionError

    manager = SagaManager(config=SagaConfig(retry_delay_seconds=0.0))
    manager.register(Charged)
    await manager.start("Charged", saga_id="7")
    assert keys == ["7:charge", "7:charge", "7:charge:undo", "7:charge:undo"]


async def test_cancelling_a_saga_that_is_being_undone_neither_interrupts_nor_renames_it() -> None:
    """Its error and reason stay those of the failure, and each step is undone once."""
    undone: list[str] = []
    entered, go_on = asyncio.Event(), asyncio.Event()

    class Failing(SagaBase):
        async def undo(self, ctx: SagaContext) -> None:
            entered.set()
            await go_on.wait()
            undone.append(ctx.step_name)

        @saga_step(compensation=undo)
        async def first(self, ctx: SagaContext) -> None: ...

        @saga_step(max_retries=0)
        async def second(self, ctx: SagaContext) -> None:
            raise RuntimeError("no")

    manager = SagaManager(config=QUICK)
    manager.register(Failing)
    await manager.start("Failing", saga_id="f", wait=False)
    await asyncio.wait_for(entered.wait(), 5)
    cancelling = asyncio.create_task(manager.cancel("f", "late"))
    await asyncio.sleep(0.01)
    go_on.set()
    record = await asyncio.wait_for(cancelling, 5)
    assert (record.status, record.reason, undone) == (SagaStatus.COMPENSATED, "failure", ["first"])
    assert record.error == "second: RuntimeError: no"


async def test_cancelling_a_saga_that_could_not_be_undone_is_refused() -> None:
    """The operator has to retry or to force it."""

    class Stuck(SagaBase):
        async def undo(self, ctx: SagaContext) -> None:
            raise KeyError("cannot")

        @saga_step(compensation=undo)
        async def first(self, ctx: SagaContext) -> None: ...

        @saga_step
        async def second(self, ctx: SagaContext) -> None:
            raise KeyError("no")

    manager = SagaManager(config=QUICK)
    manager.register(Stuck)
    await manager.start("Stuck", saga_id="s")
    with pytest.raises(SagaError, match="retry or force-complete it"):
        await manager.cancel("s")
