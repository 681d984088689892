"""The outbox in a real application: captured and delivered where a publisher is bound, visible in health."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lexigram import Application
from lexigram.di.module import Module, module
from lexigram.di.provider import Provider
from lexigram.events import DomainEvent, EventsConfig, EventsModule, EventsProvider
from lexigram.events.buses.dead_letter_operations import DeadLetterOperations
from lexigram.events.repository.time_travel import TimeTravel
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.outbox import AbstractOutboxStore, OutboxPublisherProtocol
from lexigram.events.testing.unreliable_broker import UnreliableBroker

pytestmark = pytest.mark.usefixtures("own_handlers")


class ParcelPosted(DomainEvent):
    """An event of these tests."""

    number: int


class BrokerProvider(Provider):
    """Binds the broker that `broker` names."""

    name = "broker"
    broker = UnreliableBroker(0, 0)

    async def register(self, container: Any) -> None:
        """Bind it."""
        container.singleton(OutboxPublisherProtocol, self.broker)

    async def boot(self, container: Any) -> None:
        """Nothing to open."""


@module(providers=[BrokerProvider], exports=[OutboxPublisherProtocol])
class BrokerModule(Module):
    """A broker as an application would bind it."""


def config(path: Path, **outbox: Any) -> EventsConfig:
    """Return a configuration on SQLite."""
    return EventsConfig(
        event_store_backend="sqlite",
        sqlite={"database": str(path / "events.db")},
        outbox={"poll_interval": 600, **outbox},
    )


async def test_appends_reach_the_bound_publisher(tmp_path: Path) -> None:
    """What is appended is delivered without polling, the rest after a restart; health shows the relay."""
    broker = BrokerProvider.broker = UnreliableBroker(0, 0)
    modules = [EventsModule.configure(config(tmp_path)), BrokerModule]
    async with Application.boot(modules=modules) as app:
        store = await app.container.resolve(AbstractEventStore)
        await store.append("parcel-1", [ParcelPosted(number=1)])
        async with asyncio.timeout(30):
            while not broker.received:
                await asyncio.sleep(0.01)
        provider = next(p for p in app.providers if isinstance(p, EventsProvider))
        health = await provider.health_check()
        assert (health.details or {})["outbox"]["details"]["waiting"] == 0
        operations = await app.container.resolve(DeadLetterOperations)
        assert await operations.groups() == []
        graph = await (await app.container.resolve(TimeTravel)).causation_graph("nothing")
        assert graph.nodes == ()
    assert [message.number for _, _, message in broker.received] == [1]


async def test_without_a_publisher_nothing_is_captured(tmp_path: Path) -> None:
    """No publisher, or `outbox.enabled` off: no table and no rows."""
    async with Application.boot(modules=[EventsModule.configure(config(tmp_path))]) as app:
        store = await app.container.resolve(AbstractEventStore)
        await store.append("parcel-1", [ParcelPosted(number=1)])
        assert await store.engine.fetch_one("SELECT 1 FROM sqlite_master WHERE name = 'event_outbox'") is None
        assert isinstance(await app.container.resolve(AbstractOutboxStore), AbstractOutboxStore)
    modules = [EventsModule.configure(config(tmp_path, enabled=False)), BrokerModule]
    async with Application.boot(modules=modules) as app:
        store = await app.container.resolve(AbstractEventStore)
        assert await store.engine.fetch_one("SELECT 1 FROM sqlite_master WHERE name = 'event_outbox'") is None


async def test_what_is_set_aside_is_among_the_applications_dead_letters() -> None:
    """Operators see it there, in memory too, and give it back to the relay."""
    broker = BrokerProvider.broker = UnreliableBroker(1, 0)
    async with Application.boot(
        modules=[EventsModule.stub(EventsConfig(outbox={"poll_interval": 0.05})), BrokerModule]
    ) as app:
        store = await app.container.resolve(AbstractEventStore)
        operations = await app.container.resolve(DeadLetterOperations)
        event = ParcelPosted(number=1)
        await store.append("parcel-1", [event])
        async with asyncio.timeout(30):
            while not await operations.groups():
                await asyncio.sleep(0.02)
            (group,) = await operations.groups()
            broker._failure_rate = 0
            assert group.sample is not None
            assert await operations.retry(group.sample.entry_id)
            while await operations.groups():
                await asyncio.sleep(0.02)
    assert str(event.event_id) in {entry_id for _, entry_id, _ in broker.received}
