"""A bus as a context manager."""

from __future__ import annotations

import asyncio

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
