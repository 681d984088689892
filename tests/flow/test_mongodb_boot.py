"""The module on MongoDB: choosing the backend chooses it for every store, and what is stored survives a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar
from uuid import uuid4

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from lexigram import Application
from lexigram.events import (
    AbstractEventStore,
    DeadLetterStore,
    DomainEvent,
    EventBusImpl,
    EventsConfig,
    EventsModule,
    MongoDBCheckpointStore,
    MongoDBDeadLetterStore,
    MongoDBEventStore,
    MongoDBIdempotencyStore,
    MongoDBSagaStore,
    MongoDBSnapshotStore,
    SagaBase,
    SagaContext,
    SagaManager,
    SagaStatus,
    saga_step,
)
from lexigram.events.buses.dead_letter import DeadLetterEntry

pytestmark = pytest.mark.usefixtures("own_handlers")


class Sailed(DomainEvent):
    harbour: str


class Voyage(SagaBase):
    """Waits in its second step until the next application lets it go on."""

    name = "mongo_voyage"
    may_go_on: ClassVar[bool] = False
    steps: ClassVar[list[str]] = []

    @saga_step
    async def load(self, ctx: SagaContext) -> None:
        Voyage.steps.append("load")

    @saga_step
    async def sail(self, ctx: SagaContext) -> None:
        while not Voyage.may_go_on:
            await asyncio.sleep(0.01)
        Voyage.steps.append("sail")


@pytest_asyncio.fixture
async def config(mongo_url: str) -> AsyncIterator[EventsConfig]:
    name = f"lx_{uuid4().hex}"
    yield EventsConfig(
        event_store_backend="mongodb",
        mongodb={"connection_string": mongo_url, "database_name": name, "max_pool_size": 4},
        event_bus={"shutdown_timeout_seconds": 0.05},
    )
    async with AsyncMongoClient[Any](mongo_url) as client:
        await client.drop_database(name)


async def test_every_store_is_on_mongodb_and_survives(config: EventsConfig) -> None:
    """Events, dead letters and an unfinished saga of one application are there for the next one."""
    Voyage.may_go_on = False
    Voyage.steps.clear()
    modules = [EventsModule.configure(config), EventsModule.scope(Voyage)]
    async with Application.boot(modules=modules) as app:
        for cls in (
            MongoDBEventStore,
            MongoDBSnapshotStore,
            MongoDBCheckpointStore,
            MongoDBIdempotencyStore,
            MongoDBDeadLetterStore,
            MongoDBSagaStore,
        ):
            assert isinstance(await app.container.resolve(cls), cls)
        event = Sailed(harbour="Genoa")
        await (await app.container.resolve(AbstractEventStore)).append("ship", [event], expected_version=0)
        letters = await app.container.resolve(DeadLetterStore)
        await letters.save(DeadLetterEntry.of(event, "harbour-master", ValueError("closed"), 1))
        sagas = await app.container.resolve(SagaManager)
        saga_id = await sagas.start("mongo_voyage", wait=False)
        async with asyncio.timeout(10):
            while Voyage.steps != ["load"]:
                await asyncio.sleep(0.01)
    Voyage.may_go_on = True
    async with Application.boot(modules=modules) as app:
        assert await (await app.container.resolve(AbstractEventStore)).read("ship") == [event]
        (entry,) = await (await app.container.resolve(DeadLetterStore)).list_entries()
        assert entry.event == event
        record = await (await app.container.resolve(SagaManager)).wait_for(saga_id, timeout=10)
        assert record.status is SagaStatus.COMPLETED
        await (await app.container.resolve(EventBusImpl)).flush()
    assert Voyage.steps == ["load", "sail"]
