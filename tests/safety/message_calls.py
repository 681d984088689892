"""The ways in which each call of `_core` that makes or changes messages succeeds and fails, by name.

A case is a function of a `World`, the objects that it uses. Each case leaves the world as it found it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from lexigram.events import (
    Command,
    DomainEvent,
    Event,
    EventValidationError,
    _core,
    message_context,
)
from lexigram.events.messages import shapes
from lexigram.events.messages.registry import default_registry
from lexigram.events.testing.samples import ForeignEvent

Case = Callable[["World"], Any]
META: dict[str, Any] = {
    "aggregate_id": "".join(["order-", "1"]),
    "aggregate_type": "".join(["Or", "der"]),
    "correlation_id": UUID(int=7),
    "causation_id": UUID(int=8),
    "actor_id": "".join(["m", "e"]),
    "event_type": "other",
    "schema_version": 10**6,
    "tags": ("".join(["t", "ag"]),),
    "metadata": {"k": ["v"]},
}


class Marker:
    """Nothing but an object whose references are counted."""


class Plain(DomainEvent):
    n: int = 1


class Rich(DomainEvent):
    value: Any
    other: Any = None


class Listed(DomainEvent):
    value: Any = None
    items: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.value is None:
            raise LookupError("no value")


class Do(Command[None]):
    value: Any = None


class Future:
    """What the channel needs of a future."""

    def __init__(self) -> None:
        self.woken = False

    def done(self) -> bool:
        return False

    def set_result(self, result: Any) -> None:
        self.woken = True


class World:
    """Objects to call the core with. Their references are counted before and after."""

    def __init__(self) -> None:
        self.value = Marker()
        self.error = LookupError("x")
        self.stream = "".join(["stream", "-1"])
        self.tag = "".join(["a", "-tag"])
        self.changes = {"value": self.value}
        self.event = Rich(value=self.value, **META)
        self.stored = Rich(value=1, **META)
        self.foreign = ForeignEvent(note="".join(["no", "te"]))
        self.command = Do(value=self.value)
        self.unused = type("Unused", (DomainEvent,), {})
        self.stamp = lambda *_: None
        self.names = ["Rich", "Plain"]
        self.kinds = [(["Rich"], []), (None, [self.tag])]
        self.json = _core.CodecCore(default_registry, False)
        self.binary = _core.CodecCore(default_registry, True)
        self.any = _core.compile_node(shapes.ANY)
        self.rows = [tuple(codec.encode(self.stored)) for codec in (self.json, self.binary)]

    def log(self, *events: Any, keep: int = 0) -> _core.EventLog:
        """Return a log of these events; those of ours are copied, as a stored event is not stored again."""
        log = _core.EventLog(self.stamp, keep)
        for cls in (Plain, Rich):
            log.learn(cls, cls.__name__)
        if events:
            log.store([(self.stream, list(events), [type(one).__name__ for one in events], None, None)])
        return log


def refused(error: type[BaseException], *calls: Case) -> Case:
    """Return a case in which each of the calls raises the error."""

    def run(world: World) -> None:
        for call in calls:
            with pytest.raises(error):
                call(world)

    return run


def quietly(call: Callable[[], Any]) -> None:
    """Run a step by hand: awaitables of the core end with their first step."""
    with contextlib.suppress(StopIteration, StopAsyncIteration, LookupError):
        call()


def in_context(world: World) -> Any:
    with message_context(world.command):
        made = Rich(value=world.value), Do(value=world.value)
    return made[0].correlation_id, made[1].metadata


def compile_again(world: World, cls: Any, metadata: Any = ()) -> None:
    _core.compile(
        cls, [], list(metadata), positional=[], accepts_extra=False, post_init=False, event_type="x",
        schema_version=1, always_tracked=False, abstract="",
    )  # fmt: skip


def frozen(world: World, moment: Any) -> None:
    try:
        _core.freeze_clock(moment)
    finally:
        _core.freeze_clock(None)


def numbered(world: World, first: Any) -> None:
    try:
        _core.number_ids(first)
        _core.new_id(), _core.next_id_number()
    finally:
        _core.number_ids(None)


FUNCTIONS: dict[str, dict[str, Case]] = {
    "address_event": {
        "empty": lambda w: _core.address_event(Rich(value=1), w.stream, w.tag, w.value, w.value),
        "kept": lambda w: _core.address_event(w.event, w.stream, None, None, w.value),
        "other": lambda w: _core.address_event(w.foreign, w.stream, None, None, None),
    },
    "arm": {"again": lambda w: _core.arm(Plain), "refused": refused(TypeError, lambda w: _core.arm(int))},
    "compile": {
        "again": lambda w: compile_again(w, type(w.stored)),
        "refused": refused(
            TypeError,
            lambda w: compile_again(w, int),
            lambda w: compile_again(w, w.unused, [("bogus", (w.value,))]),
            lambda w: compile_again(w, w.unused, [(w.value, None)]),
        ),
    },
    "compile_node": {
        "scalar": lambda w: _core.compile_node(("int",)),
        "nested": lambda w: _core.compile_node(("dict", ("str",), ("optional", ("union", (("uuid",), ("foreign", w.value)))))),
        "record": lambda w: _core.compile_node(shapes.node_for(Rich)),
        "refused": refused(TypeError, lambda w: _core.compile_node(w.value), lambda w: _core.compile_node((w.value,))),
        "short": refused(IndexError, lambda w: _core.compile_node(("list",))),
    },
    "copy_message": {
        "same": lambda w: _core.copy_message(w.event, None),
        "changed": lambda w: _core.copy_message(w.event, {**w.changes, "tags": (w.tag,), "actor_id": w.stream}),
        "ad hoc": lambda w: _core.copy_message(Event(a=w.value), {"b": w.value}),
        "refused": refused(
            TypeError,
            lambda w: _core.copy_message(w.value, None),
            lambda w: _core.copy_message(w.event, {"bogus": w.value}),
            lambda w: _core.copy_message(w.event, {w.value: 1}),  # type: ignore[dict-item]
        ),
        "invalid": refused(EventValidationError, lambda w: _core.copy_message(w.event, {"version": w.value})),
    },
    "event_meta": {
        "every": lambda w: [_core.event_meta(w.event, name) for name in (*META, "event_id", "occurred_at", "version")],
        "refused": refused(
            TypeError, lambda w: _core.event_meta(w.value, w.tag), lambda w: _core.event_meta(w.event, w.tag)
        ),
    },
    "field_names": {
        "ours": lambda w: _core.field_names(Rich),
        "refused": refused(TypeError, lambda w: _core.field_names(int)),
    },
    "freeze_clock": {
        "stopped": lambda w: frozen(w, datetime(2026, 1, 1, tzinfo=UTC)),
        "invalid": refused(EventValidationError, lambda w: frozen(w, w.value), lambda w: frozen(w, w.tag)),
    },
    "install_context": {"second": lambda w: _core.install_context(w.value)},  # type: ignore[arg-type]
    "install_finalizer": {"second": lambda w: _core.install_finalizer(w.value)},
    "is_compiled": {"any": lambda w: (_core.is_compiled(Plain), _core.is_compiled(w.unused), _core.is_compiled(int))},
    "is_stamped": {"any": lambda w: [_core.is_stamped(one) for one in (w.event, w.foreign, w.value)]},
    "message_state": {
        "event": lambda w: _core.message_state(w.event),
        "ad hoc": lambda w: _core.message_state(Event(a=w.value)),
        "command": lambda w: _core.message_state(w.command),
        "refused": refused(TypeError, lambda w: _core.message_state(w.value)),
    },
    "new_id": {"one": lambda w: _core.new_id()},
    "next_id_number": {"none": lambda w: _core.next_id_number()},
    "now": {"running": lambda w: _core.now()},
    "number_ids": {
        "counted": lambda w: numbered(w, 5),
        "refused": refused(OverflowError, lambda w: numbered(w, -1)),
    },
    "rebuild": {
        "state": lambda w: _core.rebuild(Rich, *_core.message_state(w.event)),
        "extra": lambda w: _core.rebuild(Event, META, w.changes),
        "default": lambda w: _core.rebuild(Listed, w.changes),
        "refused": refused(
            TypeError,
            lambda w: _core.rebuild(Rich, {"bogus": w.value}),
            lambda w: _core.rebuild(Rich, {"other": w.value}),
            lambda w: _core.rebuild(int, w.changes),
        ),
        "invalid": refused(EventValidationError, lambda w: _core.rebuild(Rich, {**w.changes, "tags": w.value})),
    },
    "registry_changed": {
        "forgotten": lambda w: (_core.registry_changed(), w.json.encode(w.stored), w.binary.decode(*w.rows[1][1:3], w.rows[1][5], 1, 1)),
    },
    "reseed_ids": {"again": lambda w: _core.reseed_ids()},
    "stamp_event": {
        "stamped": lambda w: _core.stamp_event(Plain(), 2**32 - 1, 2**63 - 1),
        "refused": refused(TypeError, lambda w: _core.stamp_event(w.value, 1, 1)),
        "range": refused(OverflowError, lambda w: _core.stamp_event(w.event, 2**32, 1), lambda w: _core.stamp_event(w.event, 1, 2**63)),
    },
}  # fmt: skip


def compared(operator: str, other: Callable[[World], Any], kind: str = "event") -> Case:
    return lambda w: getattr(type(getattr(w, kind)), operator)(getattr(w, kind), other(w))


def message_class(base: Any, kind: str) -> dict[str, dict[str, Case]]:
    """Return the cases that events have in common with commands."""
    name = base.__name__
    cases: dict[str, dict[str, Case]] = {
        f"{name}.{operator}": {
            "same": compared(operator, lambda w: getattr(w, kind), kind),
            "copy": compared(operator, lambda w: _core.copy_message(getattr(w, kind), None), kind),
            "other": compared(operator, lambda w: w.value, kind),
        }
        for operator in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
    }
    return cases | {
        f"{name}.__hash__": {"one": lambda w: hash(getattr(w, kind))},
        f"{name}.__sizeof__": {"one": lambda w: getattr(w, kind).__sizeof__()},
        f"{name}.__init__": {
            "again": lambda w: type(getattr(w, kind)).__init__(getattr(w, kind), value=w.value),
            "refused": refused(TypeError, lambda w: getattr(w, kind).__init__(w.value), lambda w: getattr(w, kind).__init__(bogus=w.value)),
        },
    }  # fmt: skip


CONSTRUCTORS: dict[str, dict[str, Case]] = {
    "EventBase": {
        "plain": lambda w: Plain(),
        "all": lambda w: Rich(value=w.value, other=w.changes, **META),
        "factory": lambda w: Listed(value=w.value),
        "ad hoc": lambda w: Event(**w.changes),
        "inherited": in_context,
        "bare": lambda w: Rich.__new__(Rich),
        "refused": refused(
            TypeError,
            lambda w: _core.EventBase(),
            lambda w: Rich(other=w.value),  # type: ignore[call-arg]
            lambda w: Rich(value=w.value, bogus=w.value),  # type: ignore[call-arg]
            lambda w: Rich(w.value),  # type: ignore[misc]
            lambda w: Event(to_dict=w.value),
        ),
        "invalid": refused(EventValidationError, *(lambda w, n=n: Rich(**w.changes, **{n: w.value}) for n in ("event_id", "occurred_at", "tags", "metadata", "version"))),
        "raising": refused(LookupError, lambda w: Listed(items=[w.value])),
    },
    "MessageBase": {
        "plain": lambda w: Do(value=w.value),
        "metadata": lambda w: Do(value=w.value).metadata,
        "refused": refused(TypeError, lambda w: _core.MessageBase(), lambda w: Do(bogus=w.value)),  # type: ignore[call-arg]
        "invalid": refused(EventValidationError, lambda w: Do(metadata=Do(value=w.value))),  # type: ignore[arg-type]
    },
}  # fmt: skip
