"""The contract suite of inboxes. Subclass and write `make_stores`."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lexigram.events.exceptions import ConcurrencyError, EventValidationError
from lexigram.events.stores.base import AbstractEventStore, AbstractIdempotencyStore
from lexigram.events.stores.inbox import Inbox
from lexigram.events.stores.outbox import OutboxRelay
from lexigram.events.testing.samples import ItemAdded, ItemRemoved
from lexigram.events.testing.unreliable_broker import UnreliableBroker


class InboxContract:
    """A redelivered message has one effect."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make_stores(self) -> tuple[AbstractEventStore, AbstractIdempotencyStore]:
        """Return a new, empty event store and the idempotency store beside it."""

    @pytest_asyncio.fixture
    async def stores(self) -> AsyncIterator[tuple[AbstractEventStore, AbstractIdempotencyStore]]:
        """New, empty stores, closed after the test."""
        events, marks = await self.make_stores()
        async with events, marks:
            yield events, marks

    async def test_a_message_has_one_effect(self, stores: tuple[AbstractEventStore, AbstractIdempotencyStore]) -> None:
        """The second delivery does nothing; another consumer handles the message too."""
        events, marks = stores

        async def stock(event: ItemAdded) -> None:
            await events.append("stock", [ItemRemoved(sku=event.sku)])

        handle, message = Inbox("stock", events, marks).handler(stock), ItemAdded(sku="a")
        assert [await handle(message), await handle(message)] == [True, False]
        assert await events.get_stream_version("stock") == 1
        assert await Inbox("other", events, marks).handler(stock)(message)
        assert await events.get_stream_version("stock") == 2

    async def test_a_failure_leaves_nothing(self, stores: tuple[AbstractEventStore, AbstractIdempotencyStore]) -> None:
        """Effect and mark are stored together or not at all; the next delivery runs again."""
        events, marks = stores
        inbox, message = Inbox("stock", events, marks), ItemAdded(sku="a")
        fails = [True]

        async def stock(event: ItemAdded) -> None:
            await events.append("stock", [ItemRemoved(sku=event.sku)])
            if fails.pop():
                raise RuntimeError("handler failed")

        with pytest.raises(RuntimeError, match="handler failed"):
            await inbox.handler(stock)(message)
        assert await events.get_stream_version("stock") == 0
        fails.append(False)
        for _ in range(100):  # where marks are given back in the background
            try:
                assert await inbox.handler(stock)(message)
                break
            except ConcurrencyError:
                await asyncio.sleep(0.02)
        assert await events.get_stream_version("stock") == 1

    async def test_concurrent_deliveries_have_one_effect(
        self, stores: tuple[AbstractEventStore, AbstractIdempotencyStore]
    ) -> None:
        """Of deliveries at the same time one has an effect; the others are duplicates or are to be delivered again."""
        events, marks = stores
        inbox, message = Inbox("stock", events, marks), ItemAdded(sku="a")

        async def stock(event: ItemAdded) -> None:
            await asyncio.sleep(0.01)
            await events.append("stock", [ItemRemoved(sku=event.sku)])

        handle = inbox.handler(stock)
        outcomes = await asyncio.gather(*(handle(message) for _ in range(4)), return_exceptions=True)
        assert outcomes.count(True) == 1
        assert all(outcome in (True, False) or isinstance(outcome, ConcurrencyError) for outcome in outcomes)
        assert await events.get_stream_version("stock") == 1

    async def test_bad_settings_are_refused(self, stores: tuple[AbstractEventStore, AbstractIdempotencyStore]) -> None:
        """When the inbox is made, not at the first message."""
        for name, options in (("consumer_id", {"consumer_id": ""}), ("expires_in", {"expires_in": 0})):
            with pytest.raises(EventValidationError, match=name):
                Inbox(**{"consumer_id": "stock", "store": stores[0], "marks": stores[1], **options})  # type: ignore[arg-type]

    async def test_an_unreliable_broker_has_one_effect_per_event(
        self, stores: tuple[AbstractEventStore, AbstractIdempotencyStore]
    ) -> None:
        """Through outbox, a broker that duplicates, and inbox, every event has exactly one effect, in order."""
        events, marks = stores
        broker, seen = UnreliableBroker(duplicate_rate=0.4, seed=5), list[int]()

        async def note(event: ItemAdded) -> None:
            seen.append(event.quantity)

        async with events.outbox() as outbox:
            for number in range(20):
                await events.append("order-1", [ItemAdded(sku="a", quantity=number)])
            relay = OutboxRelay(outbox, broker, backoff_seconds=0.01)
            async with asyncio.timeout(60):
                while (await outbox.stats()).waiting or (await outbox.stats()).set_aside:
                    await relay.process_pending()
                    await asyncio.sleep(0.01)
        handle = Inbox("note", events, marks).handler(note)
        for _, _, message in broker.received:
            await handle(message)
        assert len(broker.received) > 20
        assert seen == list(range(20))
