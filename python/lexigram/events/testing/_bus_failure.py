"""Contract of the event bus: failing handlers, dead letters, back-pressure, closing."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

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
    """What happens when handlers fail, are slow, or the bus is closed."""

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
