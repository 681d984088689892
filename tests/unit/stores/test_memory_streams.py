"""Streams over memory are no async generators, but behave like them."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from lexigram.events import Event
from lexigram.events._core import EventLog
from lexigram.events.messages.stamping import stamp
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.testing.samples import GiftAdded, ItemAdded, added, collect, skus


async def filled(skus_: str = "123456789") -> InMemoryEventStore:
    """Return a store with one event per character."""
    store = InMemoryEventStore()
    await store.append("a", added(*skus_))
    return store


async def test_a_stream_reads_nothing_before_it_is_awaited() -> None:
    """What is appended between the call and the first step is seen, and so is what is appended between two pages."""
    store = await filled("1")
    stream = store.stream_all(batch_size=2)
    step = anext(stream)
    await store.append("a", added("2", "3"))
    seen = [(await step).sku]
    async for event in stream:
        seen.append(event.sku)
        if event.sku == "2":
            await store.append("a", added("4"))
    assert seen == ["1", "2", "3", "4"]


async def test_a_stream_ends_for_good() -> None:
    """After the last event, `aclose` or an error, every further step says that it is over."""
    store = await filled()
    for end in ("exhaust", "aclose", "athrow"):
        stream: Any = store.stream_all(batch_size=4)
        first = await anext(stream)
        assert first.sku == "1"
        if end == "exhaust":
            assert len(await collect(stream)) == 8
        elif end == "aclose":
            assert await stream.aclose() is None
        else:
            with pytest.raises(LookupError, match="outside"):
                await stream.athrow(LookupError("outside"))
        await store.append("a", added("x"))
        assert await anext(stream, None) is None
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await stream.aclose()


async def test_aclose_closes_when_awaited() -> None:
    """A call of `aclose` that nobody awaits changes nothing; `aclosing` awaits it."""
    store = await filled()
    stream: Any = store.stream_all()
    stream.aclose()
    assert (await anext(stream)).sku == "1"
    async with aclosing(stream):
        assert (await anext(stream)).sku == "2"
    assert await collect(stream) == []


@pytest.mark.parametrize("end", ["exhausted", "closed", "dropped"])
async def test_a_stream_that_ended_holds_no_event(end: str) -> None:
    """Events fetched but never taken go with `aclose` or the stream; none is held after the last one."""
    store = await filled()
    refs = [weakref.ref(event) for event in await store.read("a")]
    stream: Any = store.stream_all(batch_size=9)
    await anext(stream)
    await store.compact("a", 9)
    assert [ref() is not None for ref in refs] == [False] + [True] * 8
    if end == "exhausted":
        rest = skus(await collect(stream))
        assert rest == list("23456789")
    elif end == "closed":
        await stream.aclose()
    else:
        del stream
    assert [ref() for ref in refs] == [None] * 9


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 1023, 1024, 1025, 3000])
async def test_batches_of_any_size_give_everything(batch_size: int) -> None:
    """Across the log's chunks, with and without a bound, of all types and of one, and of one partition."""
    store = InMemoryEventStore()
    for number in range(5):
        await store.append(f"s{number}", [*added(*"x" * 500), GiftAdded(sku="y")])
    for partition in (None, 1):
        total = None if partition is None else 2
        pages = [batch async for batch in store.stream_batches(0, batch_size, partition, total)]
        events = await collect(store.stream_all(0, batch_size, partition, total))
        assert [event for batch in pages for event in batch] == events
        assert len(events) == 2505 if partition is None else 0 < len(events) < 2505
    assert len(await collect(store.stream_by_type(GiftAdded, batch_size=batch_size))) == 5
    replayed: list[int] = []
    await store.replay_events(lambda event: replayed.append(event.sequence_number))
    assert replayed == list(range(1, 2506))


async def test_a_stream_ends_with_the_first_batch_that_is_not_full() -> None:
    """What is appended while the last batch is handed out is for the next stream; a full batch is followed by a look."""
    for batch_size, expected in ((3, "12"), (2, "123")):
        store = await filled("12")
        seen = []
        async for event in store.stream_all(batch_size=batch_size):
            seen.append(event.sku)
            if event.sku == "2":
                await store.append("a", added("3"))
        assert seen == list(expected)


async def test_a_stream_is_no_iterable_and_no_awaitable() -> None:
    """A forgotten `async`, or an `await` too many, is a TypeError rather than a lost event."""
    stream: Any = (await filled()).stream_by_type(ItemAdded)
    with pytest.raises(TypeError):
        iter(stream)
    with pytest.raises(TypeError):
        await stream
    assert isinstance(stream, AsyncGenerator)
    assert aiter(stream) is stream
    assert skus(await collect(stream)) == list("123456789")


async def test_tasks_share_a_stream() -> None:
    """Each event goes to one of the tasks that iterate, none twice."""
    store = await filled("abcdefghij" * 30)
    stream = store.stream_all(batch_size=7)
    seen: list[int] = []

    async def follow() -> None:
        async for event in stream:
            seen.append(event.sequence_number)
            await asyncio.sleep(0)

    await asyncio.gather(*(follow() for _ in range(5)))
    assert seen == list(range(1, 301))


def test_threads_share_a_stream() -> None:
    """Steps from several threads get each event once."""
    store = InMemoryEventStore(max_events_per_stream=0)
    asyncio.run(store.append("a", added(*"x" * 20_000)))
    stream = store.stream_all(batch_size=10)
    seen: list[list[int]] = [[], [], [], []]

    def follow(mine: list[int]) -> None:
        asyncio.run(fill(mine))

    async def fill(mine: list[int]) -> None:
        async for event in stream:
            mine.append(event.sequence_number)

    threads = [threading.Thread(target=follow, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for mine in seen for n in mine) == list(range(1, 20_001))


@pytest.mark.parametrize(
    "step",
    [
        lambda stream: anext(stream),
        lambda stream: stream.__anext__(),
        lambda stream: stream.asend(None),
        lambda stream: asyncio.wait_for(anext(stream), 1),
        lambda stream: asyncio.ensure_future(anext(stream)),
        lambda stream: anext(stream, None),
    ],
)
async def test_every_way_to_step(step: Callable[[Any], Any]) -> None:
    """`anext`, `asend`, a future and a timeout all deliver."""
    stream = (await filled()).stream_all(batch_size=2)
    assert [(await step(stream)).sku for _ in range(9)] == list("123456789")


def test_a_stream_can_be_driven_by_hand() -> None:
    """A coroutine that iterates ends with its value at the first `send`: nothing ever suspends."""
    store = asyncio.run(filled("123"))

    async def total() -> str:
        return "".join([event.sku async for event in store.stream_all(batch_size=2)])

    with pytest.raises(StopIteration) as stop:
        total().send(None)
    assert stop.value.value == "123"
    step: Any = store.stream_all(from_position=2).__anext__()
    with pytest.raises(StopIteration) as stop:
        next(iter(step))
    assert stop.value.value.sku == "3"
    with pytest.raises(StopAsyncIteration):
        next(step)


class Clinging(ItemAdded):
    """An event that uses its streams once more when it goes."""

    def __del__(self) -> None:
        for stream in streams_to_use:
            with pytest.raises(StopAsyncIteration):
                anext(stream).__await__().__next__()
            with pytest.raises(StopIteration):
                stream.aclose().__await__().__next__()


streams_to_use: list[Any] = []


async def test_a_stream_used_by_what_it_lets_go_of_stays_sound() -> None:
    """Events that only the stream held step and close it when they go with `aclose`: it is at its end then."""
    store = InMemoryEventStore()
    await store.append("a", [Clinging(sku=sku) for sku in "123"])
    stream: Any = store.stream_all()
    await anext(stream)
    await store.compact("a", 3)
    streams_to_use.append(stream)
    try:
        await stream.aclose()
    finally:
        streams_to_use.clear()
    assert await collect(stream) == []


def test_cycles_through_streams_are_collected() -> None:
    """10,000 streams that lead back to themselves, read or not, leave nothing behind."""

    class Marker:
        stream: Any

    refs = []
    for number in range(10_000):
        marker, log = Marker(), EventLog(stamp, 0)
        log.store([("s", [Event(marker=marker), Event(marker=marker)], ["T", "T"], None, None)])
        marker.stream = log.stream(0, 100, None, None, None)
        if number % 2:
            with pytest.raises(StopIteration):
                next(anext(marker.stream).__await__())
            if number % 4 == 1:
                log.compact("s", 2)  # the stream alone holds the second event
        if number % 3 == 0:
            marker.stream = marker.stream.aclose()
        refs.append(weakref.ref(marker))
    del marker, log
    gc.collect()
    assert [ref() for ref in refs if ref() is not None] == []


async def test_streams_leave_no_reference() -> None:
    """Full, partial, closed, failed and refused streams give back every reference and block."""
    store = await filled()
    event = (await store.read("a"))[4]
    error = LookupError("x")

    async def use() -> None:
        await collect(store.stream_all(batch_size=2))
        stream: Any = store.stream_by_type(ItemAdded, batch_size=3)
        for _ in range(5):
            await anext(stream)
        await stream.aclose()
        stream = store.stream_all()
        await anext(stream)
        try:
            await stream.athrow(error)
        except LookupError as caught:
            caught.__traceback__ = None
        await anext(stream, None)
        for wrong in ((0, 0, None), (-1, 1, None), (0, 1, 1.5)):
            assert store.log.stream(*wrong, None, None) is None
        with pytest.raises(ValueError, match="no partition"):
            store.log.stream(0, 1, None, None, (2, 2))
        with pytest.raises(TypeError):
            store.log.stream(0, 1, None, [(event, [])], None)

    for _ in range(20):
        await use()
    gc.collect()
    before = sys.getrefcount(event), sys.getrefcount(error), sys.getallocatedblocks()
    for _ in range(300):
        await use()
    gc.collect()
    assert (sys.getrefcount(event), sys.getrefcount(error)) == before[:2]
    assert sys.getallocatedblocks() - before[2] < 50
