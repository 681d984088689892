"""Process managers and sagas within sagas on all five backends, each with the saga store of its database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events import Command, DomainEvent, ProjectionManager, SagaBase, SagaConfig, SagaContext, saga_step
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.types import SagaStatus
from lexigram.events.testing.outbox import eventually
from tests.backends import BACKENDS, MakeStore, make_store, saga_store

__all__ = ["make_store"]


class Opened(DomainEvent):
    key: str


class Noted(DomainEvent):
    key: str
    number: int


class Closed(DomainEvent):
    key: str


class Do(Command[None]):
    key: str
    what: str


class Process(SagaBase):
    name = "process"
    start_events = (Opened,)
    continue_events = (Noted, Closed)

    def correlation_key(self, event: Any) -> str:
        return str(event.key)

    async def handle(self, event: Any) -> list[Any]:
        if isinstance(event, Closed):
            self.set_timer("end", 0.05)
            return []
        if isinstance(event, Noted):
            seen = self.context.data.setdefault("seen", [])
            seen.append(event.number)
            return [Do(key=event.key, what=str(event.number))]
        return []

    async def on_timer(self, name: str) -> list[Any]:
        self.complete()
        return [Do(key=self.context.data["key"], what=name)]


class Part(SagaBase):
    name = "part"

    @saga_step(compensation="undo")
    async def work(self, ctx: SagaContext) -> None:
        ctx.data["worked"] = True

    async def undo(self, ctx: SagaContext) -> None:
        ctx.data["worked"] = False


class Whole(SagaBase):
    name = "whole"

    @saga_step
    async def run(self, ctx: SagaContext) -> None:
        part = await ctx.run_saga("part")
        ctx.data["worked"] = part.data["worked"]

    @saga_step(max_retries=0)
    async def end(self, ctx: SagaContext) -> None:
        if ctx.data.get("fails"):
            raise RuntimeError("too late")


@pytest_asyncio.fixture(params=BACKENDS)
async def world(request: pytest.FixtureRequest, make_store: MakeStore) -> AsyncIterator[tuple[Any, SagaManager]]:
    """An empty event store, and a manager whose commands append to it."""
    async with make_store(request.param) as store, saga_store(request.param, store) as sagas:

        class Bus:
            async def dispatch(self, command: Do) -> None:
                await store.append(f"done-{command.key}", [Noted(key=command.what, number=0)])

        async with SagaManager(
            sagas, event_store=store, command_bus=Bus(), config=SagaConfig(retry_delay_seconds=0.01)
        ) as manager:
            for saga in (Process, Part, Whole):
                manager.register(saga)
            yield store, manager


async def test_events_of_one_process_in_one_batch_all_count(world: tuple[Any, SagaManager]) -> None:
    """Fed by the follower in one go; commands are carried out once and in order, the timer ends it."""
    store, manager = world
    for key in ("a", "b"):
        await store.append(f"log-{key}", [Opened(key=key), *[Noted(key=key, number=n) for n in range(8)]])
    await store.append("log-a", [Closed(key="a")])
    checkpoints = store.checkpoint_store()
    projections = ProjectionManager(store, checkpoints)
    projections.register(manager.follower())
    async with projections:
        await projections.wait_for("sagas", await store.head(), timeout=30)
        await manager.drain()
        await eventually(lambda: not manager.running)

        async def ended() -> bool:
            record = await manager.get("process:a")
            return record is not None and record.status is SagaStatus.COMPLETED

        async with asyncio.timeout(30):
            while not await ended():
                await asyncio.sleep(0.02)
    for key, more in (("a", ["end"]), ("b", [])):
        record = await manager.get(f"process:{key}")
        assert record is not None
        assert record.data["seen"] == list(range(8))
        assert (record.handled, list(record.positions)) == ([], ["sagas"])
        assert [event.key for event in await store.read(f"done-{key}")] == [*map(str, range(8)), *more]
    if checkpoints is not None:
        await checkpoints.close()


async def test_a_part_runs_and_is_undone_with_its_whole(world: tuple[Any, SagaManager]) -> None:
    """Each is a record of its own."""
    _, manager = world
    whole = await manager.get(await asyncio.wait_for(manager.start("whole", saga_id="1"), 30))
    assert whole is not None
    assert (whole.status, whole.data["worked"]) == (SagaStatus.COMPLETED, True)
    undone = await manager.get(await asyncio.wait_for(manager.start("whole", {"fails": True}, "2"), 30))
    assert undone is not None
    assert undone.status is SagaStatus.COMPENSATED
    part = await manager.get("2/run/part")
    assert part is not None
    assert (part.status, part.data["worked"]) == (SagaStatus.COMPENSATED, False)
