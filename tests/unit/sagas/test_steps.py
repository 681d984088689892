"""Steps of a saga: order, results, retries, timeouts."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from lexigram.contracts.workflow import SagaManagerProtocol, SagaProtocol
from lexigram.events.config import SagaConfig
from lexigram.events.exceptions import EventStoreConnectionError, EventValidationError, SagaError
from lexigram.events.sagas.base import SagaBase, saga_step
from lexigram.events.sagas.context import SagaContext, SagaStepResult
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.store import InMemorySagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus, SagaStepStatus
from lexigram.result import Err, Ok

QUICK = SagaConfig(retry_delay_seconds=0.0)


def manager_of(*classes: type[SagaBase], **options: Any) -> SagaManager:
    manager = SagaManager(config=QUICK, **options)
    for cls in classes:
        manager.register(cls)
    return manager


async def run(cls: type[SagaBase], data: dict[str, Any] | None = None, **options: Any) -> SagaRecord:
    manager = manager_of(cls, **options)
    record = await manager.get(await manager.start(cls.saga_name(), data))
    assert record is not None
    return record


class Trace(SagaBase):
    """Notes which steps ran."""

    def note(self, ctx: SagaContext, what: str) -> None:
        ctx.data.setdefault("trace", []).append(what)


async def test_steps_run_in_order_of_definition_not_of_name() -> None:
    """Alphabetical order would run `a` first."""

    class Ordered(Trace):
        @saga_step
        async def zeta(self, ctx: SagaContext) -> None:
            self.note(ctx, "zeta")

        @saga_step("middle")
        async def anything(self, ctx: SagaContext) -> None:
            self.note(ctx, "middle")

        @saga_step()
        def a(self, ctx: SagaContext) -> None:
            self.note(ctx, "a")

    record = await run(Ordered)
    assert record.status is SagaStatus.COMPLETED
    assert record.data["trace"] == ["zeta", "middle", "a"]


async def test_steps_of_a_base_class_come_first_and_can_be_overridden_in_place() -> None:
    """An override keeps the position and the step name of what it overrides."""

    class Base(Trace):
        @saga_step
        async def first(self, ctx: SagaContext) -> None:
            self.note(ctx, "base first")

        @saga_step
        async def second(self, ctx: SagaContext) -> None:
            self.note(ctx, "base second")

    class Derived(Base):
        @saga_step
        async def third(self, ctx: SagaContext) -> None:
            self.note(ctx, "third")

        async def first(self, ctx: SagaContext) -> None:
            self.note(ctx, "derived first")

    assert (await run(Derived)).data["trace"] == ["derived first", "base second", "third"]


async def test_every_kind_of_return_value_becomes_output_or_failure() -> None:
    """Results of ours, plain values, None and the framework's Result all count."""

    class Returns(SagaBase):
        @saga_step
        async def document_form(self, ctx: SagaContext) -> SagaStepResult:
            return SagaStepResult.success(data={"reservation_id": 7})

        @saga_step
        async def ok(self, ctx: SagaContext) -> SagaStepResult:
            return SagaStepResult.Ok({"a": 1})

        @saga_step
        async def plain_dict(self, ctx: SagaContext) -> dict[str, int]:
            return {"b": ctx.step_results["ok"]["a"] + 1}

        @saga_step
        async def plain_value(self, ctx: SagaContext) -> str:
            return "text"

        @saga_step
        async def nothing(self, ctx: SagaContext) -> None:
            return None

        @saga_step
        async def framework_ok(self, ctx: SagaContext) -> Any:
            return Ok({"c": 3})

        @saga_step
        async def framework_err(self, ctx: SagaContext) -> Any:
            return Err("no seat left")

    record = await run(Returns)
    outputs = {name: step.output for name, step in record.steps.items()}
    assert outputs == {
        "document_form": {"reservation_id": 7},
        "ok": {"a": 1},
        "plain_dict": {"b": 2},
        "plain_value": {"result": "text"},
        "nothing": {},
        "framework_ok": {"c": 3},
        "framework_err": {},
    }
    assert record.status is SagaStatus.FAILED
    assert record.error == "framework_err: no seat left"


def test_success_builds_on_the_class_and_is_a_bool_on_an_instance() -> None:
    """The document's and the published form of `success` share a name."""
    assert SagaStepResult.success(data={"a": 1}).output == {"a": 1}
    assert SagaStepResult.success(a=1).data == {"a": 1}
    assert SagaStepResult.success().success is True
    assert SagaStepResult.fail("why").success is False
    assert SagaStepResult(False, error="why") == SagaStepResult.fail("why")
    assert SagaStepResult(True, {"x": 1}) == SagaStepResult.Ok({"x": 1})
    assert SagaStepResult.retry("later", 2.5).retry_after == 2.5


async def test_a_failing_step_is_retried_as_often_as_its_policy_says() -> None:
    """Two retries are three attempts; the record counts them."""
    calls: list[int] = []

    class Flaky(SagaBase):
        @saga_step(max_retries=2, retry_delay=0.0)
        async def connect(self, ctx: SagaContext) -> None:
            calls.append(ctx.attempt)
            if ctx.attempt < 3:
                raise ConnectionError("refused")

    record = await run(Flaky)
    assert calls == [1, 2, 3]
    assert record.status is SagaStatus.COMPLETED
    assert record.steps["connect"].attempts == 3


async def test_a_programming_error_is_not_retried_and_never_leaves_the_saga_running() -> None:
    """A KeyError ends the saga at once."""
    calls: list[int] = []

    class Buggy(SagaBase):
        @saga_step
        async def look_up(self, ctx: SagaContext) -> None:
            calls.append(1)
            ctx.data["missing"]

    record = await run(Buggy)
    assert len(calls) == 1
    assert record.status is SagaStatus.FAILED
    assert record.error == "look_up: KeyError: 'missing'"
    assert record.steps["look_up"].status is SagaStepStatus.FAILED


async def test_a_step_that_is_cancelled_from_within_has_failed() -> None:
    """Something it waited for was cancelled, not the saga: it is tried again and never left running."""

    class Waits(Trace):
        async def undo(self, ctx: SagaContext) -> None:
            await cancelled_elsewhere()

        @saga_step(compensation=undo, max_retries=0)
        async def first(self, ctx: SagaContext) -> None: ...

        @saga_step(max_retries=1)
        async def second(self, ctx: SagaContext) -> None:
            await cancelled_elsewhere()

    async def cancelled_elsewhere() -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    record = await run(Waits)
    assert record.status is SagaStatus.COMPENSATION_FAILED
    assert record.steps["second"].attempts == 2
    assert "cancelled from within" in str(record.steps["second"].error)
    assert "cancelled from within" in str(record.steps["first"].compensation_error)


async def test_retry_on_limits_which_errors_are_retried() -> None:
    """An error outside of it fails at once, even one that would be retried by default."""
    calls: list[int] = []

    class Picky(SagaBase):
        @saga_step(max_retries=5, retry_on=(ConnectionError,))
        async def act(self, ctx: SagaContext) -> None:
            calls.append(1)
            raise RuntimeError("no")

    assert (await run(Picky)).status is SagaStatus.FAILED
    assert len(calls) == 1


async def test_a_step_may_ask_to_be_tried_again() -> None:
    """`SagaStepResult.retry` counts against max_retries; `fail` is final."""

    class Waiting(SagaBase):
        @saga_step(max_retries=1)
        async def poll(self, ctx: SagaContext) -> SagaStepResult:
            return SagaStepResult.Ok() if ctx.attempt == 2 else SagaStepResult.retry("not yet")

        @saga_step(max_retries=9)
        async def decide(self, ctx: SagaContext) -> SagaStepResult:
            ctx.data["decided"] = True
            return SagaStepResult.fail("refused")

    record = await run(Waiting)
    assert record.steps["poll"].attempts == 2
    assert record.steps["decide"].attempts == 1
    assert record.status is SagaStatus.FAILED
    assert "decided" not in record.data, "what a failed attempt changed must not stay"


async def test_a_slow_step_times_out_and_the_saga_says_so() -> None:
    """Its own timeout ends an attempt; with nothing to undo the saga is TIMED_OUT."""

    class Slow(SagaBase):
        @saga_step(timeout=0.02, max_retries=1, retry_delay=0.0)
        async def wait(self, ctx: SagaContext) -> None:
            await asyncio.sleep(5)

    record = await run(Slow)
    assert record.status is SagaStatus.TIMED_OUT
    assert record.steps["wait"].attempts == 2
    assert record.reason == "timeout"


async def test_the_deadline_of_the_whole_saga_ends_it_without_retries() -> None:
    """It is stored with the saga, and passes although the step itself has no timeout."""

    class Late(SagaBase):
        timeout = 0.03

        @saga_step(max_retries=9)
        async def wait(self, ctx: SagaContext) -> None:
            await asyncio.sleep(5)

    record = await run(Late)
    assert record.status is SagaStatus.TIMED_OUT
    assert record.deadline is not None
    assert (record.deadline - record.created_at).total_seconds() == pytest.approx(0.03, abs=0.02)


async def test_steps_reach_services_by_name_and_type() -> None:
    """`ctx.services.inventory` as in the documents; an unknown one names itself."""

    class Inventory:
        async def reserve(self, order: str) -> str:
            return f"reserved {order}"

    class Order(SagaBase):
        @saga_step
        async def reserve(self, ctx: SagaContext) -> SagaStepResult:
            first = await ctx.services.inventory.reserve(ctx.data["order_id"])
            assert ctx.services[Inventory] is ctx.services["inventory"]
            return SagaStepResult.success(data={"first": first})

        @saga_step(max_retries=0)
        async def pay(self, ctx: SagaContext) -> None:
            ctx.services.payments.charge()

    record = await run(Order, {"order_id": "o1"}, services={"inventory": Inventory()})
    assert record.steps["reserve"].output == {"first": "reserved o1"}
    assert "There is no service 'payments'" in (record.error or "")


def test_the_framework_recognises_manager_and_saga() -> None:
    """isinstance with the contracts holds."""

    class One(SagaBase):
        @saga_step
        async def only(self, ctx: SagaContext) -> None: ...

    assert isinstance(SagaManager(), SagaManagerProtocol)
    assert isinstance(One(), SagaProtocol)


def test_bad_definitions_are_refused_by_name() -> None:
    """Each message says what is wrong with which class."""
    manager = SagaManager()
    with pytest.raises(EventValidationError, match="has no @saga_step"):
        manager.register(type("Empty", (SagaBase,), {}))
    with pytest.raises(EventValidationError, match="no subclass of SagaBase"):
        manager.register(dict)  # type: ignore[arg-type]
    with pytest.raises(EventValidationError, match="max_retries"):
        saga_step("x", max_retries=-1)
    with pytest.raises(EventValidationError, match="timeout"):
        saga_step("x", timeout=0)
    with pytest.raises(EventValidationError, match="needs the name"):
        saga_step(compensation=True)

    for wrong in (0, -1, "60", float("nan"), timedelta(seconds=1)):
        with pytest.raises(EventValidationError, match="The timeout of saga 'Hasty' must be seconds above 0"):
            manager.register(type("Hasty", (SagaBase,), {"timeout": wrong, "go": saga_step(lambda self, ctx: None)}))

    class Dangling(SagaBase):
        @saga_step
        async def do(self, ctx: SagaContext) -> None: ...

        @saga_step("other", compensation=True)
        async def undo(self, ctx: SagaContext) -> None: ...

    with pytest.raises(EventValidationError, match=r"Dangling\.undo undoes 'other', which is no step"):
        manager.register(Dangling)


async def test_starting_the_same_id_twice_runs_it_once() -> None:
    """A repeated request has one effect; an id of another kind of saga is refused."""
    calls: list[str] = []

    class Once(SagaBase):
        @saga_step
        async def act(self, ctx: SagaContext) -> None:
            calls.append(ctx.saga_id)

    class Other(Once):
        name = "other"

    manager = manager_of(Once, Other)
    assert await manager.start("Once", saga_id="s-1") == "s-1"
    assert await manager.start("Once", saga_id="s-1") == "s-1"
    assert calls == ["s-1"]
    with pytest.raises(SagaError, match="kind 'Once'"):
        await manager.start("other", saga_id="s-1")
    with pytest.raises(SagaError, match="No saga is named 'nope'; registered: Once, other"):
        await manager.start("nope")


async def test_cancelling_the_caller_does_not_stop_the_saga() -> None:
    """The saga runs in a task of its own."""
    gate = asyncio.Event()

    class Gated(SagaBase):
        @saga_step
        async def wait(self, ctx: SagaContext) -> None:
            await gate.wait()

    manager = manager_of(Gated)
    caller = asyncio.create_task(manager.start("Gated", saga_id="g"))
    while not manager.running:
        await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.set()
    assert (await manager.wait_for("g", 5)).status is SagaStatus.COMPLETED


async def test_a_saga_is_not_started_with_what_is_no_data() -> None:
    """The error names the argument; an id that is a UUID is kept as text."""

    class Short(SagaBase):
        @saga_step()
        async def only(self, ctx: SagaContext) -> None:
            """Nothing to do."""

    manager = SagaManager()
    manager.register(Short)
    for wrong in ([1], "order", 3):
        with pytest.raises(EventValidationError, match="data must be a dict"):
            await manager.start("Short", wrong)  # type: ignore[arg-type]
    with pytest.raises(EventValidationError, match="saga_id"):
        await manager.start("Short", saga_id=5)  # type: ignore[arg-type]
    own_id = uuid4()
    assert await manager.start("Short", saga_id=own_id) == str(own_id)


@pytest.mark.parametrize("lost", range(3))
async def test_a_saga_goes_on_when_the_answer_to_its_own_write_is_lost(lost: int) -> None:
    """The write came through and looked as if it had failed: no step is repeated, and the saga ends."""
    done: list[str] = []

    class Deaf(InMemorySagaStore):
        saves = 0

        async def save(self, record: SagaRecord) -> None:
            await super().save(record)
            self.saves += 1
            if self.saves == lost + 2:  # the first one creates the saga
                raise ConnectionError("no answer")

    class Three(SagaBase):
        @saga_step
        async def one(self, ctx: SagaContext) -> None:
            done.append("one")

        @saga_step
        async def two(self, ctx: SagaContext) -> None:
            done.append("two")

        @saga_step
        async def three(self, ctx: SagaContext) -> None:
            done.append("three")

    store = Deaf()
    manager = SagaManager(store, config=SagaConfig(retry_delay_seconds=0.0))
    manager.register(Three)
    record = await manager.get(await asyncio.wait_for(manager.start("Three"), 5))
    assert record is not None
    assert record.status is SagaStatus.COMPLETED
    assert done == ["one", "two", "three"]
    assert store.saves >= lost + 2


@pytest.mark.parametrize("place", ["load", "step", "failure", "undo"])
async def test_a_saga_waits_for_a_database_that_is_away(place: str) -> None:
    """It goes on from what was stored last, without a restart, and is not undone because of it."""
    done: list[str] = []
    away = asyncio.Event()

    class Weak(InMemorySagaStore):
        def check(self) -> None:
            if away.is_set():
                raise EventStoreConnectionError("the server is away")

        async def load(self, saga_id: str) -> SagaRecord | None:
            self.check()
            return await super().load(saga_id)

        async def save(self, record: SagaRecord) -> None:
            self.check()
            await super().save(record)

    class Steady(SagaBase):
        async def undo(self, ctx: SagaContext) -> None:
            if place == "undo":
                leave()
            done.append("undo")

        @saga_step(compensation=undo, max_retries=20, retry_delay=0.01)
        async def one(self, ctx: SagaContext) -> None:
            if place == "step":
                leave()
            done.append("one")

        @saga_step(max_retries=0)
        async def two(self, ctx: SagaContext) -> None:
            if place in ("failure", "undo"):
                if place == "failure":
                    leave()
                raise KeyError("no")
            done.append("two")

    def leave() -> None:
        if not left:
            left.append(place)
            away.set()
            asyncio.get_running_loop().call_later(0.2, away.clear)

    left: list[str] = []
    manager = SagaManager(Weak(), config=SagaConfig(retry_delay_seconds=0.01))
    manager.register(Steady)
    await manager.start("Steady", saga_id="s", wait=False)
    if place == "load":
        leave()
        manager.interrupt("s")
        manager._spawn("s")
    await asyncio.wait_for(manager.drain(), 10)
    record = await manager.get("s")
    assert record is not None
    expected = SagaStatus.COMPENSATED if place in ("failure", "undo") else SagaStatus.COMPLETED
    assert record.status is expected
    assert left == [place]
    assert done[-1] == ("undo" if place in ("failure", "undo") else "two")
