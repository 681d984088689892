"""No public call of the core keeps a reference, an object or memory, whether it succeeds or fails."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

import pytest

from lexigram.events import InMemoryEventStore, _core
from lexigram.events.messages import shapes
from tests.safety.core_calls import CALLS, empty_stream
from tests.safety.message_calls import META, Case, Future, Marker, World
from tests.safety.shortcut_calls import ShortChannel, shortened, stepped
from tests.unit.messages.codec_samples import TYPED

RUNS = 120
INHERITED = {"__doc__", "__module__", "__all__", "__new__", "__annotations__"}


def core_classes() -> dict[str, type]:
    """Return every class of the core by name, those that only its own calls make included."""
    empty_stream().aclose()
    made = [one for one in object.__subclasses__() if one.__module__ == _core.__name__]
    return {one.__name__: one for one in made if not one.__name__.startswith("_")}


def callables() -> dict[str, Callable[..., Any]]:
    """Return every function, class and method of the core by name."""
    found: dict[str, Any] = {name: one for name, one in vars(_core).items() if callable(one)} | core_classes()
    for cls in core_classes().values():
        for name, one in vars(cls).items():
            if name not in INHERITED and not isinstance(one, GetSetDescriptorType | MemberDescriptorType):
                found[f"{cls.__name__}.{name}"] = getattr(cls, name)
    return {name: one for name, one in found.items() if not name.startswith("__")}


def properties() -> dict[str, Any]:
    """Return the descriptors of every attribute of the core's classes by name."""
    kinds = (GetSetDescriptorType, MemberDescriptorType)
    return {
        f"{cls.__name__}.{name}": one
        for cls in core_classes().values()
        for name, one in vars(cls).items()
        if isinstance(one, kinds)
    }


class Heap(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "a", "b", "c", "hblkhd", "d", "e", "uordblks", "f", "g")]


def heap_bytes() -> int:
    """Return the bytes that `malloc` has given out, which is where Rust's memory comes from; 0 where it does not say."""
    try:
        tell = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return 0
    tell.restype = Heap
    found = tell()
    return int(found.uordblks + found.hblkhd)


def counts(watched: list[Any]) -> tuple[list[int], dict[str, int]]:
    gc.collect()
    total = getattr(sys, "gettotalrefcount", lambda: 0)
    references = [sys.getrefcount(one) for one in watched]
    return references, {
        "objects of the collector": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "references of the debug interpreter": total(),
        "bytes": heap_bytes() // 16,  # no allocation is smaller
    }


def growth(run: Callable[[], Any], watched: list[Any]) -> list[str]:
    """Return what is there once more after each run."""
    for _ in range(RUNS // 4):
        run()
    before, totals = counts(watched)
    for _ in range(RUNS):
        run()
    after, totals_after = counts(watched)
    grown = [
        f"{one!r:.50}: {b} → {a}" for one, b, a in zip(watched, before, after, strict=True) if abs(a - b) > RUNS // 3
    ]
    return grown + [
        f"{name}: {totals[name]} → {count}"
        for name, count in totals_after.items()
        if abs(count - totals[name]) > RUNS - RUNS // 3
    ]


def leaks(run: Callable[[], Any], watched: list[Any]) -> list[str]:
    """Return what grows with every run; further looks exclude what is only made once, or by the interpreter."""
    found: list[str] = []
    for _ in range(4):
        found = growth(run, watched)
        if not found:
            break
    return found


def involved(world: World) -> list[Any]:
    """Return the objects whose references are counted: those of the world, their parts, and their classes."""
    objects = [*vars(world).values(), *META.values(), *world.rows[0], *world.names, *world.kinds]
    return [*objects, *{type(one) for one in objects}, None, _core]


def test_every_call_has_its_cases() -> None:
    """A call that is added to the core needs a line in `core_calls.py`, and a line without a call is taken out."""
    assert sorted(callables()) == sorted(CALLS)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in CALLS.items() for case in cases])
def test_no_call_leaks(name: str, case: str) -> None:
    """References of the objects involved, objects, blocks, and bytes of Rust's own stay the same over many calls."""
    world = World()
    run: Case = CALLS[name][case]
    assert leaks(lambda: run(world), involved(world)) == []


def ended(call: Any) -> Any:
    """Return the call after its only step."""
    stepped(call)
    return call


SAMPLES: dict[str, Callable[[World], Any]] = {
    "EventBase": lambda w: w.event,
    "MessageBase": lambda w: w.command,
    "EventLog": lambda w: w.log(),
    "EventStream": lambda w: empty_stream(),
    "Step": lambda w: empty_stream().__anext__(),
    "Closing": lambda w: empty_stream().aclose(),
    "ChannelBase": lambda w: _core.ChannelBase(3),
    "Call": lambda w: ended(ShortChannel(3).put(w.value)),
    "ShortcutMethod": lambda w: shortened(),
    "MemoryStoreBase": lambda w: InMemoryEventStore(),
    "CodecCore": lambda w: w.json,
    "EncodedEvent": lambda w: w.json.encode(w.stored),
    "TypePlan": lambda w: w.any,
    "RecordPlan": lambda w: shapes.record_for(type(w.stored)).plan,  # type: ignore[union-attr]
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_no_call_leaks_what_it_does_not_take(name: str) -> None:
    """Too many arguments, unknown keywords, and `self` of another type are refused and given back."""
    call, world = callables()[name], World()
    instance = [SAMPLES[name.split(".")[0]](world)] if "." in name else []
    value = world.value

    def run() -> None:
        for arguments, keywords in (
            ([*instance, *[value] * 30], {}),
            (instance, {"no_such_argument": value}),
            ([value] if instance else [value] * 20, {"self": value}),
        ):
            try:
                call(*arguments, **keywords)
            except Exception:
                pass

    assert leaks(run, [*involved(world), call]) == []


@pytest.mark.parametrize("name", sorted(properties()))
def test_no_attribute_leaks(name: str) -> None:
    """Read, set to something it takes or refuses, deleted, and asked of an object of another type."""
    world, descriptor = World(), properties()[name]
    instance: Any = SAMPLES[name.split(".")[0]](world)
    was = descriptor.__get__(instance)

    def run() -> None:
        descriptor.__get__(instance)
        for attempt in (
            lambda: descriptor.__get__(world.value),
            lambda: descriptor.__set__(instance, world.value),
            lambda: descriptor.__set__(world.value, 1),
            lambda: descriptor.__delete__(instance),
            lambda: descriptor.__set__(instance, was),
        ):
            try:
                attempt()
            except (TypeError, AttributeError, ValueError):
                pass

    assert leaks(run, involved(world)) == []


@pytest.mark.parametrize("number", range(len(TYPED)))
@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_no_codec_plan_leaks(number: int, binary: bool) -> None:
    """Each annotation both ways: its value, a value of another type, cut bytes, and a part that cannot be stored."""
    annotation, values = TYPED[number]
    value, values = values[0], values[:5]
    world = World()
    codec, plan = (world.binary if binary else world.json), _core.compile_node(shapes.node_for(annotation))
    data = codec.encode_value(value, plan)
    others = [world.stored, 5, "text", 1.5, None, [value], {"a": value}]

    def run() -> None:
        for one in values:
            codec.decode_value(codec.encode_value(one, plan), plan)
        _core.CodecCore.to_json(data)
        for other in others:
            codec.encode_value(other, plan)
        for cut in (1, len(data) // 2, len(data) - 1):
            refuse(lambda cut=cut: codec.decode_value(data[:cut], plan))
        for damaged in (b"\xe2\x00", b'"', b"[[[]]]", b'{"a":{"$type":"uuid","value":1}}', data + b" x"):
            refuse(lambda damaged=damaged: codec.decode_value(damaged, plan))
        for hidden in (world.value, [value, world.value], {"a": [world.value]}):
            refuse(lambda hidden=hidden: codec.encode_value(hidden, plan))

    assert leaks(run, [*involved(world), *values, data, plan, annotation]) == []


def refuse(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception:
        pass


def test_what_is_counted_would_show_a_leak() -> None:
    """The counters themselves: a kept reference, object or block is noticed."""
    kept: list[Any] = []
    marker = Marker()
    assert leaks(lambda: kept.append(marker), [marker])
    assert leaks(lambda: kept.append(Future()), [])
    if sys.getallocatedblocks():  # not counted with PYTHONMALLOC=malloc
        assert leaks(lambda: kept.append(object()), [])
    assert not leaks(lambda: Future(), [marker])
