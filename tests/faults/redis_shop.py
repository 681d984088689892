"""A process that places orders and runs a saga for each, all on one Redis; killed and started again by a test."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection

from lexigram.events.config import SagaConfig
from lexigram.events.messages.event import DomainEvent
from lexigram.events.projections.base import InlineProjection
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.sagas.base import SagaBase, saga_step
from lexigram.events.sagas.context import SagaContext
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.redis import RedisSagaStore
from lexigram.events.stores.redis.event_store import RedisEventStore

SAGAS = 12


class Performed(DomainEvent):
    """A step of a saga was carried out."""

    what: str


class Deliver(SagaBase):
    """Reserve, charge, ship; every third one cannot be shipped and is undone."""

    name = "deliver"

    async def did(self, ctx: SagaContext, what: str) -> None:
        await ctx.services.store.append(f"saga-{ctx.data['order']}", [Performed(what=what)])

    async def refund(self, ctx: SagaContext) -> None:
        await self.did(ctx, "refunded")

    @saga_step
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


def seen(positions: list[int]) -> InlineProjection:
    """Return a projection that notes what it was given, to see where it goes on after a restart."""
    projection = InlineProjection("seen")

    @projection.handle(Performed)
    async def note(event: Performed) -> None:
        positions.append(event.sequence_number or 0)

    return projection


async def run(url: str, namespace: str, orders: int) -> list[int]:
    """Run every saga to its end, whatever an earlier run has left; return what the projection was given."""
    async with RedisEventStore(url, namespace) as store:
        sagas, positions = RedisSagaStore(store), list[int]()
        config = SagaConfig(retry_delay_seconds=0.0)
        manager = SagaManager(sagas, event_store=store, services={"store": store}, config=config)
        manager.register(Deliver)
        projections = ProjectionManager(store)
        projections.register(seen(positions))
        async with projections:
            await manager.resume(wait=False)
            for first in range(0, orders, SAGAS):
                batch = range(first, min(first + SAGAS, orders))
                await asyncio.gather(*(manager.start("deliver", {"order": n}, saga_id=f"saga-{n}") for n in batch))
            await manager.drain()
            await projections.wait_for("seen", await store.head())
        await sagas.close()
    return positions


def main(url: str, namespace: str, orders: int, started: Connection) -> None:
    """Run until killed."""
    started.send_bytes(b"started")
    asyncio.run(run(url, namespace, orders))
