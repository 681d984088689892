"""Contract of the event bus: who gets which event, in which order, and in which context."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import pytest

from lexigram.contracts.core.result import Err
from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.contracts.events.protocols.domain import EventBusDiagnosticsProtocol, EventBusProtocol
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.exceptions import EventHandlerError, EventValidationError
from lexigram.events.messages.context import current_context
from lexigram.events.messages.event import DomainEvent
from lexigram.events.testing.samples import ForeignEvent, GiftAdded, ItemAdded, ItemRemoved, added

_colour: ContextVar[str] = ContextVar("colour", default="none")


class DeliveryContract:
    """Subscribing and delivering. `bus` is a fresh bus with default configuration."""

    async def test_the_framework_contracts_hold(self, bus: EventBusImpl) -> None:
        """At runtime, for publishing and for diagnostics."""
        assert isinstance(bus, EventBusProtocol)
        assert isinstance(bus, EventBusDiagnosticsProtocol)

    async def test_one_event_and_a_list_reach_the_handler_in_order(self, bus: EventBusImpl) -> None:
        """publish takes both and returns Ok(None)."""
        seen: list[Any] = []
        bus.subscribe(ItemAdded, seen.append)
        events = added("1", "2", "3")
        assert (await bus.publish(events[0])).unwrap() is None
        assert (await bus.publish(events[1:])).is_ok()
        assert (await bus.publish([])).is_ok()
        await bus.flush()
        assert seen == events

    async def test_every_kind_of_handler_works(self, bus: EventBusImpl) -> None:
        """Coroutine function, plain function, object, class, callable object, function returning an awaitable."""
        seen: list[str] = []

        async def coroutine(event: Any) -> None:
            seen.append("coroutine")

        def plain(event: Any) -> None:
            seen.append("plain")

        def returning(event: Any) -> Any:
            return coroutine_two(event)

        async def coroutine_two(event: Any) -> None:
            await asyncio.sleep(0)
            seen.append("returning")

        class WithHandle:
            async def handle(self, event: Any) -> None:
                seen.append(f"handle of {type(self).__name__}")

        class Built(WithHandle):
            pass

        class Callable:
            async def __call__(self, event: Any) -> None:
                seen.append("call")

        for handler in (coroutine, plain, returning, WithHandle(), Built, Callable()):
            bus.subscribe(ItemAdded, handler)
        await bus.publish(added("1"))
        await bus.flush()
        assert sorted(seen) == ["call", "coroutine", "handle of Built", "handle of WithHandle", "plain", "returning"]
        assert bus.dispatch_errors == ()

    async def test_a_class_is_built_once(self, bus: EventBusImpl) -> None:
        """Also when many events arrive at the same time."""
        built: list[Any] = []

        class Handler:
            def __init__(self) -> None:
                built.append(self)

            async def handle(self, event: Any) -> None:
                await asyncio.sleep(0)

        bus.subscribe(DomainEvent, Handler)
        assert built == []
        await bus.publish([ItemAdded(sku=str(number), aggregate_id=uuid4()) for number in range(20)])
        await bus.flush()
        assert len(built) == 1

    async def test_a_base_class_receives_its_subclasses(self, bus: EventBusImpl) -> None:
        """Up to the contract's DomainEvent, which everything is."""
        seen: dict[str, list[str]] = {"gift": [], "item": [], "ours": [], "all": [], "contract": []}
        bus.subscribe(GiftAdded, lambda event: seen["gift"].append(type(event).__name__))
        bus.subscribe(ItemAdded, lambda event: seen["item"].append(type(event).__name__))
        bus.subscribe(DomainEvent, lambda event: seen["ours"].append(type(event).__name__))
        bus.subscribe(ContractEvent, lambda event: seen["contract"].append(type(event).__name__))
        bus.subscribe_all(lambda event: seen["all"].append(type(event).__name__))
        await bus.publish([GiftAdded(sku="1"), ItemAdded(sku="2"), ItemRemoved(sku="3"), ForeignEvent(note="4")])
        await bus.flush()
        everything = [cls.__name__ for cls in (GiftAdded, ItemAdded, ItemRemoved, ForeignEvent)]
        assert seen["gift"] == everything[:1]
        assert seen["item"] == everything[:2]
        assert seen["ours"] == everything[:3]
        assert seen["contract"] == everything
        assert seen["all"] == everything

    async def test_a_handler_gets_an_event_once(self, bus: EventBusImpl) -> None:
        """However many of its subscriptions match."""
        seen: list[Any] = []
        for event_type in (ItemAdded, ItemAdded, DomainEvent):
            bus.subscribe(event_type, seen.append)
        await bus.publish(added("1"))
        await bus.flush()
        assert len(seen) == 1

    async def test_unsubscribing_tells_whether_it_was_subscribed(self, bus: EventBusImpl) -> None:
        """And the handler is not called again."""
        seen: list[Any] = []
        bus.subscribe(ItemAdded, seen.append)
        assert bus.unsubscribe(ItemRemoved, seen.append) is False
        assert bus.unsubscribe(ItemAdded, seen.append) is True
        assert bus.unsubscribe(ItemAdded, seen.append) is False
        await bus.publish(added("1"))
        await bus.flush()
        assert seen == []

    async def test_the_decorator_subscribes_and_returns_the_function(self, bus: EventBusImpl) -> None:
        """`@bus.handler(EventType)`."""
        seen: list[Any] = []

        @bus.handler(ItemAdded)
        async def note(event: ItemAdded) -> None:
            seen.append(event.sku)

        await note(ItemAdded(sku="direct"))
        await bus.publish(added("published"))
        await bus.flush()
        assert seen == ["direct", "published"]

    async def test_bad_subscriptions_are_refused_by_name(self, bus: EventBusImpl) -> None:
        """A non-class, a non-handler, a class without handle, a function nobody can fill."""
        for event_type, handler, field in (
            ("ItemAdded", print, "event_type"),
            (ItemAdded, 5, "handler"),
            (ItemAdded, DomainEvent, "handler"),
            (ItemAdded, lambda event, repository: None, "handler"),
            (ItemAdded, lambda: None, "handler"),
        ):
            with pytest.raises(EventValidationError) as caught:
                bus.subscribe(event_type, handler)  # type: ignore[arg-type]
            assert caught.value.field == field

    async def test_something_that_is_no_event_is_refused(self, bus: EventBusImpl) -> None:
        """And nothing of its list is accepted."""
        seen: list[Any] = []
        bus.subscribe_all(seen.append)
        for wrong in ("text", object(), [*added("1"), None], 5, {"sku": "1"}):
            with pytest.raises(EventValidationError):
                await bus.publish(wrong)  # type: ignore[arg-type]
        await bus.flush()
        assert seen == []

    async def test_priorities_order_the_starts(self, bus: EventBusImpl) -> None:
        """Higher first, then the order of subscription."""
        seen: list[str] = []
        for name, priority in (("c", 0), ("a", 10), ("d", -1), ("b", 10)):
            bus.subscribe(ItemAdded, lambda event, name=name: seen.append(name), priority=priority)
        await bus.publish(added("1"))
        await bus.flush()
        assert seen == ["a", "b", "c", "d"]

    async def test_events_of_one_aggregate_keep_their_order_across_types(self, bus: EventBusImpl) -> None:
        """Also when earlier ones take longer; other aggregates go on meanwhile."""
        slow, quick = uuid4(), uuid4()
        seen: list[tuple[str, str]] = []

        @bus.handler(DomainEvent)
        async def handle(event: Any) -> None:
            kind = "slow" if str(event.aggregate_id) == str(slow) else "quick"
            if kind == "slow":
                await asyncio.sleep(0.02 if isinstance(event, ItemAdded) else 0.001)
            seen.append((kind, event.sku))

        first = [ItemAdded(sku="1", aggregate_id=slow), ItemRemoved(sku="2", aggregate_id=str(slow))]
        await bus.publish([*first, ItemAdded(sku="3", aggregate_id=slow), ItemRemoved(sku="4", aggregate_id=quick)])
        await bus.flush()
        assert seen == [("quick", "4"), ("slow", "1"), ("slow", "2"), ("slow", "3")]

    async def test_handlers_of_one_event_run_at_the_same_time(self, bus: EventBusImpl) -> None:
        """Each can wait for the other."""
        one, two = asyncio.Event(), asyncio.Event()

        @bus.handler(ItemAdded)
        async def first(event: Any) -> None:
            one.set()
            await two.wait()

        @bus.handler(ItemAdded)
        async def second(event: Any) -> None:
            await one.wait()
            two.set()

        await bus.publish(added("1"))
        async with asyncio.timeout(5):
            await bus.flush()
        assert bus.dispatch_errors == ()

    async def test_the_handled_message_is_the_context(self, bus: EventBusImpl) -> None:
        """Before and after the handler suspends, for handlers side by side."""
        seen: list[Any] = []

        @bus.handler(ItemAdded)
        async def note(event: Any) -> None:
            before = current_context()
            await asyncio.sleep(0.001)
            after = current_context()
            assert before is not None
            assert after is not None
            seen.append((event.event_id, before.message_id, after.message_id))

        await bus.publish([ItemAdded(sku=str(number), aggregate_id=uuid4()) for number in range(5)])
        await bus.flush()
        assert len(seen) == 5
        assert all(event == before == after for event, before, after in seen)
        assert current_context() is None

    async def test_context_variables_do_not_leak(self, bus: EventBusImpl) -> None:
        """Neither from handler to handler, nor to the publisher, nor from it."""
        seen: list[str] = []
        for wait in (0, 0.001):

            @bus.handler(DomainEvent)
            async def paint(event: Any, wait: float = wait) -> None:
                seen.append(_colour.get())
                _colour.set("red")
                if wait:
                    await asyncio.sleep(wait)
                    assert _colour.get() == "red"

        token = _colour.set("publisher")
        await bus.publish(added("1", "2"))
        await bus.flush()
        assert _colour.get() == "publisher"
        _colour.reset(token)
        assert seen == ["none"] * 4

    async def test_a_timeout_in_a_handler_cancels_only_that_handler(self, bus: EventBusImpl) -> None:
        """Not the publisher, not another handler, not the next event."""
        seen: list[str] = []

        @bus.handler(ItemAdded)
        async def impatient(event: Any) -> None:
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(5)
            except TimeoutError:
                seen.append("timed out")

        @bus.handler(ItemAdded)
        async def patient(event: Any) -> None:
            await asyncio.sleep(0.03)
            seen.append("patient")

        await bus.publish(added("1", "2"))
        async with asyncio.timeout(5):
            await bus.flush()
        assert sorted(seen) == ["patient", "patient", "timed out", "timed out"]
        assert bus.dispatch_errors == ()

    async def test_nobody_handles_it(self, bus: EventBusImpl) -> None:
        """That is fine by default; `Err(EventHandlerError)` if it is not allowed, and nothing is accepted."""
        assert (await bus.publish(added("1"))).is_ok()
        strict = await self.make_bus(allow_no_handlers=False)
        seen: list[Any] = []
        strict.subscribe(ItemAdded, seen.append)
        result = await strict.publish([*added("1"), ItemRemoved(sku="2")])
        assert isinstance(result, Err)
        assert isinstance(result.unwrap_err(), EventHandlerError)
        assert (await strict.publish(added("2"))).is_ok()
        await strict.close()
        assert [event.sku for event in seen] == ["2"]

    async def make_bus(self, **settings: Any) -> EventBusImpl:
        """Return a new bus with these settings of `EventBusConfig`."""
        raise AssertionError("EventBusContract overrides it")
