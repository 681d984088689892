"""Sagas that events start and continue."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.config import SagaConfig
from lexigram.events.exceptions import EventValidationError, SagaError
from lexigram.events.messages.command import Command
from lexigram.events.messages.event import DomainEvent
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.sagas.base import SagaBase, saga_step
from lexigram.events.sagas.context import SagaContext
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.sagas.types import SagaStatus
from lexigram.events.stores.sqlite.event_store import SqliteEventStore

QUICK = SagaConfig(retry_delay_seconds=0.0, max_retries_per_step=0)


class OrderPlaced(DomainEvent):
    order: str


class PaymentReceived(DomainEvent):
    order: str
    amount: int


class Shipped(DomainEvent):
    order: str


class AskForPayment(Command[None]):
    order: str


class Ship(Command[None]):
    order: str


class Process(SagaBase):
    """A process manager: reacts to events only."""

    name = "process"
    start_events = (OrderPlaced,)
    continue_events = (PaymentReceived, Shipped)

    def correlation_key(self, event: Any) -> str | None:
        return str(event.order)

    async def handle(self, event: Any) -> list[Any]:
        data = self.context.data
        if isinstance(event, OrderPlaced):
            return [AskForPayment(order=event.order)]
        if isinstance(event, PaymentReceived):
            data["paid"] = data.get("paid", 0) + event.amount
            return [Ship(order=event.order)]
        self.complete()
        return []


class Bus:
    """Notes commands; refuses what it is told to."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.failing = False

    async def dispatch(self, command: Any) -> None:
        if self.failing:
            raise RuntimeError("bus down")
        self.sent.append(command)


async def test_events_start_continue_and_complete_a_saga() -> None:
    """Commands are dispatched per event handled; an event of an unknown key is ignored."""
    bus = Bus()
    manager = SagaManager(command_bus=bus, config=QUICK)
    manager.register(Process)
    await manager.process(PaymentReceived(order="unknown", amount=1))
    await manager.process(OrderPlaced(order="1"))
    await manager.process(PaymentReceived(order="1", amount=5))
    record = await manager.get("process:1")
    assert record is not None
    assert (record.status, record.data) == (SagaStatus.RUNNING, {"order": "1", "paid": 5})
    assert record.correlation_key == "1"
    await manager.process(Shipped(order="1"))
    record = await manager.get("process:1")
    assert record is not None
    assert record.status is SagaStatus.COMPLETED
    assert [type(command).__name__ for command in bus.sent] == ["AskForPayment", "Ship"]
    assert await manager.get("process:unknown") is None


async def test_an_event_handed_in_twice_has_one_effect() -> None:
    """Also the starting one, also after completion."""
    bus = Bus()
    manager = SagaManager(command_bus=bus, config=QUICK)
    manager.register(Process)
    placed, paid = OrderPlaced(order="1"), PaymentReceived(order="1", amount=5)
    for event in (placed, placed, paid, paid, Shipped(order="1"), paid, placed):
        await manager.process(event)
    record = await manager.get("process:1")
    assert record is not None
    assert record.data["paid"] == 5
    assert len(bus.sent) == 2


async def test_a_command_that_fails_for_good_ends_the_saga_and_can_be_sent_again() -> None:
    """What the event meant is kept, the command too; the operator's retry sends it, and it is sent once."""
    bus = Bus()
    manager = SagaManager(command_bus=bus, config=QUICK)
    manager.register(Process)
    await manager.process(OrderPlaced(order="1"))
    paid = PaymentReceived(order="1", amount=5)
    bus.failing = True
    await manager.process(paid)
    record = await manager.get("process:1")
    assert record is not None
    assert (record.status, record.error) == (SagaStatus.FAILED, "Ship: RuntimeError: bus down")
    assert record.data["paid"] == 5
    bus.failing = False
    record = await manager.retry("process:1")
    assert record.status is SagaStatus.RUNNING
    assert record.error is None
    await manager.process(paid)
    assert [type(command).__name__ for command in bus.sent] == ["AskForPayment", "Ship"]


async def test_commands_without_a_bus_are_an_error() -> None:
    """The message says what to pass."""
    manager = SagaManager(config=QUICK)
    manager.register(Process)
    with pytest.raises(SagaError, match="command_bus"):
        await manager.process(OrderPlaced(order="1"))


@pytest.mark.parametrize("returned", [AskForPayment(order="1"), {"order": "1"}, "ship", 5])
async def test_what_is_no_list_of_commands_is_refused(returned: Any) -> None:
    """The message names the saga and what it returned; nothing is stored."""

    class Odd(Process):
        name = "odd"

        async def handle(self, event: Any) -> Any:
            return returned

    manager = SagaManager(config=QUICK, command_bus=Bus())
    manager.register(Odd)
    with pytest.raises(
        EventValidationError, match=f"'odd' must return a list of commands, not {type(returned).__name__}"
    ):
        await manager.process(OrderPlaced(order="1"))
    assert await manager.list() == []


class Steps(SagaBase):
    """Started by an event, then runs steps that append to the log."""

    name = "steps"
    start_events = (OrderPlaced,)

    def correlation_key(self, event: OrderPlaced) -> str:
        return event.order

    async def undo(self, ctx: SagaContext) -> None:
        await ctx.services.store.append(f"order-{ctx.data['order']}", [Shipped(order="undone")])

    @saga_step(compensation="undo")
    async def ship(self, ctx: SagaContext) -> None:
        await ctx.services.store.append(f"order-{ctx.data['order']}", [Shipped(order=ctx.data["order"])])
        if ctx.data["order"] == "fails in the step":
            raise KeyError("after the append")

    @saga_step
    async def finish(self, ctx: SagaContext) -> None:
        if ctx.data["order"] == "fails later":
            raise KeyError("later")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteEventStore]:
    async with SqliteEventStore(str(tmp_path / "events.db")) as opened:
        yield opened


async def test_what_a_step_appends_commits_with_the_saga(store: SqliteEventStore) -> None:
    """A failed step's events are not there; a finished and undone step's are, with those that undo it."""
    sagas = SqlSagaStore(store)
    manager = SagaManager(sagas, event_store=store, services={"store": store}, config=QUICK)
    manager.register(Steps)
    expected = {
        "works": (SagaStatus.COMPLETED, ["works"]),
        "fails in the step": (SagaStatus.FAILED, []),
        "fails later": (SagaStatus.COMPENSATED, ["fails later", "undone"]),
    }
    for order, (status, shipped) in expected.items():
        await manager.process(OrderPlaced(order=order))
        record = await manager.get(f"steps:{order}")
        assert record is not None
        assert record.status is status
        assert [event.order for event in await store.read(f"order-{order}")] == shipped
    await sagas.close()


async def test_a_first_event_that_fails_leaves_the_saga_store_usable(store: SqliteEventStore) -> None:
    """Its table was made in the transaction that was rolled back."""
    broken = [True]

    class Fails(Process):
        async def handle(self, event: Any) -> list[Any]:
            if broken:
                raise ValueError("not yet")
            return []

    manager = SagaManager(SqlSagaStore(store), event_store=store, config=QUICK)
    manager.register(Fails)
    for _ in range(2):
        with pytest.raises(ValueError, match="not yet"):
            await manager.process(OrderPlaced(order="1"))
        with pytest.raises(ValueError, match="not yet"):
            async with store.unit_of_work():
                await manager.process(OrderPlaced(order="2"))
    broken.clear()
    await manager.process(OrderPlaced(order="1"))
    assert len(await manager.list()) == 1
    await manager.store.close()


async def test_the_follower_starts_each_saga_once_across_restarts(store: SqliteEventStore) -> None:
    """Saga and checkpoint commit together, so a log that is read again starts nothing again."""
    sagas = SqlSagaStore(store)
    for number in range(5):
        await store.append("orders", [OrderPlaced(order=str(number))])
    for _ in range(2):
        manager = SagaManager(sagas, event_store=store, services={"store": store}, config=QUICK)
        manager.register(Steps)
        await manager.resume()
        projections = ProjectionManager(store)
        projections.register(manager.follower())
        async with projections:
            await projections.wait_for("sagas", await store.head(), timeout=5)
            await manager.drain()
    await projections.rebuild("sagas")
    await projections.stop()
    await manager.drain()
    records = await manager.list("steps")
    assert [record.status for record in records] == [SagaStatus.COMPLETED] * 5
    for number in range(5):
        assert len(await store.read(f"order-{number}")) == 1
    await sagas.close()


async def test_sagas_in_another_database_repeat_a_step_rather_than_lose_it(
    store: SqliteEventStore, tmp_path: Path
) -> None:
    """The events are committed before the state: if they cannot be, the step is tried again and happens once."""
    sagas = SqlSagaStore(str(tmp_path / "sagas.db"))
    await sagas.initialize()
    calls: list[int] = []

    class Racing(SagaBase):
        @saga_step(max_retries=2, retry_delay=0.0)
        async def act(self, ctx: SagaContext) -> None:
            calls.append(1)
            await store.append("contested", [Shipped(order="mine")], len(calls) - 1)
            if len(calls) == 1:
                others.append(asyncio.create_task(rival(), context=contextvars.Context()))
                await asyncio.wait(others)

    async def rival() -> None:
        await store.append("contested", [Shipped(order="theirs")], 0)

    others: list[Any] = []
    manager = SagaManager(sagas, event_store=store, config=QUICK)
    manager.register(Racing)
    record = await manager.get(await manager.start("Racing"))
    assert record is not None
    assert record.status is SagaStatus.COMPLETED
    assert [event.order for event in await store.read("contested")] == ["theirs", "mine"]
    await sagas.close()
