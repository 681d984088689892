"""Calls that nobody should make: each gets an error or its way, never a crash, a deadlock or a lost event."""

from __future__ import annotations

import enum
import functools
import gc
import os
import sysconfig
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import pytest

from lexigram.events import DomainEvent, EventCodec, SerializationError, _core
from tests.unit.messages.codec_samples import both

LARGE_FRAMES = bool(sysconfig.get_config_var("Py_DEBUG")) or "asan" in os.environ.get("LD_PRELOAD", "")


class Narrow(DomainEvent):
    a: int


class Twin(DomainEvent):
    b: int


class Wide(DomainEvent):
    a: int = 0
    b: int = 0
    c: int = 0


def log_of(*events: Any) -> _core.EventLog:
    log = _core.EventLog(lambda *_: None, 0)
    log.learn(Narrow, "Narrow")
    log.append("s", list(events), None)
    return log


# Layout: an object must never be seen through the descriptors of a class with more words.


def test_an_event_never_becomes_one_of_a_class_with_more_fields() -> None:
    """Also past the `__class__` of our own; a class of the same size would do no harm."""
    event: Any = Narrow(a=1)
    Wide(), Twin(b=1)
    assign = vars(object)["__class__"].__set__
    for other in (Wide, DomainEvent, type("Unused", (DomainEvent,), {"__annotations__": {"a": int, "b": int}})):
        with pytest.raises(TypeError, match="assignment"):
            assign(event, other)
    with pytest.raises(AttributeError):
        event.__class__ = Twin
    assert (type(event), event.a) == (Narrow, 1)
    assign(event, Twin)
    assert event.b == 1


def test_a_class_never_gets_a_base_with_more_fields() -> None:
    """`__bases__` of a compiled class can change only to bases of the same size."""

    class Child(Narrow):
        pass

    child: Any = Child(a=1)
    Wide()
    with pytest.raises(TypeError, match="assignment"):
        Child.__bases__ = (Wide,)
    assert not hasattr(child, "c")


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 65, 300])
def test_classes_of_every_size_keep_their_fields(count: int) -> None:
    """Beyond 32 fields objects are a little larger than needed, never smaller."""
    names = [f"f{n}" for n in range(count)]
    cls: Any = type("Many", (DomainEvent,), {"__annotations__": dict.fromkeys(names, int)})
    derived: Any = type("More", (cls,), {"__annotations__": {"last": int}})
    event = cls(**{name: n for n, name in enumerate(names)})
    child = derived(last=-1, **{name: n for n, name in enumerate(names)})
    assert [getattr(event, name) for name in names] == [getattr(child, name) for name in names] == list(range(count))
    assert child.last == -1


# The log


@pytest.mark.parametrize("partition", [(0, 0), (3, 3), (2**64 - 1, 1)])
def test_a_partition_that_cannot_be_is_refused(partition: tuple[int, int]) -> None:
    """A `ValueError`, not a division by zero in the core."""
    log = log_of(Narrow(a=1))
    with pytest.raises(ValueError, match="no partition"):
        log.page(0, None, None, None, partition, False)
    with pytest.raises(ValueError, match="no partition"):
        log.count(0, None, None, partition)


def test_events_without_a_type_name_are_refused_not_dropped() -> None:
    """As many names as events, or nothing is written."""
    log = log_of()
    for names in (["Narrow"], ["Narrow"] * 3, []):
        with pytest.raises(ValueError, match="2 events with"):
            log.store([("s", [Narrow(a=1), Narrow(a=2)], names, None, None)])
    assert (len(log), log.head()) == (0, 0)


def test_the_largest_numbers_are_numbers_like_others() -> None:
    """Nothing overflows at the ends of the integers."""
    top, events = 2**64 - 1, [Narrow(a=1), Narrow(a=2)]
    log = log_of(*events)
    assert log.page(0, 0, None, None, None, True) == ([], 0, [])
    assert log.page(0, 2**63, top, None, (0, 1), False)[0] == events
    assert log.page(top, None, top, None, None, False) == ([], top, [])
    assert log.count(top, top, [(None, ["tag"])], (0, 1)) == 0
    assert log.read("s", 2**63 - 1, 2**63 - 1, 2**63 - 1) == []
    assert log.compact("s", top) == 2


# The codec


def test_a_class_may_be_encoded_while_its_plan_is_made() -> None:
    """Code of the class's own parts that runs meanwhile uses the same class: no deadlock, the same bytes."""
    codec, made, entered = EventCodec(), [], []

    class Sly(enum.Enum):
        ONE = 1

        @property
        def value(self) -> Any:
            if len(entered) < 3:
                entered.append(1)
                made.append(codec.encode(Reads(c=1)).payload)
            return 1

    class Reads(DomainEvent):
        c: int
        sly: Any = None

    Reads.__annotations__["sly"] = Sly
    Reads.__dataclass_fields__["sly"].type = Sly  # type: ignore[attr-defined]
    payload = codec.encode(Reads(c=1, sly=Sly.ONE)).payload
    assert len(made) == 3
    assert all(b'"c":1' in one for one in (payload, *made))
    assert codec.decode(codec.encode(Reads(c=2)).type_name, "Reads", payload, 1, 1).sly is Sly.ONE  # type: ignore[attr-defined]


def test_threads_may_make_the_plan_of_one_class_together() -> None:
    """The first one is kept, and all encode alike."""
    codec, barrier = EventCodec(), threading.Barrier(4)

    class Slow(enum.Enum):
        ONE = 1

        @property
        def value(self) -> Any:
            threading.Event().wait(0.001)
            return 1

    @dataclass
    class Shared:
        slow: Any

    Shared.__annotations__["slow"] = Slow
    Shared.__dataclass_fields__["slow"].type = Slow  # type: ignore[attr-defined]
    seen: list[bytes] = []

    def work() -> None:
        barrier.wait(10)
        seen.append(codec.encode_value(Shared(Slow.ONE), Shared))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [b'{"slow":1}'] * 4


@both
def test_a_typed_dictionary_that_changes_meanwhile_is_refused(codec: EventCodec) -> None:
    """Grown, shrunk, or with other keys of the same number, by a value that is not of the annotated type."""

    class Trap:
        def __get__(self, instance: Any, owner: Any = None) -> Any:
            changes[-1](victim)
            return 1

    sly: Any = dataclass(eq=False)(type("Sly", (), {"__annotations__": {"a": int}}))
    sly.a = Trap()

    def grow(victim: dict[int, Any]) -> None:
        victim[max(victim) + 1] = 1

    def shrink(victim: dict[int, Any]) -> None:
        victim.pop(max(victim))

    def turn(victim: dict[int, Any]) -> None:
        victim[max(victim) + 1] = object.__new__(sly)
        del victim[min(victim)]

    changes: list[Any] = []
    for change in (grow, shrink, turn):
        changes.append(change)
        victim: dict[int, Any] = {n: n for n in range(20)}
        victim[10] = object.__new__(sly)
        try:
            data = codec.encode_value(victim, dict[int, int])
        except SerializationError:
            continue
        assert codec.decode_value(data, dict[Any, Any])


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def many_records(count: int, name: bytes, value: bytes) -> bytes:
    """Return the binary form of a list of records whose only field is said once."""
    first = b"\x18\x00\x01" + varint(len(name)) + name + value
    return b"\xe2\x12" + varint(count) + first + (b"\x18\x01" + value) * (count - 1)


def test_a_small_payload_cannot_expand_without_bound() -> None:
    """110 kB of references to one long name were a gigabyte of JSON; such a payload is refused on every way in."""
    codec, to_json = EventCodec(), _core.CodecCore.to_json
    with pytest.raises(SerializationError, match="256 MB"):
        to_json(many_records(30_000, b"x" * 50_000, b"\x00"))
    names_only = many_records(30_000, b"x" * 50_000, b"\x1a")
    for read in (to_json, codec.decode_value, lambda data: codec.decode_value(data, set)):
        with pytest.raises(SerializationError, match="fewer or shorter names"):
            read(names_only)
    assert len(codec.decode_value(many_records(30_000, b"x" * 50, b"\x00"))) == 30_000


@pytest.mark.skipif(LARGE_FRAMES, reason="unoptimised or watched code needs more stack")
@pytest.mark.parametrize("shape", ["lists", "dicts", "records", "refused"])
@both
def test_the_deepest_nesting_fits_a_small_stack(codec: EventCodec, shape: str) -> None:
    """A thread with 256 kB reads and writes the deepest values allowed and refuses deeper data."""
    value: Any = None
    for _ in range(126 if shape != "records" else 62):
        value = {"lists": [value], "dicts": {"a": value}, "records": Nest(value)}.get(shape, [value])
    data = codec.encode_value(value)
    deeper = [b"[" * 5000, b'{"a":' * 5000, b"\xe2" + b"\x12\x01" * 5000, b"\xe2" + b"\x1b\x01x" * 5000]
    outcome: list[Any] = []

    def work() -> None:
        if shape == "refused":
            for damaged in deeper:
                for read in (codec.decode_value, _core.CodecCore.to_json if damaged[0] == 0xE2 else codec.decode_value):
                    try:
                        read(damaged)
                    except SerializationError as error:
                        outcome.append(type(error))
        else:
            outcome.append(codec.decode_value(data) == value and codec.encode_value(value) == data)
            outcome.append(len(_core.CodecCore.to_json(data)) > 0)

    threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
    finally:
        threading.stack_size(0)
    assert outcome == ([SerializationError] * 8 if shape == "refused" else [True, True])


@dataclass
class Nest:
    inner: Any


# The collector


def test_what_is_cached_on_an_event_may_lead_back_to_it() -> None:
    """`functools.cached_property` and other writers of `__dict__` make cycles that the collector sees."""

    class Summed(DomainEvent):
        a: int

        @functools.cached_property
        def again(self) -> Any:
            return lambda: self.a

    refs = []
    for _ in range(100):
        event = Summed(a=1)
        assert event.again() == 1
        refs.append(weakref.ref(event.again))
        other = Summed(a=2)
        other.__dict__["me"] = mark = lambda other=other: other
        refs.append(weakref.ref(mark))
    del event, other, mark
    gc.collect()
    assert [ref() for ref in refs if ref() is not None] == []


def test_a_class_may_get_its_finalizer_late() -> None:
    """A `__del__` that is set after the first event brings one back that is whole and tracked."""
    saved: list[Any] = []

    class Late(DomainEvent):
        a: int

    Late(a=1)
    Late.__del__ = lambda self: saved.append(self)  # type: ignore[attr-defined]
    Late(a=2)
    assert [event.a for event in saved] == [2]
    assert gc.is_tracked(saved[0])
    del Late.__del__  # type: ignore[attr-defined]


# The channel


def test_a_waiter_that_cannot_be_woken_does_not_keep_others_waiting() -> None:
    """The failure (its event loop is closed) is raised after everybody else was woken."""

    class Future:
        def __init__(self, *errors: Exception) -> None:
            self.errors, self.results = list(errors), []

        def done(self) -> bool:
            return False

        def set_result(self, result: Any) -> None:
            if self.errors:
                raise self.errors.pop()
            self.results.append(result)

    channel: Any = _core.ChannelBase(2)
    channel.put_nowait(1), channel.put_nowait(2)
    futures = [Future(), Future(RuntimeError("Event loop is closed")), Future()]
    for future in futures:
        channel._enlist_putter(future)
    with pytest.raises(RuntimeError, match="closed"):
        channel._close()
    assert [future.results for future in futures] == [[None], [], [None]]
