"""The contract suite of outboxes. Subclass and write `make_store`."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from lexigram.contracts.data.outbox import OutboxStoreProtocol
from lexigram.contracts.events.outbox import OutboxBackendProtocol, OutboxEntryProtocol, OutboxRelayProtocol
from lexigram.events.buses.command import CommandBusImpl
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.messages.command import Command
from lexigram.events.messages.registry import default_registry
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.outbox import AbstractOutboxStore, OutboxEventStore, OutboxPublisher, OutboxRelay
from lexigram.events.testing.samples import ItemAdded
from lexigram.events.testing.unreliable_broker import UnreliableBroker


class SuiteShipOrder(Command[None]):
    """A command that goes through the outbox."""

    order: str


class SuiteCancelSeat(Command[None]):
    """A command with a field that is called like an event's id."""

    event_id: UUID


default_registry.register(SuiteShipOrder)
default_registry.register(SuiteCancelSeat)


async def eventually(is_done: Callable[[], bool], timeout_seconds: float = 60.0) -> None:
    """Return once `is_done()` is true; raise `TimeoutError` if that takes too long."""
    async with asyncio.timeout(timeout_seconds):
        while not is_done():  # noqa: ASYNC110 - what is waited for happens elsewhere
            await asyncio.sleep(0.02)


class OutboxContract:
    """Everything that an outbox promises."""

    pytestmark = pytest.mark.asyncio
    lease_seconds = 0.2
    """What expires in these tests does so after this time; more for a server that is slow."""

    @abstractmethod
    async def make_store(self) -> AbstractEventStore:
        """Return a new, empty event store."""

    @pytest_asyncio.fixture
    async def outbox(self) -> AsyncIterator[AbstractOutboxStore]:
        """The outbox of a new, empty store, connected; both are closed after the test."""
        async with await self.make_store() as store, store.outbox() as box:
            yield box

    def relay(self, outbox: AbstractOutboxStore, broker: UnreliableBroker, **options: Any) -> OutboxRelay:
        """Return a relay that retries without long pauses."""
        options = {"backoff_seconds": 0.01, "poll_interval": 0.05, "lease_seconds": 5.0, "batch_size": 50, **options}
        return OutboxRelay(outbox, broker, **options)

    async def test_the_frameworks_contracts_hold(self, outbox: AbstractOutboxStore) -> None:
        """Outbox, entries and relay are what the framework's protocols ask for."""
        await outbox.store.append("order-1", [ItemAdded(sku="a")])
        (entry,) = await outbox.get_pending(limit=10)
        assert isinstance(outbox, OutboxBackendProtocol)
        assert isinstance(outbox, OutboxStoreProtocol)
        assert isinstance(entry, OutboxEntryProtocol)
        assert entry.status == "pending"
        assert isinstance(self.relay(outbox, UnreliableBroker()), OutboxRelayProtocol)

    async def test_rows_carry_the_full_event(self, outbox: AbstractOutboxStore) -> None:
        """What waits is the event itself, with class, id, version, position and key."""
        event = ItemAdded(sku="a", quantity=3)
        await outbox.store.append("order-1", [event])
        (entry,) = await outbox.get_pending(limit=10)
        assert entry.event == event
        assert type(entry.event) is ItemAdded
        assert (entry.entry_id, entry.key) == (str(event.event_id), "order-1")
        assert (entry.event.version, entry.event.sequence_number) == (1, event.sequence_number)
        assert '"a"' in entry.payload
        assert entry.event_type == event.event_type
        (row,) = await outbox.fetch_pending(10)
        assert row["event"] == event
        assert row["event_id"] == entry.entry_id

    async def test_what_is_put_arrives_as_what_it_is(self, outbox: AbstractOutboxStore) -> None:
        """An event as an event, a command as a command, under the key it was given."""
        event, command = ItemAdded(sku="a"), SuiteShipOrder(order="order-1")
        await outbox.put(event, key="order-1")
        await outbox.put(command, key="order-2")
        await outbox.store_event(ItemAdded(sku="b", aggregate_id="order-3"))
        waiting = {str(entry.key): entry for entry in await outbox.get_pending()}
        assert sorted(waiting) == ["order-1", "order-2", "order-3"]
        assert [type(waiting[key].message) for key in sorted(waiting)] == [ItemAdded, SuiteShipOrder, ItemAdded]
        assert waiting["order-1"].event == event
        assert waiting["order-1"].event_type == event.event_type
        assert waiting["order-1"].entry_id == str(event.event_id)
        events, commands, seen = EventBusImpl(), CommandBusImpl(), list[Any]()

        async def take(message: Any) -> None:
            seen.append(message)

        events.subscribe(ItemAdded, take)
        commands.register(SuiteShipOrder, take)
        publisher = OutboxPublisher(outbox.store, events, command_bus=commands)
        assert await publisher.process_pending() == (3, 0)
        assert sorted(type(message).__name__ for message in seen) == [
            "SuiteItemAdded",
            "SuiteItemAdded",
            "SuiteShipOrder",
        ]
        await events.close()

    async def test_a_field_event_id_does_not_make_a_command_an_event(self, outbox: AbstractOutboxStore) -> None:
        """Commands are told apart by their own id, whatever fields they have."""
        concert = uuid4()
        commands = [SuiteCancelSeat(event_id=concert), SuiteCancelSeat(event_id=concert)]
        for command in commands:
            await outbox.put(command)
        waiting = {entry.entry_id: entry.message for entry in await outbox.get_pending()}
        assert waiting == {str(command.id): command for command in commands}

    async def test_what_was_appended_before_is_not_delivered(self, outbox: AbstractOutboxStore) -> None:
        """A new outbox begins at the head of the log."""
        await outbox.store.append("order-1", [ItemAdded(sku="a")])
        async with outbox.store.outbox("later_outbox") as later:
            await outbox.store.append("order-1", [ItemAdded(sku="b")])
            assert [entry.event.sku for entry in await later.get_pending()] == ["b"]

    async def test_a_first_use_that_is_rolled_back_is_made_good(self, outbox: AbstractOutboxStore) -> None:
        """An outbox that was made in a unit of work goes away with it; the next use makes it again."""
        store, broker = outbox.store, UnreliableBroker(0, 0)
        fresh = store.outbox("fresh_outbox")
        with pytest.raises(RuntimeError, match="undo"):
            async with store.unit_of_work():
                await fresh.put(SuiteShipOrder(order="order-1"), key="order-1")
                await fresh.put(SuiteShipOrder(order="order-2"), key="order-2")
                raise RuntimeError("undo")
        assert (await fresh.stats()).waiting == 0
        await store.append("order-1", [ItemAdded(sku="a")])
        assert await self.relay(fresh, broker).process_pending() == (1, 0)
        await fresh.close()

    async def test_a_failed_append_leaves_no_row(self, outbox: AbstractOutboxStore) -> None:
        """Rows and events are stored together or not at all."""
        store = outbox.store
        with pytest.raises(Exception, match="version"):
            await store.append("order-1", [ItemAdded(sku="a")], 7)
        with pytest.raises(RuntimeError, match="undo"):
            async with store.unit_of_work():
                await store.append("order-1", [ItemAdded(sku="a")], 0)
                await outbox.put(SuiteShipOrder(order="order-1"), key="order-1")
                raise RuntimeError("undo")
        assert await outbox.get_pending() == []
        assert (await outbox.stats()).waiting == 0

    async def test_commands_are_stored_with_the_unit_of_work(self, outbox: AbstractOutboxStore) -> None:
        """A command put in a unit of work is delivered once that is committed, as it was."""
        command, broker = SuiteShipOrder(order="order-1"), UnreliableBroker(0, 0)
        async with outbox.store.unit_of_work():
            await outbox.store.append("order-1", [ItemAdded(sku="a")], 0)
            await outbox.put(command, key="order-1")
        assert await self.relay(outbox, broker).process_pending() == (2, 0)
        assert {str(command.id)} < {entry_id for _, entry_id, _ in broker.received}
        assert command in [message for _, _, message in broker.received]

    async def test_delivery_keeps_order_per_key(self, outbox: AbstractOutboxStore) -> None:
        """A broker that fails one time in three, loses confirmations and duplicates gets every event, in order."""
        await self._append(outbox, streams=5, events=12)
        broker = UnreliableBroker(seed=1)
        relay = self.relay(outbox, broker)
        await self._until(relay, lambda: len({i for _, i, _ in broker.received}) == 60)
        assert self._numbers(broker) == {f"order-{n}": list(range(12)) for n in range(5)}

    async def test_two_relays_share_the_work(self, outbox: AbstractOutboxStore) -> None:
        """Two relays at once deliver every event, in order per key, duplicates only with the same id."""
        broker = UnreliableBroker(seed=2)
        relays = [self.relay(outbox, broker) for _ in range(2)]
        for relay in relays:
            await relay.start()
        await self._append(outbox, streams=6, events=10)
        await eventually(lambda: len({i for _, i, _ in broker.received}) == 60)
        for relay in relays:
            await relay.stop()
        assert self._numbers(broker) == {f"order-{n}": list(range(10)) for n in range(6)}

    async def test_a_claimed_lane_is_out_of_reach(self, outbox: AbstractOutboxStore) -> None:
        """Nobody else gets the entries until the lease expires; then they do, and the first owner settles nothing."""
        await outbox.store.append("order-1", [ItemAdded(sku="a")])
        first = await outbox.claim("one", 10, self.lease_seconds)
        assert len(first.entries) == 1
        assert (await outbox.claim("two", 10, 30.0)).entries == []
        await asyncio.sleep(self.lease_seconds * 2)
        second = await outbox.claim("two", 10, 30.0)
        assert [e.entry_id for e in second.entries] == [e.entry_id for e in first.entries]
        await outbox.settle(first, first.entries)
        assert len(await outbox.get_pending()) == 1
        await outbox.settle(second, second.entries)
        assert await outbox.get_pending() == []

    async def test_what_was_not_confirmed_is_claimed_again(self, outbox: AbstractOutboxStore) -> None:
        """A batch that is settled without its entries gives them to the next claim at once."""
        await self._append(outbox, streams=1, events=3)
        batch = await outbox.claim("one", 10, 30.0)
        await outbox.settle(batch, batch.entries[:1])
        again = await outbox.claim("two", 10, 30.0)
        assert [entry.event.quantity for entry in again.entries] == [1, 2]
        await outbox.settle(again, again.entries)
        assert (await outbox.claim("two", 10, 30.0)).entries == []

    async def test_poison_parks_its_key_only(self, outbox: AbstractOutboxStore) -> None:
        """A poisonous event is set aside with the later ones of its key; other keys go on; healed, all come in order."""
        await self._append(outbox, streams=2, events=4)
        poison = next(entry for entry in await outbox.get_pending() if entry.key == "order-1")
        broker = UnreliableBroker(0, 0, refuses={poison.entry_id})
        relay = self.relay(outbox, broker, max_attempts=5)
        await relay.process_pending()
        await self._append(outbox, streams=2, events=2, first=4)
        await relay.process_pending()
        assert self._numbers(broker) == {"order-0": list(range(6))}
        stats = await outbox.stats()
        assert (stats.waiting, stats.set_aside) == (0, 6)
        health = await relay.health_check()
        assert (health.details or {})["set_aside"] == 6
        broker.refuses.clear()
        await self._until(self.relay(outbox, broker), lambda: len(broker.received) == 12)
        assert self._numbers(broker)["order-1"] == list(range(6))
        assert (await outbox.stats()).set_aside == 0

    async def test_entries_can_be_marked_by_hand(self, outbox: AbstractOutboxStore) -> None:
        """The contract's marks take an entry out of what waits, or set it aside with its error."""
        await self._append(outbox, streams=3, events=1)
        one, two, _ = await outbox.get_pending()
        await outbox.mark_published(one.entry_id)
        await outbox.mark_failed(two.entry_id, "no such customer")
        assert len(await outbox.get_pending()) == 1
        assert (await outbox.stats()).set_aside == 1

    async def test_deleting_a_stream_loses_nothing(self, outbox: AbstractOutboxStore) -> None:
        """What was not delivered yet is delivered all the same, also where an `OutboxEventStore` is in between."""
        await self._append(outbox, streams=2, events=2)
        async with OutboxEventStore(outbox.store, outbox.name) as store:
            assert await store.delete_stream("order-0") == await outbox.store.delete_stream("order-1") == 2
            broker = UnreliableBroker(0, 0)
            await self._until(self.relay(outbox, broker), lambda: len(broker.received) == 4)
        assert self._numbers(broker) == {"order-0": [0, 1], "order-1": [0, 1]}

    async def test_compaction_loses_nothing(self, outbox: AbstractOutboxStore) -> None:
        """Events that are removed before their delivery are still delivered, in order with the later ones."""
        await self._append(outbox, streams=1, events=3)
        assert await outbox.store.compact("order-0", 2) == 2
        await self._append(outbox, streams=1, events=1, first=3)
        broker = UnreliableBroker(0, 0)
        await self._until(self.relay(outbox, broker), lambda: len(broker.received) == 4)
        assert self._numbers(broker) == {"order-0": [0, 1, 2, 3]}
        assert (await outbox.stats()).set_aside == 0

    async def test_lag_is_visible(self, outbox: AbstractOutboxStore) -> None:
        """Number and age of what waits can be read at any time."""
        assert (await outbox.stats()).oldest_age_seconds == 0
        await self._append(outbox, streams=2, events=3)
        await asyncio.sleep(0.02)
        stats = await outbox.stats()
        assert stats.waiting == 6
        assert stats.oldest_age_seconds > 0

    async def _append(self, outbox: AbstractOutboxStore, streams: int, events: int, first: int = 0) -> None:
        for number in range(first, first + events):
            for stream in range(streams):
                await outbox.store.append(f"order-{stream}", [ItemAdded(sku="a", quantity=number)])

    async def _until(self, relay: OutboxRelay, is_done: Any) -> None:
        async with asyncio.timeout(60):
            while not is_done():
                await relay.process_pending()
                await asyncio.sleep(0.01)

    def _numbers(self, broker: UnreliableBroker) -> dict[str | None, list[int]]:
        return {key: [message.quantity for message in messages] for key, messages in broker.first_deliveries().items()}


class RowOutboxContract(OutboxContract):
    """What an outbox with rows of its own promises beyond that."""

    async def test_delivered_rows_are_kept_for_a_while(self, outbox: AbstractOutboxStore) -> None:
        """With retention they stay visible as published, are not delivered again, and go by `purge`."""
        outbox.retention_seconds = 3600
        await self._append(outbox, streams=1, events=2)
        (first, _) = await outbox.get_pending()
        relay = self.relay(outbox, UnreliableBroker(0, 0))
        assert await relay.process_pending() == (2, 0)
        assert await relay.process_pending() == (0, 0)
        kept = await outbox._find(first.entry_id)
        assert kept is not None
        assert kept.status == "published"
        assert kept.published_at is not None
        assert await outbox.purge() == 0
        outbox.retention_seconds = 0.01
        await asyncio.sleep(0.05)
        assert await outbox.purge() == 2
        assert await outbox._find(first.entry_id) is None

    async def test_dropping_it_ends_capturing(self, outbox: Any) -> None:
        """After `drop` appends leave no rows; connecting again begins anew."""
        await self._append(outbox, streams=1, events=2)
        await outbox.drop()
        await outbox.store.append("order-0", [ItemAdded(sku="not captured")])
        await outbox.connect()
        assert await outbox.get_pending() == []
        await outbox.store.append("order-0", [ItemAdded(sku="captured")])
        assert [entry.event.sku for entry in await outbox.get_pending()] == ["captured"]
