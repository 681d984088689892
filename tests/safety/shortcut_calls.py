"""The ways in which methods with a shortcut, their calls and the store in memory succeed and fail; see `core_calls.py`."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from functools import partial
from typing import Any

from lexigram.events import InMemoryEventStore, _core
from lexigram.events.buses.channel import BoundedChannel
from lexigram.events.exceptions import ConcurrencyError
from tests.safety.message_calls import Case, Future, Plain, Rich, World, quietly, refused


async def delay(self: Any, item: Any, seconds: float = 0) -> Any:
    """Return the item later if `seconds` is not 0."""
    if seconds:
        await asyncio.sleep(seconds)
    return item


async def many(self: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> None:
    """Take more than a shortcut has room for."""


def shortened(always: bool = True) -> Any:
    """Return a method whose shortcut only counts for channels."""
    return _core.put_shortcut(types.FunctionType(delay.__code__, globals(), "delay", delay.__defaults__), always=always)


def on_call(use: Callable[[World, Any], Any], *, items: int = 0) -> Case:
    """Return a case on a call that puts, which is closed afterwards; on a full channel its coroutine takes over."""

    def run(world: World) -> None:
        channel = ShortChannel(2)
        for _ in range(items):
            channel.put_nowait(world.value)
        call = channel.put(world.value)
        try:
            use(world, call)
        finally:
            call.close()

    return run


class Waiting(Future):
    """A future that is awaited by hand."""

    def __await__(self) -> Any:
        yield self


class ShortChannel(BoundedChannel):
    """A channel whose `put` has its shortcut on every version of Python; it waits in no event loop."""

    @partial(_core.put_shortcut, always=True)
    async def put(self, item: Any) -> None:
        if not self.put_nowait(item):
            await Waiting()


def stepped(call: Any, *, value: Any = None) -> Any:
    """Take one step and return how it went."""
    try:
        return call.send(value)
    except (StopIteration, RuntimeError, TypeError) as error:
        return error


def on_memory(use: Callable[[World, Any], Any]) -> Case:
    """Return a case on a new store that knows two classes."""

    def run(world: World) -> None:
        store = InMemoryEventStore()
        store.log.learn(Plain, "Plain"), store.log.learn(Rich, "Rich")
        use(world, store)

    return run


SHORTCUT: dict[str, dict[str, Case]] = {
    **{
        name: {
            "both": lambda w, name=name: [getattr(_core, name)(delay, always=always) for always in (True, False)],
            "refused": refused(AttributeError, lambda w, name=name: getattr(_core, name)(w.value, always=True)),
            "too many": refused(TypeError, lambda w, name=name: getattr(_core, name)(many, always=True)),
        }
        for name in ("append_shortcut", "read_shortcut", "put_shortcut", "get_shortcut")
    },
    "ShortcutMethod": {"refused": refused(TypeError, lambda w: type(shortened())())},
    "ShortcutMethod.__call__": {
        "usual": lambda w: shortened().__call__(w, w.value).close(),
        "by name": lambda w: [shortened()(w, item=w.value, seconds=1).close(), shortened()(w, w.value, 2).close()],
        "wrong": refused(TypeError, lambda w: shortened()(w.value), lambda w: shortened()(w, w.value, item=w.value), lambda w: shortened()(w, w.value, other=w)),
    },
    "ShortcutMethod.__get__": {
        "both": lambda w: [type(shortened()).__get__(shortened(), one, World) for one in (None, w.value)],
    },
    "ShortcutMethod.__getattribute__": {
        "function's": lambda w: [shortened().__name__, shortened().__class__],
        "none": refused(AttributeError, lambda w: shortened().nothing),
    },
    "ShortcutMethod.__reduce_ex__": {"name": lambda w: shortened().__reduce_ex__(2)},
    "ShortcutMethod.__setattr__": {
        "set": lambda w: setattr(shortened(), "mark", w.value),
        "refused": refused(TypeError, lambda w: setattr(shortened(), "__name__", w.value)),
    },
    "ShortcutMethod.__delattr__": {
        "deleted": lambda w: [setattr(m := shortened(), "mark", w.value), delattr(m, "mark")],
        "refused": refused(AttributeError, lambda w: delattr(shortened(), "mark")),
    },
    "ShortcutMethod.__repr__": {"one": lambda w: repr(shortened())},
    "Call": {"refused": refused(TypeError, on_call(lambda w, call: type(call)()))},
    "Call.__await__": {
        "usual": on_call(lambda w, call: quietly(lambda: next(call.__await__()))),
        "waits": on_call(lambda w, call: [next(call.__await__()), call.__await__().close()], items=2),
        "ended": refused(RuntimeError, on_call(lambda w, call: [stepped(call), call.__await__()])),
    },
    "Call.__next__": {
        "usual": on_call(lambda w, call: quietly(lambda: call.__next__())),
        "waits": on_call(lambda w, call: next(call), items=2),
    },
    "Call.send": {
        "usual": on_call(lambda w, call: [stepped(call), stepped(call)]),
        "waits": on_call(lambda w, call: [stepped(call), stepped(call, value=w.value), stepped(call)], items=2),
        "early": on_call(lambda w, call: stepped(call, value=w.value)),
        "no shortcut": lambda w: [stepped(call := shortened()(w, w.value)), stepped(call)],
        "fails": refused(AttributeError, lambda w: [(c := _core.ChannelBase(1))._close(), ShortChannel.put(c, w.value).send(None)]),
    },
    "Call.throw": {
        "fresh": on_call(lambda w, call: quietly(lambda: call.throw(LookupError(w.value)))),
        "waits": on_call(lambda w, call: [stepped(call), quietly(lambda: call.throw(LookupError(w.value)))], items=2),
        "ended": refused(RuntimeError, on_call(lambda w, call: [call.close(), call.throw(LookupError(w.value))])),
        "wrong": refused(TypeError, on_call(lambda w, call: call.throw(w.value))),
    },
    "Call.close": {
        "fresh": on_call(lambda w, call: call.close()),
        "waits": on_call(lambda w, call: [stepped(call), call.close()], items=2),
        "with a frame": on_call(lambda w, call: [call.cr_frame, call.cr_running, call.cr_suspended]),
    },
    "Call.__repr__": {"one": on_call(lambda w, call: repr(call))},
    "MemoryStoreBase": {"any": lambda w: _core.MemoryStoreBase(w.value, a=w.value)},
    "MemoryStoreBase._append_now": {
        "fresh": on_memory(lambda w, store: store._append_now(w.stream, [Plain(), Plain(tags=(w.tag,))], None)),
        "unusual": on_memory(lambda w, store: [store._append_now(*one) for one in (
            (w.value, [Plain()], None), (w.stream, w.value, None), (w.stream, [w.event], None))]),
        "conflict": refused(ConcurrencyError, on_memory(lambda w, store: store._append_now(w.stream, [Plain()], 7))),
        "wakes": on_memory(lambda w, store: [setattr(store._wakeup, "readers", 1), store._append_now(w.stream, [Plain()], 0)]),
        "wakes nobody": refused(AttributeError, on_memory(lambda w, store: [setattr(store, "_wakeup", w.value), store._append_now(w.stream, [Plain()], 0)])),
        "inline": on_memory(lambda w, store: [setattr(store, "_inline", w.value), store._append_now(w.stream, [Plain()], 0)]),
        "bare": lambda w: _core.MemoryStoreBase()._append_now(w.stream, [Plain()], 0),
    },
}  # fmt: skip
