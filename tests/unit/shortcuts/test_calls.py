"""What methods with a shortcut return are coroutines in all that is done with them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import anyio
import pytest

from lexigram.events import Event, InMemoryEventStore
from lexigram.events.exceptions import ConcurrencyError
from tests.unit.shortcuts.ways import Happened, Marker, class_with


async def test_nothing_happens_before_it_is_awaited(store: Any, channel: Any) -> None:
    """A call only keeps its arguments."""
    put, append = channel.put(1), store.append("a", [Happened()])
    assert (len(channel), store.get_global_position()) == (0, 0)
    await put
    assert await append == 1
    assert (len(channel), store.get_global_position()) == (1, 1)
    await channel.close()
    refused = channel.put(2)
    with pytest.raises(Exception, match="closed"):
        await refused


async def test_a_call_is_a_coroutine(channel: Any) -> None:
    """In its type, its attributes, its states and its text."""
    call = channel.put(1)
    assert isinstance(call, types.CoroutineType)
    assert isinstance(call, Coroutine)
    assert inspect.iscoroutine(call)
    assert inspect.isawaitable(call)
    assert asyncio.iscoroutine(call)
    assert call.__name__ == "put"
    assert call.__qualname__ == "BoundedChannel.put"
    assert call.cr_code is type(channel).put.__code__
    assert (call.cr_await, call.cr_origin, call.cr_running, call.cr_suspended) == (None, None, False, False)
    assert repr(call).startswith("<coroutine object BoundedChannel.put at 0x")
    assert weakref.ref(call)() is call
    with pytest.raises(TypeError, match="not iterable"):
        iter(call)
    with pytest.raises(TypeError):
        pickle.dumps(call)
    assert inspect.getcoroutinestate(call) == inspect.CORO_CREATED
    await call
    assert inspect.getcoroutinestate(call) == inspect.CORO_CLOSED
    assert call.cr_frame is None
    waiting = channel.get()
    assert await waiting == 1
    assert inspect.getcoroutinestate(waiting) == inspect.CORO_CLOSED
    waiting = channel.get()
    future = waiting.send(None)
    assert inspect.getcoroutinestate(waiting) == inspect.CORO_SUSPENDED
    assert waiting.cr_await is not None
    assert waiting.cr_frame.f_code is waiting.cr_code
    assert future.cancel()
    waiting.close()


async def test_it_is_awaited_once(channel: Any) -> None:
    """Once more is an error, also while somebody else awaits it."""
    call = channel.put(1)
    await call
    for again in (call.send, call.throw):
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            again(None if again == call.send else ValueError())
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await call
    call.close()
    assert await channel.get() == 1
    shared = channel.get()
    first = asyncio.create_task(shared)
    await asyncio.sleep(0)

    async def second() -> Any:
        return await shared

    with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
        await second()
    await channel.put(2)
    assert await first == 2
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await shared


def test_it_is_driven_by_hand(channel: Any) -> None:
    """`send`, `throw`, `close`, and the iterator of `__await__`, before the start and at a suspension."""
    for value in ((1, 2), None, StopIteration(3), [4]):
        with pytest.raises(StopIteration) as ended:
            channel.put(value).send(None)
        assert ended.value.value is None
        with pytest.raises(StopIteration) as ended:
            next(channel.get().__await__())
        assert ended.value.value is value
    call = channel.put(1)
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        call.send(1)
    call.close()
    call.close()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        call.send(None)
    for error in (KeyError("k"), KeyError):
        call = channel.put(1)
        with pytest.raises(KeyError):
            call.throw(error)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            call.send(None)
    assert len(channel) == 0


async def test_a_suspended_one_is_closed_and_thrown_into(channel: Any) -> None:
    """It goes to where it waits; what it held is given back."""
    first, second = channel.get(), channel.get()
    first.send(None), second.send(None)
    with pytest.raises(KeyError):
        first.throw(KeyError("k"))
    second.close()
    assert channel.put_nowait(1)
    assert await channel.get() == 1


@pytest.mark.parametrize("collected", [False, True])
def test_one_that_nobody_awaits_warns(channel: Any, collected: bool) -> None:
    """When it is dropped or collected; not when it was closed."""
    channel.put(1).close()
    item = Marker()
    if collected:
        item.call = channel.put(item)  # type: ignore[attr-defined]
    gone = weakref.ref(item)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not collected:
            channel.put(item)
        del item
        gc.collect()
    assert [str(warning.message) for warning in caught] == ["coroutine 'BoundedChannel.put' was never awaited"]
    assert caught[0].category is RuntimeWarning
    caught.clear()
    gc.collect()
    assert gone() is None
    assert len(channel) == 0


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_error_is_not_raised(channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody to raise it to; an error that is on its way stays."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told_of: told.append(told_of.exc_type))

    def fails() -> None:
        call = channel.put(1)  # noqa: F841
        raise KeyError("k")

    with pytest.raises(KeyError) as caught:
        fails()
    del caught
    gc.collect()
    assert told == [RuntimeWarning]


def test_one_that_is_kept_by_its_warning_can_still_be_awaited(channel: Any) -> None:
    """And does not warn again."""
    kept: list[Any] = []
    with mock.patch("warnings.warn", side_effect=lambda *one, **named: kept.extend([*one, *named.values()])):
        channel.put(1)
    calls = [one for one in kept if inspect.iscoroutine(one)]
    del kept[:]
    for call in calls:
        with pytest.raises(StopIteration):
            call.send(None)
    assert len(channel) == len(calls)


def test_a_weak_reference_ends_with_its_call(channel: Any) -> None:
    """It is told of, and does not lead to a later call in the same memory."""
    told: list[Any] = []
    call = channel.put(1)
    gone = weakref.ref(call, told.append)
    call.close()
    del call
    later = channel.put(2)
    assert gone() is None
    assert told == [gone]
    later.close()


async def test_an_awaitable_of_ones_own_goes_through_it(channel: Any) -> None:
    """`yield from` the iterator of `__await__`, whether it waits or not."""

    class Own:
        def __await__(self) -> Any:
            yield from channel.put(1).__await__()
            return (yield from channel.get().__await__())

    assert await Own() == 1
    channel.put_nowait(2), channel.put_nowait(3)
    own = asyncio.ensure_future(Own())
    await asyncio.sleep(0)
    assert await channel.get_many(2) == [2, 3]
    assert await own == 1


async def test_tasks_run_it(store: Any, channel: Any) -> None:
    """Every way to start a coroutine takes one, whether it waits or not."""
    assert await asyncio.create_task(store.append("a", [Happened()])) == 1
    assert await asyncio.gather(store.append("a", [Happened()]), channel.put(1)) == [2, None]
    assert await asyncio.wait_for(channel.get(), 5) == 1
    async with asyncio.TaskGroup() as group:
        got = group.create_task(channel.get())
        group.create_task(channel.put(2))
    assert got.result() == 2
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.put, 3)
        tasks.start_soon(store.append, "a", [Happened()])
    assert await channel.get() == 3
    assert await store.append("a", []) == 3
    future = asyncio.run_coroutine_threadsafe(channel.put(4), asyncio.get_running_loop())
    await asyncio.wrap_future(future)
    task = asyncio.create_task(channel.get(), name="t")
    assert "BoundedChannel.get()" in repr(task)
    assert await asyncio.shield(task) == 4
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(channel.get(), 0.001)


def test_it_runs_in_a_loop_of_its_own(store: Any) -> None:
    """`asyncio.run`, also in debug mode."""
    assert asyncio.run(store.append("a", [Happened()])) == 1
    assert asyncio.run(store.append("a", [Happened()]), debug=True) == 2


@pytest.mark.parametrize("moment", range(3))
async def test_it_is_cancelled_at_any_moment(channel: Any, moment: int) -> None:
    """Before the start, while it waits, and when it is woken: nothing is put or taken."""
    channel.put_nowait(1), channel.put_nowait(2)
    task = asyncio.create_task(channel.put(3))
    if moment:
        await asyncio.sleep(0)
    if moment == 2:
        assert await channel.get() == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await channel.get_many(9) == ([2] if moment == 2 else [1, 2])
    waiting = asyncio.create_task(channel.get())
    if moment:
        await asyncio.sleep(0)
    if moment == 2:
        assert channel.put_nowait(4)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert channel.is_empty == (moment < 2)


async def test_errors_come_from_the_usual_case_too(store: Any) -> None:
    """With their arguments, and chained to what is being handled."""
    await store.append("a", [Happened()])
    try:
        raise KeyError("k")
    except KeyError:
        with pytest.raises(ConcurrencyError) as caught:
            await store.append("a", [Happened()], 7)
    assert caught.value.expected_version == 7
    assert caught.value.actual_version == 1
    assert await store.append("a", [], None) == 1


async def test_it_lets_go_of_its_arguments(store: Any, channel: Any) -> None:
    """As soon as it has ended, while somebody still holds it."""
    events: list[Any] = [Happened()]
    before = sys.getrefcount(events)
    call = store.append("a", events)
    assert sys.getrefcount(events) == before + 1
    await call
    assert sys.getrefcount(events) == before
    for end in (
        lambda one: one.close(),
        lambda one: refuse(one.throw, KeyError("k")),
        lambda one: one.cr_frame and one.close(),
    ):
        call = store.append("a", events)
        end(call)
        if sys.version_info >= (3, 12):
            del call  # there, a coroutine that never began keeps them as long as it lives
        gc.collect()  # the error's frames
        assert sys.getrefcount(events) == before
    item = Marker()
    gone = weakref.ref(item)
    await channel.put(item)
    del item
    await channel.get()
    assert gone() is None


def refuse(call: Callable[..., Any], *values: Any) -> None:
    with pytest.raises(KeyError):
        call(*values)


async def test_it_can_be_called_from_within_itself(way: str) -> None:
    """An event that is evicted by an append may append when it dies; the call that runs says that it runs."""
    store = class_with(InMemoryEventStore, way)(max_events_per_stream=1)
    seen: list[Any] = []

    class Dying(Event):
        value: int = 0

        def __del__(self) -> None:
            if self.value:
                seen.append((calls[0].cr_running, inspect.getcoroutinestate(calls[0])))
                for step in (lambda: calls[0].send(None), calls[0].close):
                    with pytest.raises(ValueError, match="already executing"):
                        step()
                with pytest.raises(StopIteration) as ended:
                    store.append("b", [Dying()]).send(None)
                seen.append(ended.value.value)

    await store.append("a", [Dying(value=1)])
    calls = [store.append("a", [Dying()])]
    assert await calls[0] == 2
    gc.collect()
    assert seen == [(True, inspect.CORO_RUNNING), 1]
    calls.clear()


def test_threads_use_it_at_once(store: Any) -> None:
    """Each with calls of its own."""
    failures: list[BaseException] = []

    async def work(name: str) -> None:
        for n in range(2000):
            assert await store.append(name, [Happened()]) == n + 1

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.get_global_position() == 8000


async def test_debuggers_and_profilers_see_the_same(store: Any) -> None:
    """Awaiting under a trace function goes another way through the interpreter."""
    former = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        version = await store.append("a", [Happened()])
        events = await store.read("a")
    finally:
        sys.settrace(former)
    assert (version, len(events)) == (1, 1)


async def test_ten_thousand_at_once(store: Any) -> None:
    """More calls than are kept for later use."""
    calls = [store.append("a", [Happened()]) for _ in range(10_000)]
    assert [await call for call in calls] == list(range(1, 10_001))
