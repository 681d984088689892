"""A process that sells things, sums them up and runs a saga per order; started, killed and started again by a test."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Sequence
from typing import Any

from lexigram.events.config import ProjectionConfig, SagaConfig
from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.registry import event_type
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.sagas.base import SagaBase, saga_step
from lexigram.events.sagas.context import SagaContext
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore


@event_type("shop.order_placed")
class OrderPlaced(DomainEvent):
    order: int
    item: str


@event_type("shop.did")
class Did(DomainEvent):
    order: int
    what: str


class Sales(DurableProjection):
    """Orders per item, in batches."""

    name = "sales"
    handles = (OrderPlaced,)
    schema = ("CREATE TABLE IF NOT EXISTS sales (item TEXT PRIMARY KEY, count INTEGER NOT NULL)",)

    def project_batch(self, connection: sqlite3.Connection, events: Sequence[OrderPlaced]) -> None:
        connection.executemany(
            "INSERT INTO sales VALUES (?, 1) ON CONFLICT (item) DO UPDATE SET count = count + 1",
            [(event.item,) for event in events],
        )


class Deeds(DurableProjection):
    """What the sagas did, statement by statement."""

    name = "deeds"
    handles = (Did,)
    schema = ("CREATE TABLE IF NOT EXISTS deeds (what TEXT PRIMARY KEY, count INTEGER NOT NULL)",)

    async def handle_event(self, event: Did) -> None:
        await self.db.execute(
            "INSERT INTO deeds VALUES ($1, 1) ON CONFLICT (what) DO UPDATE SET count = count + 1", event.what
        )


class Fulfil(SagaBase):
    """Reserve, charge, ship; every third order cannot be shipped and is undone."""

    name = "fulfil"
    start_events = (OrderPlaced,)

    def correlation_key(self, event: OrderPlaced) -> str:
        return str(event.order)

    async def did(self, ctx: SagaContext, what: str) -> None:
        order = ctx.data["order"]
        await ctx.services.store.append(f"saga-{order}", [Did(order=order, what=what)])

    async def release(self, ctx: SagaContext) -> None:
        await self.did(ctx, "released")

    async def refund(self, ctx: SagaContext) -> None:
        await self.did(ctx, "refunded")

    @saga_step(compensation=release)
    async def reserve(self, ctx: SagaContext) -> None:
        await self.did(ctx, "reserved")

    @saga_step(compensation=refund)
    async def charge(self, ctx: SagaContext) -> None:
        await self.did(ctx, "charged")

    @saga_step
    async def ship(self, ctx: SagaContext) -> None:
        if ctx.data["order"] % 3 == 0:
            raise KeyError("no truck")
        await self.did(ctx, "shipped")


async def place_orders(store: SqliteEventStore, orders: int) -> None:
    async def place(order: int) -> None:
        try:
            await store.append(f"order-{order}", [OrderPlaced(order=order, item=f"item-{order % 7}")], 0)
        except ConcurrencyError:
            return  # placed before the last crash

    for start in range(0, orders, 8):
        await asyncio.gather(*(place(order) for order in range(start, min(start + 8, orders))))


async def main(path: str, orders: int) -> None:
    async with SqliteEventStore(path) as store:
        sagas = SqlSagaStore(store)
        await sagas.initialize()
        services: dict[str, Any] = {"store": store}
        manager = SagaManager(sagas, event_store=store, services=services, config=SagaConfig(retry_delay_seconds=0.0))
        manager.register(Fulfil)
        await manager.resume(wait=False)
        projections = ProjectionManager(store, config=ProjectionConfig(batch_size=16))
        for projection in (Sales(), Deeds(), manager.follower()):
            projections.register(projection)
        async with projections:
            print("started", flush=True)
            await place_orders(store, orders)
            await projections.wait_for("sagas", await store.head())
            await manager.drain()
            for name in ("sales", "deeds"):
                await projections.wait_for(name, await store.head())
        await sagas.close()
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
