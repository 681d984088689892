"""The way from the outbox over the event bus to handlers, and its dead letters, interrupted at every await."""

from __future__ import annotations

import asyncio
from itertools import groupby
from typing import Any

from lexigram.contracts.core.result import Ok
from lexigram.events import EventBusConfig, EventBusImpl, OutboxPublisher
from lexigram.events.buses.dead_letter import DeadLetterEntry, DeadLetterFilter
from lexigram.events.buses.dead_letter_operations import DeadLetterOperations
from lexigram.events.stores.inbox import Inbox
from tests.faults.projection_worker import Moved
from tests.faults.trials import LEASE_SECONDS, Did, DurableTrial, Parts


class Handled(DurableTrial):
    """Two handlers, each once per event by an inbox; one event is refused by one of them until that is repaired."""

    each = 3
    bad = ("a", 1)

    async def begin(self, parts: Parts) -> None:
        async with parts.store.outbox():
            for number in range(self.each):
                for key in ("a", "b"):
                    await parts.store.append(key, [Moved(account=key, amount=number, aggregate_id=key)])

    def bus(self, parts: Parts, *, repaired: bool = False) -> EventBusImpl:
        """Return a bus with both handlers."""
        config = EventBusConfig(max_handler_retries=1, retry_delay_seconds=0.001)
        bus = EventBusImpl(config=config, dead_letters=parts.letters)

        async def handle(name: str, event: Moved) -> None:
            async def effect() -> None:
                await parts.store.append(f"{name}:{event.account}", [Did(what=str(event.amount))])

            await Inbox(name, parts.store, parts.marks).once(event.event_id, effect)

        async def books(event: Moved) -> None:
            await asyncio.sleep(0)
            if (event.account, event.amount) == self.bad and not repaired:
                raise ValueError("not in the books")
            await handle("books", event)

        async def mail(event: Moved) -> None:
            await handle("mail", event)

        bus.subscribe(Moved, books)
        bus.subscribe(Moved, mail)
        return bus

    async def deliver(self, parts: Parts, bus: EventBusImpl) -> None:
        """Relay until nothing waits."""
        relay = OutboxPublisher(parts.store, bus, batch_size=4, lease_seconds=LEASE_SECONDS, backoff_seconds=0.1)
        async with parts.store.outbox() as box:
            while (stats := await box.stats()).waiting or stats.set_aside:
                await relay.publish_pending()
                await asyncio.sleep(0.1)
        await bus.close()

    async def work(self, parts: Parts) -> None:
        await self.deliver(parts, self.bus(parts))

    async def recover(self) -> None:
        """Deliver what is left, repair the handler, and replay the dead letters."""
        async with self.durable.open() as parts:
            bus = self.bus(parts, repaired=True)
            wanted = DeadLetterFilter(replayed=False)
            while await parts.letters.count(wanted):
                await parts.letters.replay_all(bus, wanted)
            await self.deliver(parts, bus)

    async def verify(self, parts: Parts) -> None:
        for stream in ("books:a", "books:b", "mail:a", "mail:b"):
            effects = [event.what for event in await parts.store.read(stream)]
            assert effects == [str(number) for number in range(self.each)], (stream, effects)
        assert not await parts.letters.count(DeadLetterFilter(replayed=False))


class Replayed(DurableTrial):
    """A job replays dead letters in pages, three aggregates at a time; what is repeated is repeated in order."""

    keys = ("a", "b", "c")
    each = 4

    async def begin(self, parts: Parts) -> None:
        for number in range(self.each):
            for key in self.keys:
                event = Moved(account=key, amount=number, aggregate_id=key)
                await parts.letters.save(DeadLetterEntry.of(event, "handler", ValueError("then"), attempts=1))

    async def work(self, parts: Parts) -> None:
        class Bus:
            async def redeliver(self, event: Any, handler_name: str) -> Any:
                await asyncio.sleep(0)
                await parts.store.append(f"effects:{event.account}", [Did(what=str(event.amount))])
                return Ok(None)

        operations = DeadLetterOperations(parts.letters, Bus(), parts.checkpoints)
        while not (await operations.replay("job", page_size=5, limit=5, concurrency=3)).finished:
            pass

    async def verify(self, parts: Parts) -> None:
        for key in self.keys:
            effects = [int(event.what) for event in await parts.store.read(f"effects:{key}")]
            assert [number for number, _ in groupby(effects)] == list(range(self.each)), (key, effects)
            assert len(effects) <= self.each + 2, f"{key}: more than what was under way is repeated: {effects}"
        assert not await parts.letters.count(DeadLetterFilter(replayed=False))
