"""`OutboxEventStore` and `OutboxPublisher` together with repositories and buses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import AggregateRoot, CommandBusImpl, DomainEvent, EventBusImpl, EventSourcingRepository
from lexigram.events.exceptions import EventStoreConnectionError, EventValidationError
from lexigram.events.messages.command import Command
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.outbox import (
    AbstractOutboxPublisher,
    OutboxEntry,
    OutboxEventStore,
    OutboxPublisher,
    OutboxRelay,
)
from lexigram.events.stores.sqlite import SqliteEventStore
from lexigram.events.testing._store_life import PriceSet, _evolution
from lexigram.events.testing.clock import FrozenClock
from lexigram.events.testing.outbox import eventually
from lexigram.events.testing.unreliable_broker import UnreliableBroker

pytestmark = pytest.mark.asyncio


class BoxPacked(DomainEvent):
    """An event of these tests."""

    items: int


class ShipBox(Command[None]):
    """A command of these tests."""

    box: str


class Box(AggregateRoot):
    """An aggregate of these tests."""

    items = 0

    def pack(self, items: int) -> None:
        """Put items in."""
        self._apply(BoxPacked(items=items))

    def _handle_box_packed(self, event: BoxPacked) -> None:
        self.items += event.items


class Broken:
    """A bus that is away."""

    async def publish(self, events: Any) -> None:
        """Fail."""
        raise ConnectionError("away")


@pytest.fixture(params=["memory", "sqlite"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractEventStore:
    """An event store without outbox."""
    return InMemoryEventStore() if request.param == "memory" else SqliteEventStore(str(tmp_path / "events.db"))


async def test_saved_events_reach_the_bus_once(inner: AbstractEventStore) -> None:
    """What a repository saves is published by the publisher, and then no more."""
    bus, seen = EventBusImpl(), list[BoxPacked]()

    async def handle(event: BoxPacked) -> None:
        seen.append(event)

    bus.subscribe(BoxPacked, handle)
    async with OutboxEventStore(inner) as store:
        repository = EventSourcingRepository(Box, store, outbox=store.outbox())
        box = Box("box-1")
        box.pack(2)
        box.pack(3)
        await repository.save(box)
        assert box.get_pending_events() == []
        publisher = OutboxPublisher(store, bus)
        assert await publisher.publish_pending() == 2
        assert await publisher.publish_pending() == 0
        assert [event.items for event in seen] == [2, 3]
        loaded = await repository.get("box-1")
        assert loaded is not None
        assert loaded.items == 5


async def test_events_stay_in_the_outbox_while_publishing_fails(inner: AbstractEventStore) -> None:
    """The save succeeds, the events wait, and a working publisher delivers them."""
    async with OutboxEventStore(inner) as store:
        box = Box("box-1")
        box.pack(2)
        await EventSourcingRepository(Box, store, event_bus=Broken()).save(box)  # type: ignore[arg-type]
        assert box.get_pending_events() == []
        with pytest.raises(ConnectionError):
            await OutboxPublisher(store, Broken()).publish_pending()
        assert [entry.event.items for entry in await store.outbox().get_pending()] == [2]
        assert await OutboxPublisher(store, EventBusImpl()).publish_pending() == 1


async def test_commands_go_to_the_command_bus(inner: AbstractEventStore) -> None:
    """A command put in the outbox is dispatched; one that fails is set aside with its error."""
    commands, seen = CommandBusImpl(), list[str]()

    async def ship(command: ShipBox) -> None:
        if command.box == "bad":
            raise ValueError("no such box")
        seen.append(command.box)

    commands.register(ShipBox, ship)
    async with OutboxEventStore(inner) as store:
        box = store.outbox()
        await box.put(ShipBox(box="a"))
        await box.put(ShipBox(box="bad"))
        await box.put(ShipBox(box="b"))
        assert await OutboxPublisher(store, EventBusImpl(), command_bus=commands).publish_pending() == 2
        assert sorted(seen) == ["a", "b"]
        (letter,) = await box.dead_letters.list_entries(handler_name=box.handler_name)
        assert "no such box" in letter.error


async def test_a_started_publisher_is_woken_by_appends(inner: AbstractEventStore) -> None:
    """Delivery does not wait for the poll interval."""
    import asyncio

    bus, arrived = EventBusImpl(), asyncio.Event()

    async def handle(event: BoxPacked) -> None:
        arrived.set()

    bus.subscribe(BoxPacked, handle)
    async with OutboxEventStore(inner) as store:
        publisher = OutboxPublisher(store, bus, poll_interval=600)
        await publisher.start()
        await publisher.start()
        await asyncio.sleep(0.05)
        await store.append("box-1", [BoxPacked(items=1)])
        await asyncio.wait_for(arrived.wait(), 30)
        await publisher.stop()
        await publisher.stop()


async def test_the_wrapped_store_works_like_the_inner_one(inner: AbstractEventStore) -> None:
    """Reading, compaction, transactions and closing go to the inner store."""
    store = OutboxEventStore(inner, outbox_table="box_outbox")
    async with store:
        await store.append("box-1", [BoxPacked(items=1), BoxPacked(items=2)])
        assert [event.items for event in await store.read("box-1", 2)] == [2]
        assert [event.items async for event in store.stream_all()] == [1, 2]
        assert await store.compact("box-1", 1) == 1
        assert await store.head() == 2
        assert await store.get_stream_version("box-1") == 2
    if not isinstance(inner, InMemoryEventStore):
        with pytest.raises(EventStoreConnectionError):
            await store.append("box-1", [BoxPacked(items=1)])


async def test_a_damaged_row_is_set_aside(tmp_path: Path) -> None:
    """A row that cannot be decoded parks its key only; its bytes are kept."""
    broker = UnreliableBroker(0, 0)
    async with OutboxEventStore(SqliteEventStore(str(tmp_path / "events.db"))) as store:
        for number in (1, 2):
            for key in ("a", "b"):
                await store.append(key, [BoxPacked(items=number)])
        broken = '{"items": [1], "$meta": {}}'
        await store.engine.execute("UPDATE event_outbox SET payload = ? WHERE position = 1", (broken,))
        relay = OutboxRelay(store.outbox(), broker)
        assert await relay.process_pending() == (2, 0)
        assert [key for key, _, _ in broker.received] == ["b", "b"]
        letters = await store.outbox().dead_letters.list_entries()
        assert [letter.waiting for letter in letters] == [False, True]


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_older_events_are_converted_before_delivery(backend: str, tmp_path: Path) -> None:
    """What is delivered has the latest schema, as what is read from the log has."""
    evolution = await _evolution()
    sqlite = backend == "sqlite"
    inner = SqliteEventStore(str(tmp_path / "events.db"), schema_evolution=evolution) if sqlite else None
    broker = UnreliableBroker(0, 0)
    async with OutboxEventStore(inner or InMemoryEventStore(evolution)) as store:
        await store.append("price-1", [PriceSet(amount=1)])
        assert await OutboxRelay(store.outbox(), broker).publish_pending() == 1
    ((_, _, event),) = broker.received
    assert (event.currency, event.schema_version) == ("EUR", 2)


async def test_an_outage_gives_nothing_up() -> None:
    """While the broker is away entries stay where they are; then all arrive."""
    broker, away = UnreliableBroker(0, 0), [True]
    send = broker.send

    async def unreachable(entry: Any) -> None:
        if away:
            raise ConnectionError("away")
        await send(entry)

    broker.send = unreachable  # type: ignore[method-assign]
    async with OutboxEventStore(InMemoryEventStore()) as store:
        await store.append("a", [BoxPacked(items=1)])
        relay = OutboxRelay(store.outbox(), broker, max_attempts=1)
        for _ in range(5):
            with pytest.raises(ConnectionError):
                await relay.process_pending()
        assert (await store.outbox().stats()).set_aside == 0
        away.clear()
        assert await relay.publish_pending() == 1


async def test_a_clock_set_back_does_not_keep_what_is_set_aside(frozen_clock: FrozenClock) -> None:
    """The pause before the next attempt ends; it lasted two hours longer."""
    broker, broken = UnreliableBroker(0, 0), [True]
    send = broker.send

    async def failing(entry: Any) -> None:
        if broken:
            raise ValueError("cannot be sent")
        await send(entry)

    broker.send = failing  # type: ignore[method-assign]
    async with OutboxEventStore(InMemoryEventStore()) as store:
        await store.append("a", [BoxPacked(items=1)])
        relay = OutboxRelay(store.outbox(), broker, backoff_seconds=0.001)
        await relay.process_pending()
        assert (await store.outbox().stats()).set_aside == 1
        broken.clear()
        frozen_clock.advance(-7200)
        async with asyncio.timeout(10):
            while not await relay.publish_pending():
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("trouble", ["hangs", "is cancelled", "has no connection"])
async def test_a_send_that_does_not_end_properly_holds_up_its_own_key_only(trouble: str) -> None:
    """One that never answers has failed after a while; one that was cancelled from within, at once."""
    sent = []

    class Troubled(AbstractOutboxPublisher):
        async def send(self, entry: OutboxEntry) -> None:
            if entry.key == "bad" and trouble == "hangs":
                await asyncio.sleep(3600)
            if entry.key == "bad" and trouble == "has no connection":
                raise ConnectionError("no route to this queue")
            if entry.key == "bad":
                raise asyncio.CancelledError
            sent.append(entry.key)

    async with OutboxEventStore(InMemoryEventStore()) as store:
        for key in ("bad", "good", "bad"):
            await store.append(key, [BoxPacked(items=1)])
        relay = OutboxRelay(store.outbox(), Troubled(send_timeout_seconds=0.02), poll_interval=0.02)
        await relay.start()
        await store.append("better", [BoxPacked(items=1)])
        await eventually(lambda: sorted(sent) == ["better", "good"])
        while (await store.outbox().stats()).waiting:
            await asyncio.sleep(0.01)
        assert (await store.outbox().stats()).set_aside == 2
        await relay.stop()
        first, _ = await store.outbox().dead_letters.list_entries()
        assert first.attempts == (4 if trouble == "is cancelled" else 0)


async def test_a_publisher_that_is_cancelled_from_within_is_tried_again() -> None:
    """The relay's task goes on."""
    cancelled, delivered = [True], []

    class Bus:
        async def publish(self, events: list[Any]) -> None:
            if cancelled:
                cancelled.clear()
                raise asyncio.CancelledError
            delivered.extend(events)

    async with OutboxEventStore(InMemoryEventStore()) as store:
        publisher = OutboxPublisher(store, Bus())
        await publisher.start()
        await store.append("a", [BoxPacked(items=1)])
        await eventually(lambda: len(delivered) == 1)
        await publisher.stop()


async def test_bad_settings_are_refused() -> None:
    """Each names its field."""
    store = InMemoryEventStore()
    for name, value in (("batch_size", 0), ("poll_interval", 0), ("max_attempts", 0), ("lease_seconds", -1)):
        with pytest.raises(EventValidationError, match=name):
            OutboxRelay(store.outbox(), Broken(), **{name: value})  # type: ignore[arg-type]
    with pytest.raises(EventValidationError, match="outbox_table"):
        store.outbox("no; drop")
    with pytest.raises(EventValidationError, match="no id"):
        await store.outbox().put("text")
