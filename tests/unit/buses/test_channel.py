"""The bounded channel: order, fairness, cancellation, closing, memory."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import weakref
from typing import Any

import pytest

from lexigram.concurrency.exceptions import ChannelClosedError
from lexigram.contracts.core.concurrency_protocols import ChannelProtocol
from lexigram.events.buses.channel import BoundedChannel
from lexigram.events.exceptions import EventValidationError


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_items_come_out_in_order() -> None:
    """One by one and in batches; any object is an item."""
    channel = BoundedChannel(8)
    assert isinstance(channel, ChannelProtocol)
    items: list[Any] = [None, (), (1, 2), ValueError("x"), [], channel, "last"]
    for item in items:
        await channel.put(item)
    assert len(channel) == 7
    assert not channel.is_empty
    taken = [await channel.get(), *await channel.get_many(3), *await channel.get_many(100)]
    assert all(one is other for one, other in zip(taken, items, strict=True))
    assert channel.is_empty
    assert bool(channel)


async def test_what_is_passed_may_be_said() -> None:
    """`BoundedChannel[int]` works when the program runs, as an annotation, as a base and to make a channel."""

    class Numbers(BoundedChannel[int]):
        pass

    channels: list[BoundedChannel[int]] = [BoundedChannel[int](2), Numbers(2), BoundedChannel(2)]
    for channel in channels:
        await channel.put(7)
        assert channel.put_nowait(8)
        assert (await channel.get(), await channel.get_many(5)) == (7, [8])


async def test_the_capacity_is_the_bound() -> None:
    """A put beyond it waits; put_nowait says no."""
    channel = BoundedChannel(2)
    assert channel.capacity == 2
    assert channel.put_nowait(1) is True
    assert channel.put_nowait(2) is True
    assert channel.put_nowait(3) is False
    waiting = asyncio.create_task(asyncio.wait_for(channel.put(3), 5))
    await settle()
    assert not waiting.done()
    assert len(channel) == 2
    assert await channel.get() == 1
    await waiting
    assert await channel.get_many(5) == [2, 3]


async def test_getters_and_putters_are_served_in_the_order_they_came() -> None:
    """Nobody who comes later overtakes one that was woken."""
    channel, served = BoundedChannel(1), []

    async def getter(name: int) -> None:
        served.append((name, await channel.get()))

    tasks = [asyncio.create_task(getter(name)) for name in range(3)]
    await settle()
    for item in "abc":
        await channel.put(item)
    late = asyncio.create_task(getter(9))
    await settle()
    assert served == [(0, "a"), (1, "b"), (2, "c")]
    await channel.put("d")
    await asyncio.gather(*tasks, late)
    await channel.put("full")

    async def putter(item: str) -> None:
        await channel.put(item)

    putting = [asyncio.create_task(putter(item)) for item in "xyz"]
    await settle()
    assert await channel.get() == "full"
    assert channel.put_nowait("cheat") is False, "a later put took the room of one that was woken"
    assert [await channel.get() for _ in range(3)] == ["x", "y", "z"]
    await asyncio.gather(*putting)


async def test_a_cancelled_getter_passes_on_what_it_was_given() -> None:
    """Also when the item was already set aside for it."""
    channel: BoundedChannel = BoundedChannel(1)
    first, second = (asyncio.create_task(channel.get()) for _ in range(2))
    await settle()
    await channel.put("a")
    first.cancel()
    assert await second == "a"
    third = asyncio.create_task(channel.get())
    await settle()
    await channel.put("b")
    third.cancel()
    await settle()
    assert await channel.get() == "b"
    assert first.cancelled()
    assert third.cancelled()


async def test_a_cancelled_putter_has_put_nothing() -> None:
    """Its room goes to the next."""
    channel = BoundedChannel(1)
    await channel.put("full")

    async def put(item: str) -> None:
        await channel.put(item)

    first, second, third = (asyncio.create_task(put(item)) for item in "123")
    await settle()
    second.cancel()
    assert await channel.get() == "full"
    first.cancel()
    await settle()
    assert await channel.get() == "3"
    await third
    assert channel.is_empty


async def test_closing_keeps_what_is_there_and_wakes_everybody() -> None:
    """Afterwards nothing is accepted."""
    channel = BoundedChannel(1)
    getter = asyncio.create_task(channel.get())
    await settle()
    await channel.close()
    with pytest.raises(ChannelClosedError):
        await getter
    full = BoundedChannel(1)
    await full.put("kept")

    async def put() -> None:
        await full.put("refused")

    putter = asyncio.create_task(put())
    await settle()
    await full.close()
    await full.close()
    assert full.closed
    with pytest.raises(ChannelClosedError):
        await putter
    with pytest.raises(ChannelClosedError):
        full.put_nowait("refused")
    with pytest.raises(ChannelClosedError):
        await full.put("refused")
    assert await full.get() == "kept"
    for wait in (full.get(), full.get_many(3)):
        with pytest.raises(ChannelClosedError):
            await wait


async def test_bad_arguments_are_refused_by_name() -> None:
    """A capacity and a limit below 1."""
    with pytest.raises(EventValidationError) as caught:
        BoundedChannel(0)
    assert caught.value.field == "capacity"
    with pytest.raises(EventValidationError) as caught:
        await BoundedChannel(1).get_many(0)
    assert caught.value.field == "limit"


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_under_random_cancellation(seed: int) -> None:
    """What was put comes out once, in order per producer; the bound holds."""
    dice, channel = random.Random(seed), BoundedChannel(3)
    accepted: list[tuple[int, int]] = []
    received: list[tuple[int, int]] = []

    async def attempt(work: Any) -> Any:
        task = asyncio.ensure_future(work)
        if dice.random() < 0.3:
            await asyncio.sleep(0)
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return None

    async def put(item: tuple[int, int]) -> bool:
        await channel.put(item)
        return True

    async def producer(name: int) -> None:
        for number in range(200):
            if await attempt(put((name, number))):
                accepted.append((name, number))
            assert len(channel) <= 3 + 4

    async def get(limit: int) -> None:
        received.extend(await channel.get_many(limit) if limit else [await channel.get()])

    async def consumer() -> None:
        while True:
            await attempt(get(dice.choice((0, 0, 2))))

    consumers = [asyncio.create_task(consumer()) for _ in range(3)]
    await asyncio.wait_for(asyncio.gather(*map(producer, range(4))), 30)
    while not channel.is_empty:
        await asyncio.sleep(0)
    await settle()
    for task in consumers:
        task.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    while not channel.is_empty:
        received.extend(await channel.get_many(10))
    assert sorted(received) == sorted(accepted)
    for name in range(4):
        numbers = [number for producer, number in received if producer == name]
        assert numbers == sorted(numbers)


def test_a_channel_that_is_part_of_a_cycle_is_collected() -> None:
    """Items and waiting futures are visible to the collector."""

    class Node:
        pass

    node = Node()
    node.channel = BoundedChannel(2)  # type: ignore[attr-defined]
    node.channel.put_nowait(node)  # type: ignore[attr-defined]
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None


async def test_references_are_balanced() -> None:
    """Every way in and out gives back what it took."""
    item, channel = object(), BoundedChannel(4)
    before = sys.getrefcount(item)
    for _ in range(50):
        await channel.put(item)
        await channel.put(item)
        assert await channel.get() is item
        await channel.get_many(5)
        getter = asyncio.create_task(channel.get())
        await asyncio.sleep(0)
        await channel.put(item)
        await getter
        getter = asyncio.create_task(channel.get())
        await asyncio.sleep(0)
        await channel.put(item)
        getter.cancel()
        await settle()
        await channel.get()
        for _ in range(4):
            channel.put_nowait(item)
        channel.put_nowait(item)
        await channel.get_many(4)
    del getter
    gc.collect()
    assert sys.getrefcount(item) == before
