"""Contract of the event bus: failing handlers and dead letters."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from lexigram.contracts.core.result import Err, Ok
from lexigram.events.buses.dead_letter import DeadLetterStore
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.exceptions import EventError, EventHandlerError
from lexigram.events.messages.event import Event
from lexigram.events.testing.samples import ItemAdded, ItemRemoved, added


def letters(bus: EventBusImpl) -> DeadLetterStore:
    """Return the dead letters of a bus that has some."""
    assert bus.dead_letters is not None
    return bus.dead_letters


class FailureContract:
    """What happens when handlers fail or are slow."""

    async def make_bus(self, **settings: Any) -> EventBusImpl:
        """Return a new bus with these settings of `EventBusConfig`."""
        raise AssertionError("EventBusContract overrides it")

    async def test_a_failing_handler_does_not_affect_others(self, bus: EventBusImpl) -> None:
        """Its error is recorded with its cause, publish is Ok."""
        seen: list[str] = []

        @bus.handler(ItemAdded, priority=1)
        async def broken(event: Any) -> None:
            raise LookupError("no stock")

        @bus.handler(ItemAdded)
        async def fine(event: Any) -> None:
            seen.append(event.sku)

        assert (await bus.publish(added("1", "2"))).is_ok()
        await bus.flush()
        assert seen == ["1", "2"]
        assert len(bus.dispatch_errors) == 2
        error = bus.dispatch_errors[0]
        assert isinstance(error, EventHandlerError)
        assert isinstance(error.__cause__, LookupError)
        assert "broken" in error.handler
        bus.clear_dispatch_errors()
        assert not bus.dispatch_errors

    async def test_a_handler_that_returns_err_has_failed(self, bus: EventBusImpl) -> None:
        """It is retried and ends among the dead letters like one that raises."""
        calls: list[Any] = []

        @bus.handler(ItemAdded)
        async def refusing(event: Any) -> Any:
            calls.append(event)
            await asyncio.sleep(0)
            return Err(EventError("refused"))

        @bus.handler(ItemAdded)
        async def content(event: Any) -> Any:
            return Ok(None)

        await bus.publish(added("1"))
        await bus.flush()
        assert len(calls) == 4
        (entry,) = await letters(bus).list_entries()
        assert entry.error_type == "EventError"
        assert entry.attempts == 4

    async def test_an_event_that_cannot_be_stored_holds_up_no_other_dead_letter(self, bus: EventBusImpl) -> None:
        """Its entry is there too, in its place in its lane, with what can be shown of it."""

        @bus.handler(Event)
        async def broken(event: Any) -> None:
            raise ValueError("boom")

        aggregate = uuid4()
        await bus.publish(Event(tool=object(), name="a", aggregate_id=aggregate))
        await bus.publish([Event(name="b"), Event(name="c", aggregate_id=aggregate)])
        await bus.flush()
        entries = {entry.event_data["name"]: entry for entry in await letters(bus).list_entries()}
        assert set(entries) == {"a", "b", "c"}
        assert "object object" in entries["a"].event_data["tool"]
        assert (entries["a"].error, entries["a"].lane) == ("boom", entries["c"].lane)
        assert entries["c"].waiting
        assert (await bus.close()).drained

    async def test_a_failing_handler_is_retried(self, bus: EventBusImpl) -> None:
        """As often as configured; success in between ends it."""
        calls: list[int] = []

        @bus.handler(ItemAdded)
        async def flaky(event: Any) -> None:
            calls.append(len(calls))
            if len(calls) % 2:
                await asyncio.sleep(0)
            if len(calls) < 4:
                raise ConnectionError("try again")

        await bus.publish(added("1"))
        await bus.flush()
        assert len(calls) == 4
        assert not bus.dispatch_errors
        assert await letters(bus).get_count() == 0

    async def test_retries_can_be_switched_off(self) -> None:
        """One attempt, then the dead letters; without dead letters the error is all there is."""
        for dead_letter in (True, False):
            bus = await self.make_bus(retry_failed_handlers=False, enable_dead_letter=dead_letter)
            calls: list[Any] = []

            @bus.handler(ItemAdded)
            async def broken(event: Any, calls: list[Any] = calls) -> None:
                calls.append(event)
                raise ValueError("no")

            await bus.publish(added("1"))
            await bus.flush()
            assert len(calls) == 1
            assert len(bus.dispatch_errors) == 1
            assert (bus.dead_letters is not None) == dead_letter
            await bus.close()

    async def test_a_slow_handler_times_out(self) -> None:
        """Only one that suspends can; the error says so."""
        bus = await self.make_bus(handler_timeout_seconds=0.02, max_handler_retries=0)
        cancelled: list[bool] = []

        @bus.handler(ItemAdded)
        async def slow(event: Any) -> None:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        await bus.publish(added("1"))
        async with asyncio.timeout(5):
            await bus.flush()
        assert cancelled == [True]
        (error,) = bus.dispatch_errors
        assert isinstance(error.__cause__, TimeoutError)
        await bus.close()

    async def test_a_handler_that_is_cancelled_from_inside_has_failed(self, bus: EventBusImpl) -> None:
        """The bus goes on."""
        seen: list[str] = []

        @bus.handler(ItemAdded)
        async def awkward(event: Any) -> None:
            if event.sku == "1":
                await asyncio.sleep(0)
                raise asyncio.CancelledError
            if event.sku == "2":
                raise asyncio.CancelledError
            seen.append(event.sku)

        await bus.publish(added("1", "2", "3"))
        async with asyncio.timeout(5):
            await bus.flush()
        assert seen == ["3"]
        assert len(bus.dispatch_errors) == 2

    async def test_later_events_of_the_lane_are_parked_in_order(self, bus: EventBusImpl) -> None:
        """Other handlers, other aggregates and events without aggregate are not; replay brings them in order."""
        poor, rich = uuid4(), uuid4()
        broken, seen, other = True, [], []

        @bus.handler(ItemAdded)
        @bus.handler(ItemRemoved)
        async def mail(event: Any) -> None:
            if broken and (event.aggregate_id == poor or event.aggregate_id is None) and event.sku == "1":
                raise ValueError("no mail server")
            seen.append(event.sku)

        bus.subscribe_all(lambda event: other.append(event.sku))
        await bus.publish([ItemAdded(sku="1", aggregate_id=poor), ItemRemoved(sku="2", aggregate_id=poor)])
        await bus.publish([ItemAdded(sku="3", aggregate_id=rich), ItemAdded(sku="4"), ItemAdded(sku="1")])
        await bus.publish([ItemAdded(sku="5"), ItemAdded(sku="6", aggregate_id=str(poor))])
        await bus.flush()
        assert sorted(seen) == ["3", "4", "5"]
        assert sorted(other) == ["1", "1", "2", "3", "4", "5", "6"]
        lane = await letters(bus).list_entries(aggregate_id=str(poor))
        assert [(entry.waiting, entry.attempts) for entry in lane] == [(False, 4), (True, 0), (True, 0)]
        assert await letters(bus).get_count() == 4
        broken = False
        seen.clear()
        assert await letters(bus).replay(lane[0].entry_id, bus) is True
        assert seen == ["1", "2", "6"]
        await bus.publish(ItemAdded(sku="7", aggregate_id=poor))
        await bus.flush()
        assert seen == ["1", "2", "6", "7"]
        assert len(other) == 8, "replay reached another handler"

    async def test_a_new_bus_respects_what_is_parked(self, bus: EventBusImpl) -> None:
        """A restart does not let an event overtake a dead letter."""
        aggregate = uuid4()
        broken, seen = True, []

        async def mail(event: Any) -> None:
            if broken:
                raise ValueError("no mail server")
            seen.append(event.sku)

        bus.subscribe(ItemAdded, mail)
        await bus.publish(ItemAdded(sku="1", aggregate_id=aggregate))
        await bus.close()
        broken = False
        store = letters(bus)
        second = await self.make_bus(dead_letters=store)
        second.subscribe(ItemAdded, mail)
        await second.publish([ItemAdded(sku="2", aggregate_id=aggregate), ItemAdded(sku="3")])
        await second.flush()
        assert seen == ["3"]
        report = await store.replay_all(second)
        assert report.replayed == 2
        await second.publish(ItemAdded(sku="4", aggregate_id=aggregate))
        await second.close()
        assert seen == ["3", "1", "2", "4"]

    async def test_without_continue_on_error_the_rest_is_not_called(self) -> None:
        """In sequential mode that is everything with lower priority."""
        bus = await self.make_bus(parallel_dispatch=False, continue_on_error=False, max_handler_retries=0)
        seen: list[str] = []

        @bus.handler(ItemAdded, priority=1)
        async def broken(event: Any) -> None:
            raise ValueError("no")

        bus.subscribe(ItemAdded, lambda event: seen.append(event.sku))
        await bus.publish(added("1"))
        await bus.flush()
        assert seen == []
        assert len(bus.dispatch_errors) == 1
        await bus.close()
