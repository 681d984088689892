"""The event bus beyond its contract suite: middleware, hooks, tracing, event loops, interruption."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

import pytest

from lexigram.contracts.core.result import Err
from lexigram.events.buses._backlog import Backlog
from lexigram.events.buses._observe import Observer
from lexigram.events.buses._routes import Routes
from lexigram.events.buses.dead_letter import DeadLetterEntry, InMemoryDeadLetterStore
from lexigram.events.buses.event import PIPELINE, DispatchResult, EventBusImpl
from lexigram.events.config import EventBusConfig
from lexigram.events.exceptions import EventError, EventValidationError
from lexigram.events.hooks import EventHandledHook, EventPublishedHook
from lexigram.events.messages.event import DomainEvent
from lexigram.events.services.result_pattern_service import EventBusWithResultPattern
from lexigram.events.testing.samples import ItemAdded, added
from lexigram.hooks import HookRegistry


class Ordered(DomainEvent):
    """An event."""

    number: int


def quick_bus(**settings: Any) -> EventBusImpl:
    """Return a bus with short delays."""
    return EventBusImpl(config=EventBusConfig(**{"retry_delay_seconds": 0.001, **settings}))


async def test_middleware_surrounds_all_handlers_of_an_event() -> None:
    """It sees their results, may replace the event, and hands its context on to handlers that run elsewhere."""
    seen: list[Any] = []
    tenant: ContextVar[str] = ContextVar("tenant", default="none")

    class Replacing:
        async def __call__(self, event: Any, next_handler: Any) -> Any:
            tenant.set("acme")
            await asyncio.sleep(0)
            result = await next_handler(Ordered(number=event.number + 100))
            seen.append(result)
            return result

    bus = quick_bus()
    bus.use(Replacing())
    for wait in (0.001, 0.002, 0):

        @bus.handler(Ordered)
        async def handle(event: Ordered, wait: float = wait) -> str:
            if wait:
                await asyncio.sleep(wait)
            seen.append((event.number, tenant.get()))
            return f"after {wait}"

    @bus.handler(Ordered)
    async def broken(event: Ordered) -> None:
        raise ValueError("no")

    await bus.publish(Ordered(number=1))
    await bus.flush()
    assert seen[:-1] == [(101, "acme")] * 3
    result = seen[-1]
    assert isinstance(result, DispatchResult)
    assert sorted(result.handler_results) == ["after 0", "after 0.001", "after 0.002"]
    assert result.has_errors
    assert not result.success
    with pytest.raises(ValueError, match="no"):
        result.raise_if_errors()
    await bus.close()


async def test_middleware_may_swallow_an_event() -> None:
    """Then no handler sees it, and that is no failure."""
    seen: list[Any] = []

    async def filtering(event: Any, next_handler: Any) -> Any:
        return await next_handler(event) if event.number % 2 else None

    bus = EventBusImpl([filtering])
    bus.subscribe(Ordered, seen.append)
    await bus.publish([Ordered(number=number) for number in range(4)])
    await bus.close()
    assert [event.number for event in seen] == [1, 3]
    assert bus.dispatch_errors == ()


async def test_a_failing_middleware_makes_a_dead_letter_of_its_own() -> None:
    """Replaying it runs middleware and handlers; the lane is kept."""
    aggregate, broken, seen = uuid4(), True, []

    async def guard(event: Any, next_handler: Any) -> Any:
        if broken:
            raise PermissionError("closed")
        return await next_handler(event)

    bus = EventBusImpl([guard])
    bus.subscribe(Ordered, lambda event: seen.append(event.number))
    await bus.publish([Ordered(number=number, aggregate_id=aggregate) for number in range(3)])
    await bus.flush()
    assert bus.dead_letters is not None
    entries = await bus.dead_letters.list_entries()
    assert [(entry.handler_name, entry.waiting) for entry in entries] == [
        (PIPELINE, False),
        (PIPELINE, True),
        (PIPELINE, True),
    ]
    assert entries[0].error_type == "PermissionError"
    broken = False
    assert await bus.dead_letters.replay(entries[0].entry_id, bus)
    await bus.close()
    assert seen == [0, 1, 2]


async def test_middleware_with_one_worker_does_not_block_itself() -> None:
    """Handlers that suspend inside the pipeline are finished by the same worker."""
    seen: list[int] = []

    async def passing(event: Any, next_handler: Any) -> Any:
        await asyncio.sleep(0)
        return await next_handler(event)

    for settings in ({"max_concurrent_handlers": 1}, {"parallel_dispatch": False}, {"max_concurrent_handlers": 2}):
        seen.clear()
        bus = quick_bus(**settings)
        bus.use(passing)
        for number in range(3):

            @bus.handler(Ordered)
            async def handle(event: Ordered, number: int = number) -> None:
                await asyncio.sleep(0.001)
                seen.append(number)

        await bus.publish([Ordered(number=1, aggregate_id=uuid4()) for _ in range(4)])
        async with asyncio.timeout(5):
            await bus.close()
        assert sorted(seen) == [0] * 4 + [1] * 4 + [2] * 4


async def test_a_middleware_timeout_fails_only_its_event() -> None:
    """The handler is cancelled, the next event is handled."""
    seen: list[int] = []

    async def limited(event: Any, next_handler: Any) -> Any:
        async with asyncio.timeout(0.01):
            return await next_handler(event)

    bus = EventBusImpl([limited])

    @bus.handler(Ordered)
    async def handle(event: Ordered) -> None:
        if event.number == 1:
            await asyncio.sleep(5)
        seen.append(event.number)

    await bus.publish([Ordered(number=1), Ordered(number=2)])
    async with asyncio.timeout(5):
        await bus.close()
    assert seen == [2]
    assert [type(error.__cause__) for error in bus.dispatch_errors] == [TimeoutError]


async def test_hooks_are_fired_for_publishing_and_handling() -> None:
    """With payloads of the documented classes; failures fire none."""
    hooks, seen = HookRegistry("test"), []
    for name in (EventPublishedHook.name, EventHandledHook.name):
        hooks.register_action(name, lambda payload: seen.append(payload))
    bus = quick_bus(max_handler_retries=0)
    bus.set_hook_registry(hooks)

    @bus.handler(Ordered)
    async def handle(event: Ordered) -> Any:
        return Err(EventError("no")) if event.number else None

    aggregate = uuid4()
    await bus.publish([Ordered(number=0, aggregate_id=aggregate), Ordered(number=1)])
    await bus.close()
    name = f"{Ordered.__module__}.Ordered"
    assert EventPublishedHook(name, str(aggregate)) in seen
    handled = [payload for payload in seen if isinstance(payload, EventHandledHook)]
    assert [payload.event_type for payload in handled] == [name]
    assert handled[0].handler.endswith("handle")
    bus.set_hook_registry(None)


class Span:
    """A span that records what is done with it."""

    def __init__(self, tracer: Tracer, *args: Any) -> None:
        self.tracer, self.args, self.errors = tracer, args, []

    def __enter__(self) -> Span:
        self.tracer.current = self
        return self

    def __exit__(self, *args: object) -> None:
        self.tracer.current = None

    def record_exception(self, error: Exception) -> None:
        """Note the error."""
        self.errors.append(error)

    def set_status(self, status: str) -> None:
        """Note the status."""
        self.status = status


class Tracer:
    """A tracer of the framework's protocol."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.current: Span | None = None

    def start_span(self, name: str, attributes: Any = None, context: Any = None) -> Span:
        """Start one."""
        self.spans.append(Span(self, name, attributes, context))
        return self.spans[-1]

    def extract_context(self, carrier: dict[str, str]) -> Any:
        """Return the traceparent."""
        return carrier["traceparent"]


async def test_each_handler_call_is_a_span_of_the_events_trace() -> None:
    """A failure is recorded on it."""
    tracer, inside = Tracer(), []
    bus = quick_bus(max_handler_retries=0)

    @bus.handler(Ordered)
    async def handle(event: Ordered) -> None:
        inside.append(tracer.current)
        raise ValueError("no")

    bus.set_tracer(tracer)  # type: ignore[arg-type]
    await bus.publish(Ordered(number=1, metadata={"traceparent": "00-trace"}))
    await bus.close()
    (span,) = tracer.spans
    assert inside == [span]
    assert span.args[0] == "handle Ordered"
    assert span.args[1]["event.type"] == f"{Ordered.__module__}.Ordered"
    assert span.args[2] == "00-trace"
    assert [type(error) for error in span.errors] == [ValueError]
    assert span.status == "error"


def test_a_bus_serves_several_event_loops_one_after_the_other() -> None:
    """What a loop left unhandled is handled in the next one."""
    seen: list[int] = []
    bus = EventBusImpl()

    @bus.handler(Ordered)
    async def handle(event: Ordered) -> None:
        await asyncio.sleep(0.001)
        seen.append(event.number)

    async def publish_and_leave() -> None:
        await bus.publish([Ordered(number=number) for number in range(3)])
        await asyncio.sleep(0)

    async def finish() -> None:
        await bus.flush()

    asyncio.run(publish_and_leave())
    assert len(seen) < 3
    asyncio.run(finish())
    assert seen == [0, 1, 2]


def test_a_loop_that_just_disappears_leaves_nothing_behind() -> None:
    """Its tasks are never cancelled, and are collected while the bus works elsewhere."""
    seen: list[int] = []
    bus = EventBusImpl(config=EventBusConfig(max_queue_per_subscriber=2))

    @bus.handler(Ordered)
    async def handle(event: Ordered) -> None:
        await asyncio.sleep(0.001)
        seen.append(event.number)

    async def publish_and_leave() -> None:
        await bus.publish([Ordered(number=number) for number in range(2)])
        asyncio.get_running_loop().waiting = [  # type: ignore[attr-defined]
            asyncio.create_task(bus.publish(Ordered(number=9))) for _ in range(3)
        ]
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(publish_and_leave())
    loop.set_exception_handler(lambda loop, context: None)  # "Task was destroyed but it is pending" is the point here
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(bus.flush())
        del loop
        gc.collect()

    async def more() -> None:
        await bus.publish([Ordered(number=number) for number in range(2, 8)])
        await bus.flush()

    asyncio.run(asyncio.wait_for(more(), 5))
    assert [number for number in seen if number != 9] == list(range(8))
    assert not bus._tasks


async def test_a_bus_in_use_by_another_running_loop_refuses() -> None:
    """Instead of mixing two loops."""
    bus = EventBusImpl()
    bus.subscribe(Ordered, lambda event: None)
    await bus.publish(Ordered(number=1))

    def elsewhere() -> None:
        with pytest.raises(EventError, match="another running event loop"):
            asyncio.run(publish())

    async def publish() -> None:
        await bus.publish(Ordered(number=2))

    await asyncio.to_thread(elsewhere)
    await bus.close()


async def test_a_cancelled_worker_loses_nothing() -> None:
    """Whoever flushes next starts the interrupted handler again, in order."""
    bus, seen = EventBusImpl(), []

    @bus.handler(Ordered)
    async def handle(event: Ordered) -> None:
        await asyncio.sleep(0.005)
        seen.append(event.number)

    aggregate = uuid4()
    await bus.publish([Ordered(number=number, aggregate_id=aggregate) for number in range(3)])
    await asyncio.sleep(0.001)
    flushing = asyncio.create_task(bus.flush())
    await asyncio.sleep(0)
    for task in list(bus._tasks):
        task.cancel()
    async with asyncio.timeout(5):
        await flushing
    assert seen == [0, 1, 2]
    assert bus.dispatch_errors == ()


async def test_a_worker_cancelled_before_its_first_step_is_replaced() -> None:
    """flush notices."""
    bus, seen = EventBusImpl(), []
    bus.subscribe(Ordered, seen.append)
    await bus.publish(Ordered(number=1))
    assert bus._starting is not None
    bus._starting.cancel()
    async with asyncio.timeout(5):
        await bus.flush()
    assert len(seen) == 1


@pytest.mark.parametrize("wait", [False, True])
async def test_keyboard_interrupt_goes_through_and_the_event_is_kept(wait: bool) -> None:
    """Ctrl-C in a handler stops the loop, not the event."""
    bus, seen = EventBusImpl(), []

    @bus.handler(Ordered)
    async def handle(event: Ordered) -> None:
        if wait:
            await asyncio.sleep(0)
        seen.append(event.number)
        if len(seen) == 1:
            raise KeyboardInterrupt

    def run() -> None:
        async def main() -> None:
            await bus.publish(Ordered(number=7))
            await bus.flush()

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
        asyncio.run(bus.flush())

    await asyncio.to_thread(run)
    assert seen == [7, 7]


async def test_a_dead_letter_store_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """The entry is kept by the bus, health shows it, the lane stays parked."""

    class Unreliable(InMemoryDeadLetterStore):
        broken = True

        async def _put(self, entry: DeadLetterEntry) -> None:
            if self.broken:
                raise OSError("disk full")
            await super()._put(entry)

    store, aggregate = Unreliable(), uuid4()
    bus = EventBusImpl(config=EventBusConfig(max_handler_retries=0), dead_letters=store)

    @bus.handler(Ordered)
    async def broken(event: Ordered) -> None:
        raise ValueError("no")

    with caplog.at_level(logging.ERROR):
        await bus.publish([Ordered(number=1, aggregate_id=aggregate), Ordered(number=2, aggregate_id=aggregate)])
        await bus.flush()
    assert "disk full" in caplog.text
    assert (await bus.health_check()).is_degraded()
    assert await store.get_count() == 0
    store.broken = False
    await bus.publish(Ordered(number=3, aggregate_id=aggregate))
    await bus.flush()
    assert [entry.event.number for entry in await store.list_entries()] == [1, 2, 3]  # type: ignore[union-attr]
    assert (await bus.health_check()).is_healthy()
    await bus.close()


async def test_failures_are_logged_without_the_payload(caplog: pytest.LogCaptureFixture) -> None:
    """Handler, event type, id and error type."""
    bus = quick_bus(max_handler_retries=0)

    @bus.handler(Ordered)
    async def broken(event: Ordered) -> None:
        raise ValueError(f"card number {event.number}")

    with caplog.at_level(logging.ERROR):
        await bus.publish(Ordered(number=4111))
        await bus.close()
    assert "broken" in caplog.text
    assert "ValueError" in caplog.text
    assert "4111" not in caplog.text


async def test_equal_names_are_told_apart() -> None:
    """Dead letters find their own handler among several of one definition."""
    bus, seen = quick_bus(max_handler_retries=0), []

    def make(number: int) -> Any:
        async def handle(event: Ordered) -> None:
            seen.append(number)
            if number == 1 and len(seen) < 3:
                raise ValueError("no")

        return handle

    for number in range(3):
        bus.subscribe(Ordered, make(number))
    await bus.publish(Ordered(number=1))
    await bus.flush()
    assert bus.dead_letters is not None
    (entry,) = await bus.dead_letters.list_entries()
    assert entry.handler_name.endswith("handle#2")
    assert await bus.dead_letters.replay(entry.entry_id, bus)
    assert seen == [0, 1, 2, 1]
    result = await bus.redeliver(Ordered(number=1), "nobody")
    assert result.is_err()


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_concurrent_handlers", 0), ("max_queue_per_subscriber", 0), ("max_handler_retries", -1)],
)
def test_bad_settings_are_refused_by_name(name: str, value: int) -> None:
    """Also in a configuration object that did not check them."""

    class Config:
        pass

    config = Config()
    setattr(config, name, value)
    with pytest.raises(EventValidationError) as caught:
        EventBusImpl(config=config)
    assert caught.value.field == name


async def test_publish_and_flush_take_few_frames() -> None:
    """At most 60 Python calls for one event and one handler in the default configuration."""

    async def handle(event: Any) -> None: ...

    bus = EventBusImpl()
    bus.subscribe(Ordered, handle)
    event, calls = Ordered(number=1), 0
    await bus.publish(event)
    await bus.flush()

    def count(frame: Any, kind: str, argument: Any) -> None:
        nonlocal calls
        calls += kind == "call"

    sys.setprofile(count)
    await bus.publish(event)
    await bus.flush()
    sys.setprofile(None)
    assert calls <= 60
    await bus.close()


async def test_the_result_facade_never_raises_for_the_callers_mistakes() -> None:
    """Every outcome is Ok or Err(EventError)."""
    facade, seen = EventBusWithResultPattern(), []

    class Handler:
        async def handle(self, event: Any) -> None:
            seen.append(event)

    async def layer(event: Any, next_handler: Any) -> Any:
        return await next_handler(event)

    handler = Handler()
    assert facade.subscribe(Ordered, handler).is_ok()  # type: ignore[arg-type]
    assert facade.subscribe(Ordered, 5).is_err()  # type: ignore[arg-type]
    assert facade.add_middleware(layer).is_ok()  # type: ignore[arg-type]
    assert facade.add_middleware(5).is_err()  # type: ignore[arg-type]
    assert facade.get_subscription_count(Ordered).unwrap() == 1
    assert (await facade.publish(Ordered(number=1))).is_ok()
    assert (await facade.publish("nonsense")).is_err()
    await facade.bus.flush()
    assert len(seen) == 1
    assert facade.remove_middleware(layer).is_ok()  # type: ignore[arg-type]
    assert facade.remove_middleware(layer).is_err()  # type: ignore[arg-type]
    assert facade.unsubscribe(Ordered, handler).is_ok()  # type: ignore[arg-type]
    assert facade.unsubscribe(Ordered, handler).is_err()  # type: ignore[arg-type]


async def test_room_granted_to_a_cancelled_publisher_goes_to_the_next() -> None:
    """Cancelled in the very moment in which it got room, it has taken none."""
    routes = Routes(Observer(None, None))
    backlog, topic = Backlog(routes, 1), routes.topic(Ordered(number=1))
    topic.queued = 1
    first, second = asyncio.create_task(backlog.room(topic)), asyncio.create_task(backlog.room(topic))
    await asyncio.sleep(0)
    backlog.started(topic)
    first.cancel()
    async with asyncio.timeout(5):
        await second
    assert first.cancelled()
    assert (topic.queued, topic.waiting, backlog.waiting) == (1, 0, 0)


async def test_dead_letters_that_the_store_refused_are_stored_at_close() -> None:
    """The store was out of order for a while: nothing is lost as long as it is back before the end."""

    class Shaky(InMemoryDeadLetterStore):
        broken = True

        async def _put(self, entry: Any) -> None:
            if self.broken:
                raise ConnectionError("out of order")
            await super()._put(entry)

    store = Shaky()
    bus = EventBusImpl(config=EventBusConfig(max_handler_retries=0), dead_letters=store)

    @bus.handler(ItemAdded)
    async def broken(event: Any) -> None:
        raise ValueError("no")

    await bus.publish(added("1", "2"))
    await bus.flush()
    assert await store.get_count() == 0
    store.broken = False
    assert (await bus.close()).drained
    assert await store.get_count() == 2


async def test_closing_waits_as_long_as_configured() -> None:
    """`shutdown_timeout_seconds` is the deadline of `close()` without an argument; what is left is a dead letter."""
    bus = EventBusImpl(config=EventBusConfig(shutdown_timeout_seconds=0.05))

    async def stuck(event: Any) -> None:
        await asyncio.Event().wait()

    bus.subscribe(ItemAdded, stuck)
    await bus.publish(added("1"))
    report = await asyncio.wait_for(bus.close(), 5)
    assert [event.sku for event in report.left] == ["1"]
    assert bus.dead_letters is not None
    assert await bus.dead_letters.get_count() == 1
