"""How many Python frames the usual operations enter: a count that no noise changes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import pytest

from lexigram.events import AggregateRoot, Command, CommandBusImpl, Event, EventBusImpl, InMemoryEventStore


class Placed(Event):
    """An event with two fields."""

    order_id: str
    quantity: int


class Place(Command):
    """A command with one field."""

    order_id: str


class Order(AggregateRoot):
    """An aggregate with one handler."""

    quantity = 0

    def _handle_placed(self, event: Placed) -> None:
        """Count."""
        self.quantity += event.quantity


def entered(call: Callable[[], Any]) -> list[str]:
    """Return the names of the Python frames that `call` enters, those of the tests themselves left out."""
    names: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            names.append(frame.f_code.co_qualname)

    former = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(former)
    return [name for name in names if not name.endswith(("<lambda>", "drive"))]


def drive(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run something that never suspends, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it suspended")


async def test_dispatch_of_a_command() -> None:
    """At most 6 frames from `dispatch` to the handler, both included."""
    bus = CommandBusImpl()

    async def handle(command: Place) -> str:
        return command.order_id

    bus.register(Place, handle)
    command = Place(order_id="o-1")
    await bus.dispatch(command)
    names = entered(lambda: drive(bus.dispatch(command)))
    assert len(names) <= 6, names


def test_apply() -> None:
    """At most 5 frames from `_apply` to the handler, both included."""
    order = Order(id="o-1")
    order._apply(Placed(order_id="o-1", quantity=1))
    event = Placed(order_id="o-1", quantity=2)
    names = entered(lambda: order._apply(event))
    assert order.quantity == 3
    assert len(names) <= 5, names


@pytest.mark.parametrize("count", [1, 100])
async def test_append(count: int) -> None:
    """At most 6 frames for an append, however many events it has."""
    store = InMemoryEventStore()
    await store.append("o", [Placed(order_id="o", quantity=1)])
    events = [Placed(order_id="o", quantity=1) for _ in range(count)]
    names = entered(lambda: drive(store.append("o", events)))
    assert await store.get_stream_version("o") == count + 1
    assert len(names) <= 6, names


async def test_streaming() -> None:
    """`stream_all` enters no frame per event, only some per page of 100."""
    store = InMemoryEventStore()
    await store.append("o", [Placed(order_id="o", quantity=1) for _ in range(1000)])

    async def read() -> int:
        return len([event async for event in store.stream_all()])

    names = entered(lambda: drive(read()))
    assert len(names) <= 100, names


async def test_publish_and_flush() -> None:
    """At most 60 frames for one event to one handler in the default configuration, the event loop's own included."""
    bus = EventBusImpl()
    seen = []

    async def handle(event: Placed) -> None:
        seen.append(event)

    bus.subscribe(Placed, handle)
    event = Placed(order_id="o", quantity=1)

    async def publish() -> None:
        await bus.publish(event)
        await bus.flush()

    await publish()
    names: list[str] = []

    def note(frame: FrameType, kind: str, _: object) -> None:
        if kind == "call":
            names.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        await publish()
    finally:
        sys.setprofile(None)
    assert seen == [event, event]
    assert len(names) <= 60, names
    await bus.close()
