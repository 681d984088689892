"""A bus as a context manager, and one that is forgotten with events in it."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from lexigram.events import Event, EventBusImpl
from lexigram.events.exceptions import EventError


class Heard(Event):
    """Something was heard."""

    number: int


async def test_leaving_the_block_closes_the_bus_and_drains_it() -> None:
    """After an error in the block too."""
    seen: list[int] = []

    async def handle(event: Heard) -> None:
        await asyncio.sleep(0)
        seen.append(event.number)

    with pytest.raises(KeyError):
        async with EventBusImpl() as bus:
            bus.subscribe(Heard, handle)
            await bus.publish([Heard(number=1), Heard(number=2)])
            raise KeyError
    assert seen == [1, 2]
    with pytest.raises(EventError, match="closed"):
        await bus.publish(Heard(number=3))


async def forget(events: int, *, close: bool) -> None:
    """Leave a bus, with handlers that never end, to the collector."""
    bus = EventBusImpl()

    async def handle(event: Any) -> None:
        await asyncio.Event().wait()

    bus.subscribe(Heard, handle)
    for number in range(events):
        await bus.publish(Heard(number=number))
    await asyncio.sleep(0)
    if close:
        await bus.close(0)


def run_and_collect(events: int, *, close: bool) -> None:
    asyncio.run(forget(events, close=close))
    gc.collect()


def test_events_that_nobody_will_handle_any_more_are_told_of() -> None:
    """The program has ended the loop without closing the bus."""
    with pytest.warns(ResourceWarning, match="3 events not handled; close"):
        run_and_collect(3, close=False)


@pytest.mark.parametrize(("events", "close"), [(0, False), (3, True)])
def test_a_bus_that_has_lost_nothing_is_silent(events: int, close: bool) -> None:
    """Nothing was accepted, or what was left became dead letters."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_and_collect(events, close=close)
