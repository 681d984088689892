"""A process that places orders, sums them up and runs a saga for each, on one PostgreSQL database; killed by a test."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from lexigram.events.config import SagaConfig
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.postgres import PostgresSagaStore
from lexigram.events.stores.postgres import PostgresEventStore
from tests.faults.postgres_writer import config
from tests.flow.shop_worker import Did, Fulfil, OrderPlaced, place_orders


class Sold(DurableProjection):
    """Orders per item, in batches."""

    name = "sold"
    handles = (OrderPlaced,)
    schema = ("CREATE TABLE IF NOT EXISTS shop_sold (item text PRIMARY KEY, n bigint NOT NULL)",)

    async def project_batch(self, connection: Any, events: Sequence[OrderPlaced]) -> None:
        sql = "INSERT INTO shop_sold AS s VALUES ($1, 1) ON CONFLICT (item) DO UPDATE SET n = s.n + 1"
        await connection.executemany(sql, [(event.item,) for event in events])


class Done(DurableProjection):
    """What the sagas did, statement by statement."""

    name = "done"
    handles = (Did,)
    schema = ("CREATE TABLE IF NOT EXISTS shop_done (what text PRIMARY KEY, n bigint NOT NULL)",)

    async def handle_event(self, event: Did) -> None:
        sql = "INSERT INTO shop_done AS d VALUES ($1, 1) ON CONFLICT (what) DO UPDATE SET n = d.n + 1"
        await self.db.execute(sql, event.what)


async def run(url: str, schema: str, orders: int) -> None:
    """Go on wherever an earlier run was killed, to the end."""
    async with PostgresEventStore(config(url, schema)) as store:
        sagas = PostgresSagaStore(store)
        await sagas.initialize()
        services: dict[str, Any] = {"store": store}
        manager = SagaManager(sagas, event_store=store, services=services, config=SagaConfig(retry_delay_seconds=0.0))
        manager.register(Fulfil)
        await manager.resume(wait=False)
        projections = ProjectionManager(store)
        for projection in (Sold(), Done(), manager.follower()):
            projections.register(projection)
        async with projections:
            await place_orders(store, orders)  # type: ignore[arg-type]
            await projections.wait_for("sagas", await store.head())
            await manager.drain()
            for name in ("sold", "done"):
                await projections.wait_for(name, await store.head())
        await sagas.close()


def main(url: str, schema: str, orders: int, started: Connection) -> None:
    """Run until killed."""
    started.send_bytes(b"started")
    asyncio.run(run(url, schema, orders))
