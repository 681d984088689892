"""Contract of the event bus: back-pressure, concurrency, closing."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events.buses.event import EventBusImpl
from lexigram.events.exceptions import EventError
from lexigram.events.testing._bus_failure import letters
from lexigram.events.testing.samples import ItemAdded, ItemRemoved, added


class PressureContract:
    """How much waits and runs at a time, and what closing does with it."""

    async def make_bus(self, **settings: Any) -> EventBusImpl:
        """Return a new bus with these settings of `EventBusConfig`."""
        raise AssertionError("EventBusContract overrides it")

    async def test_publishers_wait_for_room_and_nothing_is_dropped(self) -> None:
        """First come, first served; a cancelled publisher's event is not accepted."""
        bus = await self.make_bus(max_queue_per_subscriber=3)
        gate, seen = asyncio.Event(), []

        @bus.handler(ItemAdded)
        async def slow(event: Any) -> None:
            await gate.wait()
            seen.append(event.sku)

        await bus.publish(added("0", "1", "2"))
        await asyncio.sleep(0)
        publishers = [asyncio.create_task(bus.publish(added(str(number))[0])) for number in range(3, 10)]
        await asyncio.sleep(0.01)
        done = [task.done() for task in publishers]
        assert not all(done), "publishers did not wait"
        assert done == sorted(done, reverse=True), "a later publisher overtook"
        publishers[4].cancel()
        other = ItemRemoved(sku="another type is not affected")
        await asyncio.wait_for(bus.publish(other), 1)
        gate.set()
        results = await asyncio.gather(*publishers, return_exceptions=True)
        await bus.flush()
        assert seen == [str(number) for number in range(10) if number != 7]
        assert isinstance(results[4], asyncio.CancelledError)
        await bus.close()

    async def test_a_handler_may_publish_however_full_the_channel_is(self) -> None:
        """Waiting would be waiting for itself."""
        bus = await self.make_bus(max_queue_per_subscriber=1, max_concurrent_handlers=1)
        seen: list[str] = []

        @bus.handler(ItemAdded)
        async def echo(event: Any) -> None:
            await asyncio.sleep(0)
            seen.append(event.sku)
            if len(event.sku) < 4:
                await bus.publish(added(event.sku + "a", event.sku + "b"))

        await bus.publish(added("x"))
        async with asyncio.timeout(5):
            await bus.flush()
        assert len(seen) == 15
        await bus.close()

    async def test_concurrency_is_limited(self) -> None:
        """Never more handlers at once than configured."""
        bus = await self.make_bus(max_concurrent_handlers=3)
        running, most = 0, 0

        @bus.handler(ItemAdded)
        async def work(event: Any) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1

        await bus.publish([ItemAdded(sku="1", aggregate_id=uuid4()) for _ in range(30)])
        await bus.flush()
        assert most == 3
        await bus.close()

    async def test_sequential_mode_runs_one_handler_at_a_time(self) -> None:
        """Events in order, their handlers by priority."""
        bus = await self.make_bus(parallel_dispatch=False)
        seen: list[str] = []
        for name, priority in (("low", 0), ("high", 5)):

            @bus.handler(ItemAdded, priority=priority)
            async def work(event: Any, name: str = name) -> None:
                seen.append(f"{event.sku} {name}")
                await asyncio.sleep(0.001)
                seen.append(f"{event.sku} {name} done")

        await bus.publish([ItemAdded(sku=sku, aggregate_id=uuid4()) for sku in "12"])
        await bus.flush()
        expected = [f"{sku} {name}{end}" for sku in "12" for name in ("high", "low") for end in ("", " done")]
        assert seen == expected
        await bus.close()

    async def test_waiting_inside_a_handler_for_its_own_end_is_refused(self, bus: EventBusImpl) -> None:
        """flush and close would never return."""
        errors: list[Exception] = []

        @bus.handler(ItemAdded)
        async def curious(event: Any) -> None:
            for wait in (bus.flush, bus.close):
                try:
                    await wait()
                except EventError as error:
                    errors.append(error)

        await bus.publish(added("1"))
        async with asyncio.timeout(5):
            await bus.flush()
        assert len(errors) == 2

    async def test_closing_drains(self, bus: EventBusImpl) -> None:
        """What was accepted is handled, what handlers publish meanwhile too; afterwards nothing is accepted."""
        seen: list[str] = []

        @bus.handler(ItemAdded)
        async def work(event: Any) -> None:
            await asyncio.sleep(0.001)
            seen.append(event.sku)
            if event.sku == "1":
                await bus.publish(added("follow-up"))

        await bus.publish(added("1", "2"))
        report = await bus.close()
        assert report.drained
        assert sorted(seen) == ["1", "2", "follow-up"]
        with pytest.raises(EventError):
            await bus.publish(added("3"))
        assert (await bus.close()).drained
        assert not (await bus.health_check()).is_healthy()

    async def test_what_is_left_at_the_deadline_becomes_dead_letters(self, bus: EventBusImpl) -> None:
        """Reported, cancelled, and replayable by the next bus, each handler call exactly once."""
        aggregate = uuid4()
        stuck, seen, handled = True, [], asyncio.Event()

        @bus.handler(ItemAdded)
        async def mail(event: Any) -> None:
            if stuck:
                await asyncio.sleep(60)
            seen.append(("mail", event.sku))

        @bus.handler(ItemAdded)
        async def quick(event: Any) -> None:
            seen.append(("quick", event.sku))
            handled.set()

        await bus.publish([ItemAdded(sku=sku, aggregate_id=aggregate) for sku in "123"])
        async with asyncio.timeout(10):
            await handled.wait()
        report = await bus.close(0.01)
        assert [getattr(event, "sku", None) for event in report.left] == ["1", "2", "3"]
        assert report.parked == 5, "quick has handled the first event"
        stuck = False
        second = await self.make_bus(dead_letters=letters(bus))
        second.subscribe(ItemAdded, mail)
        second.subscribe(ItemAdded, quick)
        assert (await letters(bus).replay_all(second)).replayed == 5
        assert [sku for name, sku in seen if name == "mail"] == ["1", "2", "3"]
        assert [sku for name, sku in seen if name == "quick"] == ["1", "2", "3"]
        await second.close()

    async def test_waiting_publishers_fail_at_the_deadline(self) -> None:
        """They learn that their event was not accepted."""
        bus = await self.make_bus(max_queue_per_subscriber=1, max_concurrent_handlers=1)
        bus.subscribe(ItemAdded, lambda event: asyncio.sleep(60))
        await bus.publish(added("1"))
        await asyncio.sleep(0)
        await bus.publish(added("2"))
        waiting = asyncio.create_task(bus.publish(added("3")))
        await asyncio.sleep(0)
        report = await bus.close(0.01)
        assert [getattr(event, "sku", None) for event in report.left] == ["1", "2"]
        with pytest.raises(EventError):
            await waiting
