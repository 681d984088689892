"""How many Python frames the usual operations enter: a count that no noise changes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any, Final

from lexigram.events import AggregateRoot, Command, CommandBusImpl, Event, EventBusImpl, InMemoryEventStore

BUDGETS: Final = {
    "dispatch of a command": 6,
    "_apply": 5,
    "append of 1 event": 6,
    "append of 100 events": 6,
    "publish + flush": 60,
}
"""Operation -> frames at most, from the public call to the user's handler, both included."""


class Placed(Event):
    """An event with two fields."""

    order_id: str
    quantity: int


class Place(Command[str]):
    """A command with one field."""

    order_id: str


class Order(AggregateRoot):
    """An aggregate with one handler."""

    quantity = 0

    def _handle_placed(self, event: Placed) -> None:
        """Count."""
        self.quantity += event.quantity


def entered(call: Callable[[], object]) -> list[str]:
    """Return the names of the Python frames that `call` enters, those of this module's own plumbing left out."""
    names: list[str] = []

    def note(frame: FrameType, kind: str, _: object) -> None:
        if kind == "call" and frame.f_code.co_name not in ("<lambda>", "drive"):
            names.append(frame.f_code.co_qualname)

    former = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(former)
    return names


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of something that never suspends, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it suspended")


async def frames() -> dict[str, list[str]]:
    """Return the frames of each operation of BUDGETS, after one call that is not counted."""
    return {
        "dispatch of a command": await dispatched(),
        "_apply": applied(),
        "append of 1 event": await appended(1),
        "append of 100 events": await appended(100),
        "publish + flush": await published(),
    }


async def dispatched() -> list[str]:
    """Return the frames of a command without middleware."""
    bus, command = CommandBusImpl(), Place(order_id="o-1")

    async def handle(command: Place) -> str:
        return command.order_id

    bus.register(Place, handle)
    await bus.dispatch(command)
    return entered(lambda: drive(bus.dispatch(command)))


def applied() -> list[str]:
    """Return the frames of one event in an aggregate."""
    order, event = Order(id="o-1"), Placed(order_id="o-1", quantity=2)
    order._apply(Placed(order_id="o-1", quantity=1))
    names = entered(lambda: order._apply(event))
    assert order.quantity == 3
    return names


async def appended(count: int) -> list[str]:
    """Return the frames of an append to the store in memory."""
    store = InMemoryEventStore()
    await store.append("o", [Placed(order_id="o", quantity=1)])
    events = [Placed(order_id="o", quantity=1) for _ in range(count)]
    names = entered(lambda: drive(store.append("o", events)))
    assert await store.get_stream_version("o") == count + 1
    return names


async def published() -> list[str]:
    """Return the frames of one event to one handler in the default configuration, the event loop's own included."""
    bus, event, seen = EventBusImpl(), Placed(order_id="o", quantity=1), list[Placed]()

    async def handle(event: Placed) -> None:
        seen.append(event)

    async def publish() -> None:
        await bus.publish(event)
        await bus.flush()

    bus.subscribe(Placed, handle)
    await publish()
    names = await entered_while(publish)
    assert seen == [event, event]
    await bus.close()
    return names


async def entered_while(call: Callable[[], Awaitable[object]]) -> list[str]:
    """Return the names of all Python frames that this thread enters while the call is awaited."""
    names: list[str] = []

    def note(frame: FrameType, kind: str, _: object) -> None:
        if kind == "call":
            names.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        await call()
    finally:
        sys.setprofile(None)
    return names


def frame_counts() -> dict[str, int]:
    """Return the number of frames of each operation."""
    return {name: len(names) for name, names in asyncio.run(frames()).items()}


if __name__ == "__main__":
    for name, count in frame_counts().items():
        print(f"{name:<24} {count:>3} of {BUDGETS[name]}")
