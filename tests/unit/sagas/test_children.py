"""Sagas that steps of another saga run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.config import SagaConfig
from lexigram.events.messages.event import DomainEvent
from lexigram.events.sagas.base import SagaBase, saga_step
from lexigram.events.sagas.context import SagaContext
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.sharing import SagaSharing
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.sagas.store import InMemorySagaStore, SagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore

QUICK = SagaConfig(retry_delay_seconds=0.0, max_retries_per_step=0)


class Entered(DomainEvent):
    what: str


class World:
    """Notes what was done, and what has to fail or wait."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    async def do(self, what: str) -> None:
        if what in self.broken:
            raise KeyError(what)
        if what == "pack":
            self.waiting.set()
            await self.gate.wait()
        self.done.append(what)


class Parcel(SagaBase):
    """One parcel of an order."""

    name = "parcel"

    @saga_step(compensation="unpack")
    async def pack(self, ctx: SagaContext) -> None:
        await ctx.services.world.do("pack")

    async def unpack(self, ctx: SagaContext) -> None:
        await ctx.services.world.do("unpack")

    @saga_step
    async def label(self, ctx: SagaContext) -> dict[str, Any]:
        await ctx.services.world.do("label")
        ctx.data["number"] = f"{ctx.data['order']}-1"
        return {}


class Order(SagaBase):
    """Runs a parcel between two steps of its own."""

    name = "order"

    @saga_step(compensation="refund")
    async def pay(self, ctx: SagaContext) -> None:
        await ctx.services.world.do("pay")

    async def refund(self, ctx: SagaContext) -> None:
        await ctx.services.world.do("refund")

    @saga_step(compensation="recall")
    async def send(self, ctx: SagaContext) -> dict[str, Any]:
        await ctx.services.store.append("log", [Entered(what="send")])
        parcel = await ctx.run_saga("parcel", {"order": ctx.saga_id})
        return {"number": parcel.data["number"]}

    async def recall(self, ctx: SagaContext) -> None:
        await ctx.services.world.do("recall")

    @saga_step
    async def thank(self, ctx: SagaContext) -> None:
        await ctx.services.world.do("thank")


@pytest.fixture(params=["memory", "sqlite"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Any, SagaStore]]:
    if request.param == "memory":
        yield InMemoryEventStore(), InMemorySagaStore()
        return
    async with SqliteEventStore(str(tmp_path / "events.db")) as events, SqlSagaStore(events) as sagas:
        yield events, sagas


def manager_of(stores: tuple[Any, SagaStore], world: World, *classes: type[SagaBase]) -> SagaManager:
    events, sagas = stores
    manager = SagaManager(sagas, event_store=events, services={"world": world, "store": events}, config=QUICK)
    for cls in (Parcel, Order, *classes):
        manager.register(cls)
    return manager


async def found(manager: SagaManager, saga_id: str) -> SagaRecord:
    record = await manager.get(saga_id)
    assert record is not None
    return record


async def test_a_step_goes_on_with_what_the_other_saga_has_brought(stores: Any) -> None:
    """What the step appends is there once, although it is called twice."""
    world = World()
    async with manager_of(stores, world) as manager:
        record = await found(manager, await manager.start("order", saga_id="1"))
        assert record.status is SagaStatus.COMPLETED
        assert record.steps["send"].output == {"number": "1-1"}
        child = await found(manager, "1/send/parcel")
        assert child.metadata["parent"] == "1"
    assert world.done == ["pay", "pack", "label", "thank"]
    assert len(await stores[0].read("log")) == 1


async def test_a_saga_that_fails_later_undoes_the_other_one_too(stores: Any) -> None:
    """The step's own compensation comes after that of the saga it has run."""
    world = World()
    world.broken.add("thank")
    async with manager_of(stores, world) as manager:
        record = await found(manager, await manager.start("order", saga_id="1"))
        assert record.status is SagaStatus.COMPENSATED
        assert (await found(manager, "1/send/parcel")).status is SagaStatus.COMPENSATED
    assert world.done[world.done.index("label") + 1 :] == ["unpack", "recall", "refund"]


async def test_a_saga_whose_part_fails_is_undone(stores: Any) -> None:
    """The part undoes itself; the step is not tried again."""
    world = World()
    world.broken.add("label")
    async with manager_of(stores, world) as manager:
        record = await found(manager, await manager.start("order", saga_id="1"))
        assert record.status is SagaStatus.COMPENSATED
        assert record.error is not None
        assert "Saga '1/send/parcel' ended as compensated: label: KeyError: 'label'" in record.error
        assert record.step("send").attempts == 1
    assert world.done == ["pay", "pack", "unpack", "refund"]


async def test_an_unknown_name_fails_the_step(stores: Any) -> None:
    """The error names what is registered."""

    class Wrong(SagaBase):
        name = "wrong"

        @saga_step
        async def send(self, ctx: SagaContext) -> None:
            await ctx.run_saga("nothing")

    async with manager_of(stores, World(), Wrong) as manager:
        record = await found(manager, await manager.start("wrong"))
        assert record.status is SagaStatus.FAILED
        assert record.error is not None
        assert "No saga is named 'nothing'; registered: order, parcel, wrong" in record.error


async def test_both_go_on_after_a_restart(stores: Any) -> None:
    """Wherever they were stopped; the part is not run twice."""
    world = World()
    world.gate.clear()
    manager = manager_of(stores, world)
    await manager.start("order", saga_id="1", wait=False)
    await asyncio.wait_for(world.waiting.wait(), 5)
    assert sorted(await manager.close(0.0)) == ["1", "1/send/parcel"]
    world.gate.set()
    async with manager_of(stores, world) as manager:
        await manager.resume()
        assert (await found(manager, "1")).status is SagaStatus.COMPLETED
    assert world.done == ["pay", "pack", "label", "thank"]


async def test_cancelling_a_saga_cancels_its_part(stores: Any) -> None:
    """What either has finished is undone."""
    world = World()
    world.gate.clear()
    async with manager_of(stores, world) as manager:
        await manager.start("order", saga_id="1", wait=False)
        await asyncio.wait_for(world.waiting.wait(), 5)
        record = await asyncio.wait_for(manager.cancel("1", "changed my mind"), 5)
        assert record.status is SagaStatus.COMPENSATED
        assert (await found(manager, "1/send/parcel")).status is SagaStatus.FAILED
    assert world.done == ["pay", "refund"]


async def test_a_part_that_takes_too_long_times_its_saga_out(stores: Any) -> None:
    """And is cancelled."""

    class Hasty(Order):
        name = "hasty"
        timeout = 0.1

    world = World()
    world.gate.clear()
    async with manager_of(stores, world, Hasty) as manager:
        record = await found(manager, await asyncio.wait_for(manager.start("hasty", saga_id="1"), 5))
        assert (record.status, record.reason) == (SagaStatus.COMPENSATED, "timeout")
        assert (await found(manager, "1/send/parcel")).status is SagaStatus.FAILED


async def test_a_part_that_cannot_be_undone_holds_its_saga_for_an_operator(stores: Any) -> None:
    """Once the part is put right, the saga can be retried and is undone to the end."""
    world = World()
    world.broken.update({"thank", "unpack"})
    async with manager_of(stores, world) as manager:
        record = await found(manager, await manager.start("order", saga_id="1"))
        assert record.status is SagaStatus.COMPENSATION_FAILED
        assert record.error is not None
        assert "1/send/parcel" in record.error
        world.broken.clear()
        assert (await manager.retry("1/send/parcel")).status is SagaStatus.COMPENSATED
        assert (await manager.retry("1")).status is SagaStatus.COMPENSATED
    assert world.done[-3:] == ["unpack", "recall", "refund"]


async def test_several_parts_in_one_step_are_told_apart_by_their_keys(stores: Any) -> None:
    """One after the other; if the last fails, those before it are undone, though the step itself never ended."""

    class Big(SagaBase):
        name = "big"

        @saga_step
        async def send(self, ctx: SagaContext) -> None:
            await ctx.run_saga("parcel", {"order": "x"}, key="a")
            await ctx.run_saga("parcel", {"order": "y"}, key="b")
            raise KeyError("too big")

    world = World()
    async with manager_of(stores, world, Big) as manager:
        record = await found(manager, await manager.start("big", saga_id="1"))
        assert record.status is SagaStatus.COMPENSATED
        for key in "ab":
            assert (await found(manager, f"1/send/parcel:{key}")).status is SagaStatus.COMPENSATED
    assert world.done == ["pack", "label", "pack", "label", "unpack", "unpack"]


async def test_parts_run_in_whichever_process_owns_them(tmp_path: Path) -> None:
    """Parent and part may belong to different ones."""
    path = str(tmp_path / "events.db")
    world = World()
    async with SqliteEventStore(path) as first, SqliteEventStore(path) as second:
        async with (
            SqlSagaStore(first) as one,
            SqlSagaStore(second) as two,
            first.checkpoint_store() as leases,
            second.checkpoint_store() as others,
        ):
            managers = [manager_of((first, one), world), manager_of((second, two), world)]
            async with (
                SagaSharing(managers[0], leases, partitions=8, poll_seconds=0.02),
                SagaSharing(managers[1], others, partitions=8, poll_seconds=0.02),
            ):
                ids = [str(number) for number in range(8)]
                await asyncio.gather(*(asyncio.wait_for(managers[0].start("order", saga_id=id), 20) for id in ids))
            for saga_id in ids:
                assert (await found(managers[0], saga_id)).status is SagaStatus.COMPLETED
    assert len(world.done) == 4 * 8
