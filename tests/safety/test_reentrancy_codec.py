"""Code of the user's that codec and messages call, and that calls back into the very object that is being used."""

from __future__ import annotations

import enum
import gc
from collections.abc import Iterator
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pytest

from lexigram.events import DomainEvent, Event, EventCodec, SerializationError, _core, message_context
from lexigram.events.messages.codec import EncodedEvent
from lexigram.events.messages.registry import EventTypeRegistry
from lexigram.events.messages.stamping import rebuild
from tests.safety.back import Back, Dying
from tests.safety.message_calls import Do, Rich
from tests.unit.messages.codec_samples import both

# Codec and registry


class Registry(EventTypeRegistry):
    """A registry whose every question is answered after something else was done."""

    back: Any = staticmethod(lambda: None)

    def type_name(self, cls: Any) -> str:
        self.back()
        return super().type_name(cls)

    def resolve(self, *arguments: Any) -> Any:
        self.back()
        return super().resolve(*arguments)

    def knows(self, name: str) -> bool:
        self.back()
        return super().knows(name)


def codec_with_back(format_: Any) -> tuple[EventCodec, Back, EncodedEvent]:
    """Return a codec and a call that uses it and its registry in every way."""
    registry = Registry()
    registry.register(Rich)
    codec = EventCodec(registry, format=format_)
    row = codec.encode(Rich(value=[1], aggregate_id="a"))

    def define() -> None:
        registry.register(type("New", (DomainEvent,), {"__annotations__": {"a": int}}))

    def dead_letter(*row: Any) -> Any:
        return row

    back = Back(
        lambda: codec.encode(Rich(value={"a": (1, 2)})),
        lambda: codec.decode(row.type_name, row.event_type, row.payload, 1, 1),
        lambda: codec._core.decode_rows([("no", "no", b"{}", 1, 1)], dead_letter),
        lambda: codec.decode_value(codec.encode_value([{1: 2}, Rich(value=1)])),
        _core.registry_changed,
        define,
        gc.collect,
    )
    registry.back = back
    return codec, back, row


@pytest.mark.parametrize("format_", ["json", "binary"])
def test_a_codec_may_be_used_by_its_registry(format_: str) -> None:
    """While it asks for the name or the class of something."""
    codec, back, row = codec_with_back(format_)
    for _ in range(5):
        _core.registry_changed()
        assert codec.decode(row.type_name, row.event_type, row.payload, 2, 3).version == 2  # type: ignore[attr-defined]
        assert codec.encode(Rich(value=Do(value=1))).type_name == row.type_name
    assert back.called


def test_what_a_registry_said_before_it_changed_is_not_kept() -> None:
    """A change in the middle of a question, by the registry itself or by another thread, counts for the next one."""

    class Earlier(DomainEvent):
        a: int

    class Later(DomainEvent):
        a: int

    class Changing:
        current: type = Earlier

        def resolve(self, type_name: str, event_type: str) -> type:
            answer = self.current
            if answer is Earlier:
                self.current = Later
                _core.registry_changed()
            return answer

        def knows(self, type_name: str) -> bool:
            return True

    codec = _core.CodecCore(Changing(), False)
    payload = (
        b'{"a":1,"$meta":{"event_id":"0190f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506","occurred_at":"2026-01-01T00:00:00+00:00"}}'
    )
    assert [type(codec.decode("name", "Name", payload, 1, 1)) for _ in range(3)] == [Earlier, Later, Later]


@pytest.mark.parametrize("format_", ["json", "binary"])
def test_a_codec_may_be_used_by_what_it_reads_and_writes(format_: str) -> None:
    """Properties, `__hash__` and `__eq__` of keys and members, factories, `_missing_` and `__del__`."""
    codec, back, _ = codec_with_back(format_)

    class Found(enum.Enum):
        ONE = 1

        @classmethod
        def _missing_(cls, value: object) -> Any:
            back()
            return cls.ONE if value == 2 else None

    @dataclass(frozen=True, eq=False)
    class Key:
        n: int

        def __hash__(self) -> int:
            back()
            return 1

        def __eq__(self, other: object) -> bool:
            back()
            return isinstance(other, Key) and other.n == self.n

        def __del__(self) -> None:
            back()

    def make() -> list[Any]:
        back()
        return []

    whole = make_dataclass(
        "Whole", [("a", Any), ("made", Any, field(default_factory=make)), ("found", Found, Found.ONE)]
    )
    whole.computed = property(lambda self: back())  # type: ignore[attr-defined]
    codec.registry.register(Key), codec.registry.register(whole), codec.registry.register(Found)
    value = whole([{Key(1), Key(2)}, {Key(3): {Key(4): Found.ONE}}, frozenset({Key(5)})])
    data = codec.encode_value(value)
    for _ in range(3):
        back.times = 10
        assert codec.decode_value(data).found is Found.ONE
        assert codec.decode_value(b'{"a":1,"found":2}', whole).made == []
        for cut in range(1, len(data), 7):
            with pytest.raises(SerializationError):
                codec.decode_value(data[:cut])
        assert codec.encode_value(value)
    assert back.called


@both
def test_rows_may_be_read_while_rows_are_read(codec: EventCodec) -> None:
    """By the iterable they come from, by their conversion, and by what stands in for an unknown class."""
    row = codec.encode(Rich(value=1))
    parts = (row.type_name, row.event_type, row.payload)

    def rows(depth: int) -> Iterator[Any]:
        for n in range(3):
            if depth:
                assert len(codec._core.decode_rows(rows(depth - 1), unknown)) == 6
            yield (*parts, n, n)
            yield ["no.such.Class", "Class", row.payload, n, None]

    def unknown(*row: Any) -> Any:
        return codec.decode(*parts, 7, 7)

    assert [event.version for event in codec._core.decode_rows(rows(2), unknown)] == [0, 7, 1, 7, 2, 7]


# Messages


def test_a_message_may_be_used_while_it_is_made() -> None:
    """By iterables and mappings given as metadata, by `__post_init__`, and by values that are dropped."""
    back = Back(lambda: Rich(value=[1])._with(value=2), lambda: rebuild(Rich, {"value": 1}, None), gc.collect)

    class Keys(dict[str, Any]):
        def keys(self) -> Any:
            back()
            return super().keys()

    class Again(DomainEvent):
        value: Any
        seen: Any = None

        def __post_init__(self) -> None:
            back()
            if self.seen is None:
                self.__init__(value=Dying(back), seen=[self])  # type: ignore[misc]
                object.__setattr__(self, "value", self._with(seen=1))

    for _ in range(5):
        event = Rich(value=Dying(back), tags=(tag for tag in (back() or "a", "b")), metadata=Keys(a=1))  # type: ignore[arg-type]
        assert (event.tags, event.metadata) == (("a", "b"), {"a": 1})
        again = Again(value=1)
        assert again.value.seen == 1
        object.__setattr__(event, "value", Dying(Back(lambda event=event: object.__setattr__(event, "value", event))))
        object.__setattr__(event, "value", None)
        assert event.value is event
    assert back.called


def test_the_parts_of_a_message_may_change_while_it_is_made_of_them() -> None:
    """An iterable in a dictionary of parts changes the dictionary: the entries count that were there at the start."""

    def tags() -> Iterator[str]:
        parts.update(more=2, other=3)
        yield "a"
        del parts["value"]
        yield "b"

    parts: dict[str, Any] = {}
    for make in (_core.rebuild, lambda cls, parts: _core.copy_message(cls(value=1), parts)):
        parts.clear()
        parts.update(tags=tags(), value=1)
        event = make(Rich, parts)
        assert (event.value, event.other, event.tags) == (1, None, ("a", "b"))


def test_a_message_may_be_made_by_the_context_it_is_made_in() -> None:
    """Attributes of the handled message are code that makes messages in the same context."""
    made: list[Any] = []

    class Handled(Do):
        @property
        def user_id(self) -> str:
            return "u"

    back = Back(lambda: made.append(Rich(value=1)), lambda: made.append(Do().metadata))

    class Metadata(dict[str, Any]):
        def __getattr__(self, name: str) -> Any:
            back()
            raise AttributeError(name)

    handled = Handled()
    with message_context(handled):
        event, command = Rich(value=1), Do()
        object.__setattr__(handled, "metadata", Metadata())
        for _ in range(3):
            try:
                Event(a=1), Do().metadata
            except (AttributeError, TypeError):
                pass
    assert event.causation_id == handled.id == command.metadata.causation_id
    assert all(one is not None for one in made)
