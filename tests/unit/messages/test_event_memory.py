"""Memory of message objects: references, collector, deep chains, threads, re-entrancy, shutdown."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from lexigram.contracts.events.messages import MessageMetadata
from lexigram.events import Command, DomainEvent, Event, message_context
from lexigram.events.messages.stamping import prepare, rebuild, stamp


class Value:
    """A value whose references are counted."""


class Holder(DomainEvent):
    value: Any
    other: Any = None


@dataclass(frozen=True, slots=True)
class Slotted(DomainEvent):
    value: Any


class Optional(DomainEvent):
    value: Any
    items: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.value is None:
            raise ValueError


class OwnInit(DomainEvent):
    value: Any

    def __init__(self, value: Any) -> None:
        super().__init__(value=value)


class Do(Command[None]):
    value: Any


FULL: dict[str, Any] = {
    "aggregate_id": uuid4(),
    "aggregate_type": "A",
    "correlation_id": uuid4(),
    "causation_id": uuid4(),
    "actor_id": "me",
    "event_type": "other",
    "schema_version": 10**6,
    "tags": ("a",),
    "metadata": {"k": "v"},
}


def failing(call: Callable[[], Any]) -> Callable[[Value], Any]:
    def run(_: Value) -> None:
        with pytest.raises((TypeError, ValueError)):
            call()

    return run


def in_context(value: Value) -> Any:
    with message_context(Do(value=value, metadata=MessageMetadata(user_id="u"))):
        return Holder(value=value), Do(value=value).metadata


CALLS: dict[str, Callable[[Value], Any]] = {
    "construct": lambda v: Holder(value=v),
    "construct with metadata": lambda v: Holder(value=v, other=v, **FULL),
    "construct slotted": lambda v: Slotted(v),
    "construct with own init": lambda v: OwnInit(v),
    "construct ad hoc": lambda v: Event(value=v),
    "construct with container": lambda v: Optional(value=v, items=[v]),
    "construct command": lambda v: Do(value=v).metadata,
    "construct in context": in_context,
    "missing": failing(lambda: Holder(other=1)),
    "unknown": lambda v: failing(lambda: Holder(value=v, bogus=v))(v),
    "positional": lambda v: failing(lambda: Holder(v))(v),
    "bad metadata": lambda v: failing(lambda: Holder(value=v, tags=5))(v),
    "post init raises": failing(lambda: Optional(value=None)),
    "equal": lambda v: Holder(value=v, **FULL) == Holder(value=v, **FULL),
    "hash": lambda v: hash(Holder(value=v)),
    "repr": lambda v: repr(Holder(value=v, **FULL)),
    "copy": lambda v: copy.copy(Holder(value=v, **FULL)),
    "deepcopy": lambda v: copy.deepcopy(Holder(value=1, other=[v])),
    "pickle": lambda v: pickle.loads(pickle.dumps(Holder(value=1, **FULL))),
    "with": lambda v: Holder(value=v).with_tags("a").with_metadata(a=v).for_aggregate("a", "A").with_version(1),
    "rebuild": lambda v: rebuild(Holder, {"value": v, **FULL}, {"extra": v}),
    "rebuild fails": lambda v: failing(lambda: rebuild(Holder, {"bogus": v}, None))(v),
    "prepare and stamp": lambda v: stamp(prepare(Holder(value=v)), 1, 1),
    "prepare stamped": lambda v: prepare(Holder(value=v, sequence_number=5)),
    "metadata read": lambda v: [
        getattr(Holder(value=v, **FULL), n) for n in (*FULL, "event_id", "occurred_at", "version")
    ],
    "metadata write": lambda v: object.__setattr__(Holder(value=v, **FULL), "actor_id", v),
    "to_dict": lambda v: Holder(value=1, **FULL).to_dict(),
    "dict": lambda v: Event(value=v).__dict__,
    "size": lambda v: sys.getsizeof(Holder(value=v)),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_call_leaks_a_reference(name: str) -> None:
    """Neither the values nor the classes nor the metadata gain references over 200 calls."""
    call, value = CALLS[name], Value()
    watched = [value, Holder, Slotted, Optional, OwnInit, Do, Event, None, *FULL.values()]
    for _ in range(5):
        call(value)
    gc.collect()
    before = [sys.getrefcount(one) for one in watched]
    for _ in range(200):
        call(value)
    gc.collect()
    after = [sys.getrefcount(one) for one in watched]
    grown = [(repr(one)[:40], b, a) for one, b, a in zip(watched, before, after, strict=True) if abs(a - b) > 20]
    assert not grown


@pytest.mark.parametrize("name", CALLS)
def test_no_call_leaks_memory_blocks(name: str) -> None:
    """The interpreter's count of allocated blocks stays."""
    call, value = CALLS[name], Value()
    for _ in range(50):
        call(value)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(500):
        call(value)
    gc.collect()
    assert sys.getallocatedblocks() - before < 250


@pytest.mark.parametrize("cls", [Holder, Slotted, Event, Do, OwnInit])
def test_ten_thousand_cycles_are_collected(cls: Any) -> None:
    """A list that holds the event that holds the list."""

    class Node(list[Any]):
        pass

    alive: list[weakref.ref[Any]] = []
    for _ in range(10_000):
        node = Node()
        node.append(cls(value=node))
        alive.append(weakref.ref(node))
    del node
    gc.collect()
    assert not any(reference() is not None for reference in alive)


def test_cycles_through_metadata_attributes_and_dictionaries_are_collected() -> None:
    """Every place that holds an object is visited."""

    class Node(dict[str, Any]):
        pass

    alive: list[weakref.ref[Any]] = []
    for name in ("aggregate_id", "correlation_id", "causation_id", "actor_id", "aggregate_type"):
        node = Node()
        event = Holder(value=1)
        object.__setattr__(event, name, node)
        node["event"] = event
        alive.append(weakref.ref(node))
    node = Node()
    event = Holder(value=1, metadata={"node": node})
    node["event"] = event
    alive.append(weakref.ref(node))
    node = Node()
    node["event"] = Event(attribute=node)
    alive.append(weakref.ref(node))
    del node, event
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(alive)


def test_a_value_set_in_post_init_is_seen_by_the_collector() -> None:
    """Tracking is decided after user code has run."""

    class Late(DomainEvent):
        items: Any = None

        def __post_init__(self) -> None:
            object.__setattr__(self, "items", [self])

    event = Late()
    reference = weakref.ref(event)
    assert gc.is_tracked(event)
    del event
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(("cls", "stack_kilobytes"), [(Holder, 256), (Slotted, 1024)])
def test_a_chain_of_200000_events_is_freed_without_recursion(cls: Any, stack_kilobytes: int) -> None:
    """The stack does not overflow, in the main thread and in one with a small stack.

    Slots are freed by the interpreter; Python 3.13 itself needs more than 256 kB for a chain of plain slotted objects.
    """

    def build_and_drop() -> None:
        event = cls(value=None)
        for _ in range(200_000):
            event = cls(value=event)
        del event

    build_and_drop()
    threading.stack_size(stack_kilobytes * 1024)
    try:
        thread = threading.Thread(target=build_and_drop)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(0)


def test_a_finalizer_may_look_at_the_event_and_bring_it_back() -> None:
    """`__del__` runs once, with all fields; a resurrected event stays usable."""
    saved: list[Any] = []

    class Phoenix(DomainEvent):
        a: int

        def __del__(self) -> None:
            saved.append(self)

    Phoenix(a=5)
    assert [event.a for event in saved] == [5]
    assert saved[0].with_version(1).version == 1
    assert repr(saved[0])
    saved.clear()
    gc.collect()


def test_finalizers_of_values_may_use_events() -> None:
    """Freeing an event can run code that constructs and drops events."""
    made: list[int] = []

    class Evil:
        def __init__(self, depth: int) -> None:
            self.depth = depth

        def __del__(self) -> None:
            made.append(self.depth)
            if self.depth:
                Holder(value=Evil(self.depth - 1), other=[1])

    Holder(value=Evil(50))
    assert made == list(range(50, -1, -1))


def test_comparison_survives_code_that_changes_the_event() -> None:
    """`__eq__` of a value may delete the field that is being compared."""

    class Deletes:
        def __init__(self) -> None:
            self.event: Any = None

        def __eq__(self, other: object) -> bool:
            if self.event is not None:
                object.__setattr__(self.event, "value", None)
                object.__setattr__(self.event, "other", None)
            return True

        __hash__ = None  # type: ignore[assignment]

    value = Deletes()
    one = Holder(value=value, other=[1])
    two = one._with(value=Deletes())
    value.event = one
    assert (one == two) is False
    assert one.value is None


def test_errors_in_comparison_reach_the_caller() -> None:
    """An exception in `__eq__` is not swallowed."""

    class Raises:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

        __hash__ = None  # type: ignore[assignment]

    event = Holder(value=Raises())
    with pytest.raises(RuntimeError, match="no"):
        _ = event == event._with(value=Raises())


def test_a_factory_may_construct_events_of_the_same_class() -> None:
    """Construction can be entered again while it runs."""
    depth = [0]

    def make() -> Any:
        depth[0] += 1
        return Nested() if depth[0] < 20 else None

    class Nested(DomainEvent):
        inner: Any = field(default_factory=make)

    event, count = Nested(), 0
    while event is not None:
        event, count = event.inner, count + 1
    assert count == 20


def test_threads_may_share_events_and_classes() -> None:
    """Construction, reading, copying and dropping from eight threads at once."""
    shared = [Holder(value=i, **FULL) for i in range(100)]
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(2000):
                event = shared[(i * 7 + seed) % 100]
                other = Holder(value=event, other=[seed], **FULL)
                assert other.with_version(i % 50).value == event
                shared[(i * 13 + seed) % 100] = Holder(value=i, **FULL)
                assert event.tags == ("a",)
                assert hash(event) == hash(copy.copy(event))
        except BaseException as error:
            errors.append(error)

    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(old)
    assert not errors


def test_ids_made_by_many_threads_are_distinct() -> None:
    """Also within one millisecond."""
    found: list[list[Any]] = []

    def work() -> None:
        found.append([Holder(value=1).event_id for _ in range(5000)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for ids in found for one in ids}) == 40_000
    assert all(ids == sorted(ids) for ids in found)


def test_the_interpreter_shuts_down_with_events_alive() -> None:
    """Events in globals, cycles, finalizers and threads at exit: no crash, no output."""
    program = (
        "import threading, atexit\n"
        "from lexigram.events import DomainEvent, Event\n"
        "class Late(DomainEvent):\n"
        "    a: object = None\n"
        "    def __del__(self):\n"
        "        try:\n"
        "            Event(x=[1]), repr(self), self.event_id\n"
        "        except Exception: pass\n"
        "keep = [Late(a=i) for i in range(100)]\n"
        "keep[0].a.__class__\n"
        "ring = []; ring.append(Late(a=ring)); ring.append(Event(r=ring))\n"
        "local = threading.local(); local.event = Late(a=local)\n"
        "atexit.register(lambda: Late(a=1))\n"
        "class Unused(DomainEvent): b: int\n"
    )
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_native_bases_cannot_be_used_directly() -> None:
    """They are no message classes, and neither are other types."""
    from lexigram.events import _core

    for call in (
        lambda: _core.EventBase(),
        lambda: _core.MessageBase(),
        lambda: _core.EventBase.__new__(_core.EventBase),
        lambda: object.__new__(Holder),
        lambda: _core.arm(int),
        lambda: _core.compile(int, [], [], positional=[], accepts_extra=False, post_init=False, event_type="x",
                              schema_version=1, always_tracked=False, abstract=""),
        lambda: _core.message_state(5),
        lambda: _core.stamp_event(5, 1, 1),
        lambda: _core.copy_message("x", None),
        lambda: _core.event_meta(Holder(value=1), "bogus"),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            call()
    assert _core.is_stamped(5) is None
    assert _core.is_compiled(int) is False
