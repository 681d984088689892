"""spec/architecture.md: a projection and a saga."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from lexigram.events import (
    DomainEvent,
    InMemoryEventStore,
    ProjectionManager,
    ProjectionProtocol,
    SagaBase,
    SagaContext,
    SagaManager,
    SagaStatus,
    SagaStepResult,
    saga_step,
)
from tests.spec_examples.shop import OrderCreated, Recorder


async def test_projection() -> None:
    """Section "Projections": a class with `handle_event` that fills a table."""

    class OrderSummaryProjection(ProjectionProtocol):
        def __init__(self, db: Any) -> None:
            self.db = db

        async def handle_event(self, event: DomainEvent) -> None:
            if isinstance(event, OrderCreated):
                await self.db.execute(
                    "INSERT INTO order_summary (id, customer, total) VALUES ($1, $2, $3)",
                    event.order_id,
                    event.customer_id,
                    0,
                )

    db, store = Recorder(), InMemoryEventStore()
    projections = ProjectionManager(store)
    projections.register(OrderSummaryProjection(db))
    await store.append("o1", [OrderCreated(order_id="o1")])
    async with projections:
        (status,) = projections.list_status()
        async with asyncio.timeout(10):
            await projections.wait_for(status["name"], await store.head(), timeout=10)
    ((name, arguments, _),) = db.calls
    assert (name, arguments[1:]) == ("execute", ("o1", "cust-123", 0))


async def test_saga() -> None:
    """Section "Sagas": a step with a compensation function, data and services in the context."""
    undone: list[str] = []

    async def compensate_reserve_inventory(self: Any, ctx: SagaContext) -> SagaStepResult:
        undone.append(ctx.data["order_id"])
        return SagaStepResult.success()

    class OrderFulfillmentSaga(SagaBase):
        @saga_step(compensation=compensate_reserve_inventory)
        async def reserve_inventory(self, ctx: SagaContext) -> SagaStepResult:
            result = await ctx.services.inventory.reserve(ctx.data["order_id"])
            return SagaStepResult.success(data={"reservation_id": result.id})

    class FailingSaga(OrderFulfillmentSaga):
        @saga_step()
        async def charge(self, ctx: SagaContext) -> SagaStepResult:
            return SagaStepResult.fail("card declined")

    inventory = Recorder(SimpleNamespace(id="r1"))
    manager = SagaManager(services={"inventory": inventory})
    manager.register(OrderFulfillmentSaga)
    manager.register(FailingSaga)
    saga_id = await manager.start("OrderFulfillmentSaga", {"order_id": "o1"})
    record = await manager.get(saga_id)
    assert record is not None
    assert record.status == SagaStatus.COMPLETED
    assert record.steps["reserve_inventory"].output == {"reservation_id": "r1"}
    assert inventory.calls == [("reserve", ("o1",), {})]
    failed = await manager.get(await manager.start("FailingSaga", {"order_id": "o2"}))
    assert failed is not None
    assert failed.status == SagaStatus.COMPENSATED
    assert undone == ["o2"]
