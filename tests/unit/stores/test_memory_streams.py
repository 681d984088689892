"""Streams over memory are no async generators, but behave like them."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from lexigram.events._core import EventStream
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.testing.samples import ItemAdded, added, collect, skus


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


async def test_closing_lets_go_of_the_batches() -> None:
    """The source of a stream is finished with `aclose`, when the stream is dropped, and by its own error."""
    ended = []

    def batches(name: str) -> Iterator[list[int]]:
        try:
            yield [1, 2]
            raise LookupError(name)
        finally:
            ended.append(name)

    closed, dropped, failed = (EventStream(batches(name)) for name in ("closed", "dropped", "failed"))
    assert [await anext(stream) for stream in (closed, dropped, failed)] == [1, 1, 1]
    await closed.aclose()
    assert ended == ["closed"]
    del dropped
    assert ended == ["closed", "dropped"]
    assert await anext(failed) == 2
    with pytest.raises(LookupError, match="failed"):
        await anext(failed)
    assert ended == ["closed", "dropped", "failed"]
    assert await collect(failed) == []


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


@pytest.mark.parametrize("batches", [[(1, 2)], ["ab"], [[1], None]])
async def test_only_lists_are_batches(batches: Any) -> None:
    """Anything else in the source raises and ends the stream."""
    stream: Any = EventStream(batches)
    with pytest.raises(TypeError):
        await collect(stream)
    assert await collect(stream) == []
    with pytest.raises(TypeError):
        EventStream(5)  # type: ignore[arg-type]


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
    """Steps from several threads get each event once, or are told that another one is fetching."""
    stream = EventStream([list(range(n, n + 10)) for n in range(0, 20_000, 10)])
    seen: list[list[int]] = [[], [], [], []]

    def follow(mine: list[int]) -> None:
        asyncio.run(fill(mine))

    async def fill(mine: list[int]) -> None:
        async for number in stream:
            mine.append(number)

    threads = [threading.Thread(target=follow, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for mine in seen for n in mine) == list(range(20_000))


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
    """`anext`, `asend`, a future and a timeout all deliver; exceptions and tuples are values like any other."""
    values = [(1, 2), StopIteration(3), None, ValueError("x"), ()]
    stream = EventStream([values])
    assert [await step(stream) for _ in values] == values


def test_a_stream_can_be_driven_by_hand() -> None:
    """A coroutine that iterates ends with its value at the first `send`: nothing ever suspends."""

    async def total() -> int:
        return sum([number async for number in EventStream([[1, 2], [3]])])

    with pytest.raises(StopIteration) as stop:
        total().send(None)
    assert stop.value.value == 6
    step: Any = EventStream([[1]]).__anext__()
    with pytest.raises(StopIteration) as stop:
        next(iter(step))
    assert stop.value.value == 1
    with pytest.raises(StopAsyncIteration):
        next(step)


async def test_a_stream_reentered_from_its_source_stays_sound() -> None:
    """A source that steps or closes the stream it feeds gets an error or its way, and nothing breaks."""
    streams: list[Any] = []

    def stepping() -> Iterator[list[int]]:
        yield [1]
        with pytest.raises(RuntimeError, match="already being read"):
            anext(streams[0]).__await__().__next__()
        yield [2]

    def closing() -> Iterator[list[int]]:
        yield [1]
        with pytest.raises(StopIteration):
            streams[1].aclose().__await__().__next__()
        yield [2]

    streams[:] = [EventStream(stepping()), EventStream(closing())]
    assert await collect(streams[0]) == [1, 2]
    assert await collect(streams[1]) == [1]
    streams.clear()


def test_cycles_through_streams_are_collected() -> None:
    """10,000 streams that lead back to themselves, read or not, leave nothing behind."""

    class Marker:
        stream: Any

    refs = []
    for number in range(10_000):
        marker = Marker()
        marker.stream = EventStream([[marker, marker], [marker]])
        if number % 2:
            with pytest.raises(StopIteration):
                next(anext(marker.stream).__await__())
        if number % 3 == 0:
            marker.stream = marker.stream.aclose()
        refs.append(weakref.ref(marker))
    del marker
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
        stream = EventStream([[event], 5])  # type: ignore[list-item]
        try:
            await collect(stream)
        except TypeError:
            pass

    for _ in range(20):
        await use()
    gc.collect()
    before = sys.getrefcount(event), sys.getrefcount(error), sys.getallocatedblocks()
    for _ in range(300):
        await use()
    gc.collect()
    assert (sys.getrefcount(event), sys.getrefcount(error)) == before[:2]
    assert sys.getallocatedblocks() - before[2] < 50
