"""Channel, dispatch, publish and flush; run with `pytest benches/test_bench_buses.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from benches.frames import drive
from lexigram.events import Command, CommandBusImpl, DomainEvent, EventBusConfig, EventBusImpl
from lexigram.events.buses.channel import BoundedChannel

MANY = 100


class Ship(Command[str]):
    order_id: str


class Shipped(DomainEvent):
    order_id: str


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of this benchmark alone."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_channel(benchmark: Any) -> None:
    """A hundred items in and out, nobody waiting."""
    channel = BoundedChannel(1024)

    async def through() -> int:
        for number in range(MANY):
            await channel.put(number)
        return sum([await channel.get() for _ in range(MANY)])

    assert benchmark(lambda: drive(through())) == sum(range(MANY))


def test_channel_with_a_waiting_consumer(benchmark: Any, loop: asyncio.AbstractEventLoop) -> None:
    """A hundred items through a channel of ten to a task that takes them."""

    async def through() -> int:
        channel = BoundedChannel(10)

        async def take() -> int:
            return sum([await channel.get() for _ in range(MANY)])

        taker = asyncio.ensure_future(take())
        for number in range(MANY):
            await channel.put(number)
        return await taker

    assert benchmark(lambda: loop.run_until_complete(through())) == sum(range(MANY))


@pytest.mark.parametrize("middleware", [0, 6])
def test_dispatch(benchmark: Any, middleware: int) -> None:
    """A command to a handler that does nothing."""

    async def link(message: Any, next_handler: Any) -> Any:
        return await next_handler(message)

    async def handle(command: Ship) -> str:
        return command.order_id

    bus = CommandBusImpl(middlewares=[link] * middleware)
    bus.register(Ship, handle)
    command = Ship(order_id="o-1")
    assert benchmark(lambda: drive(bus.dispatch(command))) == "o-1"


@pytest.mark.parametrize("handlers", [1, 10])
@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "sequential"])
def test_publish_and_flush(benchmark: Any, loop: asyncio.AbstractEventLoop, handlers: int, parallel: bool) -> None:
    """A hundred events, each flushed, in the configuration as it is by default but for the order of handlers."""
    bus, seen = EventBusImpl(config=EventBusConfig(parallel_dispatch=parallel)), [0]

    async def publish() -> None:
        for event in events:
            await bus.publish(event)
            await bus.flush()

    def subscribe() -> None:
        async def handle(event: Shipped) -> None:
            seen[0] += 1

        bus.subscribe(Shipped, handle)

    for _ in range(handlers):
        subscribe()
    events = [Shipped(order_id="o-1") for _ in range(MANY)]
    benchmark(lambda: loop.run_until_complete(publish()))
    assert seen[0] > 0
    assert seen[0] % (MANY * handlers) == 0
    loop.run_until_complete(bus.close())
