"""Ten thousand cycles through each place of the core that holds an object: the collector sees them all."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from lexigram.events import Event, _core, message_context
from lexigram.events.buses.channel import BoundedChannel
from lexigram.events.messages.codec import EventCodec
from lexigram.events.messages.registry import EventTypeRegistry
from lexigram.events.messages.stamping import rebuild
from tests.safety.message_calls import Do, Future, Plain, Rich
from tests.safety.shortcut_calls import ShortChannel, shortened

CYCLES = 10_000


class Node:
    """An object that holds what holds it."""

    held: Any


def log_of(event: Any, stamp: Any = None) -> _core.EventLog:
    log = _core.EventLog(stamp or (lambda *_: None), 0)
    log.store([("s", [event], ["T"], None, None)])
    return log


def learned(node: Node) -> _core.EventLog:
    log = _core.EventLog(lambda *_: None, 0)
    log.learn(type("Learned", (), {"node": node}), "Learned")
    return log


def foreign(node: Node) -> Any:
    node.event_id, node.tags = UUID(int=id(node)), ()  # type: ignore[attr-defined]
    return node


def channel_with(enter: Callable[[Any], Any]) -> BoundedChannel:
    channel = BoundedChannel(2)
    enter(channel)
    return channel


def handed_over(node: Node) -> BoundedChannel:
    channel, getter = BoundedChannel(1), Future()
    channel._enlist_getter(getter)
    channel.put_nowait(node)
    return channel


def future_of(node: Node) -> Future:
    future = Future()
    future.node = node  # type: ignore[attr-defined]
    return future


class Registry(EventTypeRegistry):
    node: Any = None


def codec_of(node: Node) -> EventCodec:
    registry = Registry()
    registry.node = node
    return EventCodec(registry)


def under(node: Node) -> Any:
    with message_context(Do(value=node)):
        return Do()


def stream_of(value: Any) -> Any:
    return log_of(Rich(value=value)).stream(0, 2, None, None, None)


def fetched(node: Node) -> Any:
    """Return a stream that alone holds an event of the node."""
    log = log_of(Plain())
    log.store([("t", [Rich(value=node)], ["T"], None, None)])
    stream: Any = log.stream(0, 2, None, None, None)
    with pytest.raises(StopIteration):
        stream.__anext__().__next__()
    log.clear()
    return stream


def thrown(node: Node) -> Any:
    error = LookupError(node)
    return stream_of(1).athrow(error)


def set_on(name: str) -> Callable[[Node], Any]:
    def make(node: Node) -> Any:
        event = Rich(value=1)
        object.__setattr__(event, name, node)
        return event

    return make


def called(channel: ShortChannel, node: Node) -> Any:
    channel.node = node  # type: ignore[attr-defined]
    return channel.put(1)


def waiting_put(node: Node) -> Any:
    channel = ShortChannel(1)
    channel.put_nowait(1)
    call = channel.put(node)
    call.send(None)
    return call


def method_of(node: Node) -> Any:
    method = shortened()
    method.node = node
    return method


def store_with(name: str, node: Node) -> Any:
    store = _core.MemoryStoreBase()
    setattr(store, name, node)
    return store


PLACES: dict[str, Callable[[Node], Any]] = {
    "field": lambda node: Rich(value=node),
    "field of a copy": lambda node: Rich(value=1)._with(value=node),
    "field of a rebuilt one": lambda node: rebuild(Rich, {"value": [node]}),
    "tuple in a field": lambda node: Rich(value=(1, (node,))),
    "event in a field": lambda node: Rich(value=Rich(value=node)),
    "attribute": lambda node: Event(a=node),
    "metadata dictionary": lambda node: Rich(value=1, metadata={"a": node}),
    "command in its context": under,
    **{name: set_on(name) for name in ("aggregate_id", "aggregate_type", "correlation_id", "causation_id", "actor_id")},
    "log, by an event": lambda node: log_of(Rich(value=node)),
    "log, by a foreign event": lambda node: log_of(foreign(node)),
    "log, by its stamp": lambda node: log_of(Rich(value=1), lambda *_: node),
    "log, by a class": learned,
    "channel, by an item": lambda node: channel_with(lambda channel: channel.put_nowait(node)),
    "channel, by an item for a getter": handed_over,
    "channel, by a getter": lambda node: channel_with(lambda channel: channel._enlist_getter(future_of(node))),
    "channel, by a putter": lambda node: channel_with(lambda channel: channel._enlist_putter(future_of(node))),
    "stream, by its log": lambda node: stream_of(node),
    "stream, by its step": lambda node: stream_of(node).__anext__(),
    "stream, by what it fetched": fetched,
    "call, by its argument": lambda node: ShortChannel(1).put(node),
    "call, by what it is called on": lambda node: called(ShortChannel(1), node),
    "call, by its coroutine": waiting_put,
    "method, by its function": method_of,
    "store, by its hooks": lambda node: store_with("_hooks", node),
    "store, by its inline projections": lambda node: store_with("_inline", node),
    "store, by its wakeup": lambda node: store_with("_wakeup", node),
    "store, by its evolution": lambda node: store_with("_schema_evolution", node),
    "stream, by its end": thrown,
    "codec, by its registry": codec_of,
}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("place", PLACES)
def test_ten_thousand_cycles_are_collected(place: str) -> None:
    """Each node holds an object of the core that holds the node in this place; afterwards none is left."""
    make, alive = PLACES[place], []
    gc.collect()
    gc.disable()
    try:
        for _ in range(CYCLES):
            node = Node()
            node.held = make(node)
            alive.append(weakref.ref(node))
        del node
    finally:
        gc.enable()
    gc.collect()
    assert sum(reference() is not None for reference in alive) == 0
    assert gc.garbage == []
