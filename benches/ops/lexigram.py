"""The operations of lexigram.events. The same source runs against ours and the published package."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from ops import collecting
from ops.orders import TYPES, Order, Ordered, Ship, filled, make, new_store
from worker import op, report

from lexigram.events import CommandBusImpl, EventBusConfig, EventBusImpl, EventSourcingRepository

now = time.process_time_ns
PASSES = 10
"""Reads are repeated within a sample, after one that is not timed: what is measured is a warm read."""


@op("construct event, 5 fields")
async def construct(state: dict[str, Any]) -> tuple[float, int]:
    start = now()
    for _ in range(2000):
        Ordered(order_id="o1", product="p1", quantity=3, price=1.5, note="n")
    return now() - start, 2000


@op("construct + append 1, awaited")
async def append_one(state: dict[str, Any]) -> tuple[float, int]:
    store = new_store()
    start = now()
    for _ in range(1000):
        await store.append("order-1", [Ordered(order_id="o1", product="p1", quantity=3, price=1.5, note="n")])
    return now() - start, 1000


@op("append, batch of 1")
async def append_batch_1(state: dict[str, Any]) -> tuple[float, int]:
    store = new_store()
    batches = [[make()] for _ in range(1000)]
    start = now()
    for batch in batches:
        await store.append("order-1", batch)
    return now() - start, 1000


@op("append, batch of 100")
async def append_batch_100(state: dict[str, Any]) -> tuple[float, int]:
    store = new_store()
    batches = [[make() for _ in range(100)] for _ in range(20)]
    start = now()
    for batch in batches:
        await store.append("order-1", batch)
    return now() - start, 20


@op("read 1,000")
async def read_1000(state: dict[str, Any]) -> tuple[float, int]:
    store = await filled(state, 1000)
    start = now()
    for _ in range(20):
        await store.read("order-0")
    return now() - start, 20


@op("read last 100 of 1,000")
async def read_last_100(state: dict[str, Any]) -> tuple[float, int]:
    store = await filled(state, 1000)
    start = now()
    for _ in range(100):
        await store.read("order-0", from_version=901)
    return now() - start, 100


async def streamed(stream: Callable[[], Any], expected: int) -> float:
    """Return the nanoseconds of one pass over a stream, the mean of several after one that is not timed."""

    async def read() -> int:
        count = 0
        async for _ in stream():
            count += 1
        return count

    if await read() != expected:
        raise AssertionError(f"the stream does not have {expected} events")
    start = now()
    for _ in range(PASSES):
        await read()
    return (now() - start) / PASSES


@op("stream_all, per event")
async def stream_all(state: dict[str, Any]) -> tuple[float, int]:
    store = await filled(state, 10_000, streams=10)
    return await streamed(store.stream_all, 10_000), 10_000


@op("stream_all, last 100 of 100,000")
async def stream_tail(state: dict[str, Any]) -> tuple[float, int]:
    store = await filled(state, 100_000, streams=10)
    return await streamed(lambda: store.stream_all(from_position=99_900), 100), 1


@op("stream_by_type, 1 of 10, per event")
async def by_type(state: dict[str, Any]) -> tuple[float, int]:
    store = await filled(state, 10_000, streams=10, types=10)
    return await streamed(lambda: store.stream_by_type([TYPES[3].__name__]), 1000), 1000


@op("repository: load 1,000 events")
async def load_1000(state: dict[str, Any]) -> tuple[float, int]:
    if "repository" not in state:
        state["repository"] = EventSourcingRepository(Order, new_store())
        order = Order(id=uuid.uuid4())
        state["id"] = order.id
        for _ in range(1000):
            order.add()
        await state["repository"].save(order)
    order = await state["repository"].get(state["id"])
    if order is None or order.total != 3000:
        raise AssertionError("the loaded order is not the saved one")
    start = now()
    for _ in range(PASSES):
        await state["repository"].get(state["id"])
    return now() - start, PASSES


@op("repository: save 10 events")
async def save_10(state: dict[str, Any]) -> tuple[float, int]:
    repository = EventSourcingRepository(Order, new_store())
    orders = []
    for _ in range(50):
        order = Order(id=uuid.uuid4())
        for _ in range(10):
            order.add()
        orders.append(order)
    start = now()
    for order in orders:
        await repository.save(order)
    return now() - start, 50


async def dispatch(state: dict[str, Any], middleware: int) -> tuple[float, int]:
    if "bus" not in state:

        async def through(message: Any, next_handler: Any) -> Any:
            return await next_handler(message)

        async def handle(command: Ship) -> int:
            return 1

        state["bus"] = CommandBusImpl(middlewares=[through] * middleware)
        state["bus"].register(Ship, handle)
    bus, command = state["bus"], Ship(order_id="o1")
    start = now()
    for _ in range(1000):
        await bus.dispatch(command)
    return now() - start, 1000


@op("dispatch a command, no middleware")
async def dispatch_0(state: dict[str, Any]) -> tuple[float, int]:
    return await dispatch(state, 0)


@op("dispatch a command, 6 middleware")
async def dispatch_6(state: dict[str, Any]) -> tuple[float, int]:
    return await dispatch(state, 6)


def event_bus(state: dict[str, Any], handlers: int, **config: Any) -> Any:
    if "bus" not in state:
        state["bus"] = EventBusImpl(config=EventBusConfig(**config))
        for _ in range(handlers):

            async def handle(event: Ordered) -> None:
                state["seen"] = state.get("seen", 0) + 1

            state["bus"].subscribe(Ordered, handle)
    return state["bus"]


async def publish_and_flush(state: dict[str, Any], handlers: int) -> tuple[float, int]:
    bus, events = event_bus(state, handlers), [make() for _ in range(50)]
    before = state.get("seen", 0)
    start = now()
    for event in events:
        await bus.publish(event)
        await bus.flush()
    elapsed = now() - start
    if state["seen"] - before != 50 * handlers:
        raise AssertionError("not every handler saw every event")
    return elapsed, 50


@op("publish + flush 1 event, 1 handler")
async def publish_1(state: dict[str, Any]) -> tuple[float, int]:
    return await publish_and_flush(state, 1)


@op("publish + flush 1 event, 10 handlers")
async def publish_10(state: dict[str, Any]) -> tuple[float, int]:
    return await publish_and_flush(state, 10)


async def publish_many(state: dict[str, Any], handlers: int) -> tuple[float, int]:
    bus = event_bus(state, handlers, parallel_dispatch=False)
    events = [make() for _ in range(1000)]
    before = state.get("seen", 0)
    start = now()
    for event in events:
        await bus.publish(event)
    await bus.flush()
    elapsed = now() - start
    if state["seen"] - before != 1000 * handlers:
        raise AssertionError("not every handler saw every event")
    return elapsed, 1000


@op("publish 1,000 events then flush, sequential, 1 handler, per event")
async def publish_1000_1(state: dict[str, Any]) -> tuple[float, int]:
    return await publish_many(state, 1)


@op("publish 1,000 events then flush, sequential, 10 handlers, per event")
async def publish_1000_10(state: dict[str, Any]) -> tuple[float, int]:
    return await publish_many(state, 10)


@op("channel put + get, capacity 1,024")
async def channel(state: dict[str, Any]) -> tuple[float, int]:
    try:
        from lexigram.events.buses.channel import BoundedChannel
    except ImportError:
        from lexigram.concurrency.channels.channel import BoundedChannel  # what the published bus uses
    bounded = BoundedChannel(1024)
    put = getattr(bounded, "put", None) or bounded.send
    get = getattr(bounded, "get", None) or bounded.receive
    start = now()
    for _ in range(4):
        for i in range(1000):
            await put(i)
        for _ in range(1000):
            await get()
    return now() - start, 4000


@report("collector")
async def collector(events: int) -> dict[str, Any]:
    return await collecting.run(new_store(), make, events)
