"""The ways in which each call of log, channel, streams and codec succeeds and fails, by name; see `message_calls.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lexigram.events import EventValidationError, SerializationError, _core
from lexigram.events.buses.channel import BoundedChannel
from lexigram.events.exceptions import ConcurrencyError, EventPersistenceError
from lexigram.events.messages.registry import default_registry
from tests.safety.message_calls import (
    CONSTRUCTORS,
    FUNCTIONS,
    META,
    Case,
    Future,
    Listed,
    Plain,
    Rich,
    World,
    message_class,
    quietly,
    refused,
)
from tests.safety.shortcut_calls import SHORTCUT


def on_log(call: Callable[[World, Any], Any], keep: int = 0) -> Case:
    """Return a case on a new log of three events."""
    return lambda w: call(w, w.log(Rich(value=1, tags=(w.tag,)), Plain(), w.foreign, keep=keep))


def on_channel(call: Callable[[World, Any], Any], *, items: int = 0, closed: bool = False) -> Case:
    """Return a case on a new channel of capacity 2."""

    def run(world: World) -> None:
        channel = BoundedChannel(2)
        for _ in range(items):
            channel.put_nowait(world.value)
        if closed:
            channel._close()
        call(world, channel)

    return run


def on_stream(call: Callable[[World, Any], Any]) -> Case:
    """Return a case on a new stream of three events, two at a time."""
    return on_log(lambda w, log: call(w, log.stream(0, 2, None, None, None)))


def empty_stream() -> Any:
    """Return a stream without events."""
    return _core.EventLog(print, 0).stream(0, 1, None, None, None)


def waiting(world: World, channel: Any) -> Future:
    future = Future()
    assert channel._enlist_getter(future)
    return future


def handed(world: World, channel: Any) -> Future:
    future = waiting(world, channel)
    channel.put_nowait(world.value)
    return future


def queued(world: World, channel: Any) -> Future:
    future = Future()
    channel._enlist_putter(future)
    return future


def conflict(world: World, log: _core.EventLog) -> None:
    for call in (
        lambda: log.append(world.stream, [Plain()], 7),
        lambda: log.store([(world.stream, [world.event], ["Rich"], 7, None)]),
        lambda: log.check((world.stream, [world.event], ["Rich"], None, (world.kinds, 0))),
    ):
        with pytest.raises(ConcurrencyError):
            call()
    event = log.read(world.stream, 0, None, 1)
    with pytest.raises(EventPersistenceError):
        log.store([(world.stream, [*(event or ()), world.event], world.names, None, None)])


LOG: dict[str, dict[str, Case]] = {
    "EventLog": {
        "new": lambda w: _core.EventLog(w.value, 5),  # type: ignore[arg-type]
        "refused": refused(OverflowError, lambda w: _core.EventLog(w.stamp, -1)),
    },
    "EventLog.__len__": {"three": on_log(lambda w, log: len(log))},
    "EventLog.append": {
        "fresh": on_log(lambda w, log: [log.append(w.stream, [Plain(), Plain(tags=(w.tag,))], 3 + 2 * n) for n in range(3)]),
        "evicting": on_log(lambda w, log: log.append(w.stream, [Plain() for _ in range(5)], None), keep=2),
        "unusual": on_log(lambda w, log: [log.append(*one) for one in (
            (w.value, [Plain()], None), (w.stream, w.value, None), (w.stream, [w.value], None), (w.stream, [], None),
            (w.stream, [w.event, w.foreign], None), (w.stream, [Listed(value=1)], None), (w.stream, [Plain()], w.value))]),
        "conflict": on_log(conflict),
    },
    "EventLog.store": {
        "batches": on_log(lambda w, log: log.store([(w.stream, [w.foreign], ["F"], 3, None), (w.tag, [Plain()], ["P"], 0, (w.kinds, 99))])),
        "retry": on_log(lambda w, log: log.store([(w.stream, log.read(w.stream, 0, None, None), [*w.names, "F"], None, None)])),
        "evicting": on_log(lambda w, log: log.store([(w.stream, [Plain(), Plain()], w.names, None, None)]), keep=1),
        "conflict": on_log(conflict),
        "refused": refused(ValueError, lambda w: w.log().store([(w.stream, [w.event], [], None, None)])),
        "foreign fails": refused(AttributeError, lambda w: w.log().store([(w.stream, [w.value], ["F"], None, None)])),
        "stamp fails": refused(TypeError, lambda w: _core.EventLog(w.value, 0).store([(w.stream, [w.foreign], ["F"], None, None)])),  # type: ignore[arg-type]
    },
    "EventLog.check": {
        "fresh": on_log(lambda w, log: log.check((w.tag, [Plain()], ["P"], 0, None))),
        "retry": on_log(lambda w, log: log.check((w.stream, log.read(w.stream, 0, None, None), [*w.names, "F"], None, None))),
        "conflict": on_log(conflict),
    },
    "EventLog.learn": {
        "again": on_log(lambda w, log: [log.learn(Plain, w.tag) for _ in range(3)]),
        "refused": refused(TypeError, lambda w: w.log().learn(w.value, "x"), lambda w: w.log().learn(Plain, w.value)),  # type: ignore[arg-type]
    },
    "EventLog.read": {
        "all": on_log(lambda w, log: log.read(w.stream, 0, None, None)),
        "part": on_log(lambda w, log: log.read(w.stream, 2, 2, 1)),
        "unusual": on_log(lambda w, log: [log.read(w.stream, *one) for one in ((w.value, 1, 1), (1, w.value, 1), (1, 1, w.value), (-1, 1, 1))]),
    },
    "EventLog.page": {
        "all": on_log(lambda w, log: log.page(0, None, None, None, None, True)),
        "query": on_log(lambda w, log: log.page(0, 1, 3, w.kinds, (0, 1), True)),
        "refused": refused(ValueError, lambda w: w.log(Plain()).page(0, None, None, w.kinds, (1, 1), True)),
        "wrong": refused(TypeError, lambda w: w.log().page(0, None, None, [(w.value, [w.tag])], None, True)),  # type: ignore[list-item]
    },
    "EventLog.stream": {
        "all": on_log(lambda w, log: [quietly(log.stream(0, 2, None, None, None).__anext__().__next__) for _ in range(2)]),
        "query": on_log(lambda w, log: quietly(log.stream(1, 9, 3, w.kinds, (0, 1)).__anext__().__next__)),
        "fetched": on_log(lambda w, log: (s := log.stream(0, 9, None, None, None), quietly(s.__anext__().__next__), log.clear(), s)),
        "none": on_log(lambda w, log: [log.stream(*a, w.kinds, None) for a in ((w.value, 1, None), (0, 0, None), (0, 1, -1))]),
        "refused": refused(ValueError, lambda w: w.log(Plain()).stream(0, 1, None, w.kinds, (1, 1))),
        "wrong": refused(TypeError, lambda w: w.log().stream(0, 1, None, [(w.value, [w.tag])], None)),  # type: ignore[list-item]
    },
    "EventLog.count": {
        "all": on_log(lambda w, log: log.count(0, None, None, None)),
        "query": on_log(lambda w, log: log.count(0, 3, w.kinds, (0, 1))),
        "refused": refused(ValueError, lambda w: w.log(Plain()).count(0, None, w.kinds, (1, 1))),
    },
    "EventLog.bounds": {"both": on_log(lambda w, log: (log.bounds(w.stream), log.bounds(w.tag)))},
    "EventLog.head": {"three": on_log(lambda w, log: log.head())},
    "EventLog.compact": {"some": on_log(lambda w, log: (log.compact(w.stream, 2), log.compact(w.tag, 2)))},
    "EventLog.removals": {"some": on_log(lambda w, log: (log.compact(w.stream, 2), log.removals()))},
    "EventLog.stream_ids": {"one": on_log(lambda w, log: log.stream_ids())},
    "EventLog.clear": {"again": on_log(lambda w, log: (log.clear(), log.clear(), log.read(w.stream, 0, None, None)))},
}  # fmt: skip

CHANNEL: dict[str, dict[str, Case]] = {
    "ChannelBase": {
        "new": lambda w: BoundedChannel(3),
        "refused": refused(EventValidationError, lambda w: BoundedChannel(0)),
        "range": refused(OverflowError, lambda w: BoundedChannel(-1)),
    },
    "ChannelBase.__len__": {"one": on_channel(lambda w, c: len(c), items=1)},
    "ChannelBase.__bool__": {"one": on_channel(lambda w, c: bool(c))},
    "ChannelBase.put_nowait": {
        "room and none": on_channel(lambda w, c: [c.put_nowait(w.value) for _ in range(4)]),
        "handed": on_channel(handed),
        "closed": refused(Exception, on_channel(lambda w, c: c.put_nowait(w.value), closed=True)),
        "bare": refused(AttributeError, lambda w: [(c := _core.ChannelBase(1))._close(), c.put_nowait(w.value)]),
        "wake fails": refused(AttributeError, on_channel(lambda w, c: (c._enlist_getter(w.value), c.put_nowait(w.value)))),
    },
    "ChannelBase._take": {
        "items": on_channel(lambda w, c: (queued(w, c), [c._take(w.value) for _ in range(3)]), items=2),
        "none": on_channel(lambda w, c: c._take(w.value)),
    },
    "ChannelBase._take_many": {"items": on_channel(lambda w, c: (queued(w, c), c._take_many(9)), items=2)},
    "ChannelBase._enlist_getter": {
        "waits": on_channel(waiting),
        "closed": on_channel(lambda w, c: c._enlist_getter(w.value), closed=True),
    },
    "ChannelBase._collect": {
        "one": on_channel(lambda w, c: c._collect(handed(w, c), 0)),
        "many": on_channel(lambda w, c: (f := handed(w, c), c.put_nowait(w.value), c._collect(f, 5))),
        "closed": refused(Exception, on_channel(lambda w, c: c._collect(w.value, 0))),
    },
    "ChannelBase._leave_getter": {
        "waiting": on_channel(lambda w, c: c._leave_getter(waiting(w, c))),
        "handed": on_channel(lambda w, c: c._leave_getter(handed(w, c))),
        "handed on": on_channel(lambda w, c: (f := handed(w, c), waiting(w, c), c._leave_getter(f))),
        "stranger": on_channel(lambda w, c: c._leave_getter(w.value)),
    },
    "ChannelBase._enlist_putter": {"waits": on_channel(queued, items=2)},
    "ChannelBase._enter": {
        "stored": on_channel(lambda w, c: (queued(w, c), c._take(None), c._enter(w.value)), items=2),
        "handed": on_channel(lambda w, c: (queued(w, c), c._take_many(2), waiting(w, c), c._enter(w.value)), items=2),
        "refused": refused(Exception, on_channel(lambda w, c: c._enter(w.value))),
    },
    "ChannelBase._leave_putter": {
        "waiting": on_channel(lambda w, c: c._leave_putter(queued(w, c)), items=2),
        "admitted": on_channel(lambda w, c: (f := queued(w, c), queued(w, c), c._take(None), c._leave_putter(f)), items=2),
    },
    "ChannelBase._close": {"everybody": on_channel(lambda w, c: (queued(w, c), handed(w, BoundedChannel(1)), c._close()), items=2)},
}  # fmt: skip

STREAM: dict[str, dict[str, Case]] = {
    "EventStream": {
        "new": on_stream(lambda w, s: s),
        "refused": refused(TypeError, lambda w: _core.EventStream()),
    },
    "EventStream.__aiter__": {"itself": on_stream(lambda w, s: aiter(s))},
    "EventStream.__anext__": {"left": on_stream(lambda w, s: s.__anext__())},
    "EventStream.asend": {"left": on_stream(lambda w, s: s.asend(w.value))},
    "EventStream.aclose": {"left": on_stream(lambda w, s: s.aclose())},
    "EventStream.athrow": {
        "instance": on_stream(lambda w, s: s.athrow(LookupError(w.value))),
        "class": on_stream(lambda w, s: (s.athrow(LookupError), s.athrow(LookupError, w.value), s.athrow(LookupError, w.error, None))),
        "refused": refused(TypeError, on_stream(lambda w, s: s.athrow(w.value)), on_stream(lambda w, s: s.athrow(int))),
        "raising": refused(LookupError, on_stream(lambda w, s: s.athrow(raiser(w.error)))),
    },
    "Step": {"refused": refused(TypeError, lambda w: type(empty_stream().__anext__())())},
    "Step.__await__": {"itself": on_stream(lambda w, s: s.__anext__().__await__())},
    "Step.__iter__": {"itself": on_stream(lambda w, s: iter(s.__anext__()))},
    "Step.__next__": {
        "values": on_stream(lambda w, s: [quietly(s.__anext__().__next__) for _ in range(5)]),
    },
    "Closing": {"refused": refused(TypeError, on_stream(lambda w, s: type(s.aclose())()))},
    "Closing.__await__": {"itself": on_stream(lambda w, s: s.aclose().__await__())},
    "Closing.__iter__": {"itself": on_stream(lambda w, s: iter(s.aclose()))},
    "Closing.__next__": {
        "closed": on_stream(lambda w, s: (quietly(s.__anext__().__next__), quietly(s.aclose().__next__), quietly(s.aclose().__next__))),
        "thrown": on_stream(lambda w, s: quietly(s.athrow(LookupError(w.value)).__next__)),
    },
}  # fmt: skip


def raiser(error: Exception) -> Any:
    class Raises(Exception):
        def __init__(self) -> None:
            raise LookupError(error)

    return Raises


def both_codecs(call: Callable[[World, Any, Any], Any]) -> Case:
    return lambda w: [call(w, codec, row) for codec, row in zip((w.json, w.binary), w.rows, strict=True)]


def unknown(*parts: Any) -> Any:
    return parts


CODEC: dict[str, dict[str, Case]] = {
    "CodecCore": {"new": lambda w: (_core.CodecCore(w.value, True), _core.CodecCore(default_registry, False))},
    "CodecCore.encode": {
        "ours": both_codecs(lambda w, codec, row: codec.encode(w.stored)),
        "foreign": both_codecs(lambda w, codec, row: codec.encode(w.foreign)),
        "refused": refused(EventValidationError, lambda w: w.json.encode(w.value), lambda w: w.binary.encode(w.command)),
        "no value": refused(SerializationError, lambda w: w.json.encode(w.event), lambda w: w.binary.encode(w.event)),
    },
    "CodecCore.decode": {
        "row": both_codecs(lambda w, codec, row: codec.decode(row[1], row[2], row[5], 1, 1)),
        "unknown": both_codecs(lambda w, codec, row: codec.decode("nowhere.Nothing", "Nothing", row[5], 1, 1)),
        "other bytes": both_codecs(lambda w, codec, row: [codec.decode(row[1], row[2], kind(row[5]), 1, 1) for kind in (bytearray, memoryview)]),
        "damaged": refused(SerializationError, *(lambda w, f=f, n=n: w.json.decode(*w.rows[f][1:3], w.rows[f][5][:n], 1, 1) for f in (0, 1) for n in (1, 9, 40, -1))),
        "no bytes": refused(SerializationError, lambda w: w.json.decode(w.rows[0][1], "Rich", w.value, 1, 1)),
    },
    "CodecCore.decode_rows": {
        "rows": both_codecs(lambda w, codec, row: codec.decode_rows([(*row[1:3], row[5], 1, 1), [w.tag, w.tag, row[5], 2, None]], unknown)),
        "damaged": refused(SerializationError, lambda w: w.json.decode_rows([(*w.rows[0][1:3], b"{", 1, 1)], unknown)),
        "unknown fails": refused(LookupError, lambda w: w.json.decode_rows([(w.tag, w.tag, b"{}", 1, 1)], lambda *_: {}[w.value])),
        "wrong rows": refused(TypeError, lambda w: w.json.decode_rows(w.value, unknown), lambda w: w.json.decode_rows([w.value], unknown)),
    },
    "CodecCore.encode_value": {
        "any": both_codecs(lambda w, codec, row: codec.encode_value([w.stored, META, row[5]], w.any)),
        "refused": refused(SerializationError, lambda w: w.json.encode_value([w.value], w.any), lambda w: w.binary.encode_value({1: w.changes}, w.any)),
    },
    "CodecCore.decode_value": {
        "any": both_codecs(lambda w, codec, row: codec.decode_value(codec.encode_value([w.stored, META], w.any), w.any)),
        "refused": refused(SerializationError, lambda w: w.json.decode_value(b"[1,", w.any), lambda w: w.json.decode_value(b"\xe2\x12\x02\x00", w.any)),
    },
    "CodecCore.to_json": {
        "both": both_codecs(lambda w, codec, row: codec.to_json(row[5])),
        "refused": refused(SerializationError, lambda w: w.json.to_json(w.value), lambda w: w.json.to_json(w.rows[1][5][:-1])),
    },
    "EncodedEvent": {
        "new": lambda w: _core.EncodedEvent(b"x" * 16, w.stream, w.tag, 1, (w.tag,), b"{}"),
        "refused": refused((TypeError, ValueError), lambda w: _core.EncodedEvent(b"x", w.stream, w.tag, 1, (), b""), lambda w: _core.EncodedEvent(b"x" * 16, w.value, w.tag, 1, (), b"")),  # type: ignore[arg-type]
    },
    "EncodedEvent.__iter__": {"parts": lambda w: list(w.json.encode(w.stored))},
    "EncodedEvent.__repr__": {"one": lambda w: repr(w.json.encode(w.stored))},
    "TypePlan": {"refused": refused(TypeError, lambda w: _core.TypePlan(w.value))},  # type: ignore[call-arg]
    "RecordPlan": {"refused": refused(TypeError, lambda w: _core.RecordPlan(w.value))},  # type: ignore[call-arg]
}  # fmt: skip


CALLS: dict[str, dict[str, Case]] = (
    FUNCTIONS
    | CONSTRUCTORS
    | message_class(_core.EventBase, "event")
    | message_class(_core.MessageBase, "command")
    | LOG
    | CHANNEL
    | SHORTCUT
    | STREAM
    | CODEC
)
