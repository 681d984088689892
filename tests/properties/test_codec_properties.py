"""Random classes, random values, random damage: the codec gives back what it took, or says that it cannot."""

from __future__ import annotations

import itertools
import json
import warnings
from dataclasses import make_dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import create_model

from lexigram.events import DomainEvent, Event, EventCodec, SerializationError
from lexigram.events.messages import shapes
from lexigram.events.messages.registry import default_registry
from tests.unit.messages import codec_oracle
from tests.unit.messages.codec_samples import Access, Colour, Number, Odd, Point, Word, same

JSON = EventCodec()
BINARY = EventCodec(format="binary")
QUICK = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
LONG = settings(deadline=None, max_examples=20_000, suppress_health_check=list(HealthCheck))

ZONES = st.sampled_from(
    [
        None,
        UTC,
        ZoneInfo("Europe/Berlin"),
        ZoneInfo("UTC"),
        timezone(timedelta(hours=-7)),
        timezone(timedelta(minutes=1), "M"),
    ]
)
SCALARS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (bool, st.booleans()),
    (int, st.integers() | st.integers(-(2**70), 2**70)),
    (float, st.floats()),
    (str, st.text(st.characters(codec=None), max_size=20)),
    (bytes, st.binary(max_size=20)),
    (UUID, st.uuids()),
    (datetime, st.datetimes(timezones=ZONES, allow_imaginary=True)),
    (time, st.times(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=3))]))),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals()),
    (Colour, st.sampled_from(list(Colour))),
    (Word, st.sampled_from(list(Word))),
    (Number, st.sampled_from(list(Number))),
    (Odd, st.sampled_from(list(Odd))),
    (Access, st.sampled_from([Access.READ, Access.WRITE, Access.READ | Access.WRITE, Access(0)])),
    (Point, st.builds(Point, st.integers(), st.decimals())),
]
HASHABLE = [(a, s) for a, s in SCALARS if a not in (float, Decimal, Point, datetime, time)]


COUNTER = itertools.count()


@st.composite
def typed(draw: st.DrawFn, depth: int = 3) -> tuple[Any, st.SearchStrategy[Any]]:
    """An annotation and a strategy of its values."""
    kind = draw(st.integers(0, 9)) if depth else 0
    if kind <= 2:
        return draw(st.sampled_from(SCALARS))
    inner, values = draw(typed(depth - 1))
    if kind == 3:
        return list[inner], st.lists(values, max_size=3)  # type: ignore[valid-type]
    if kind == 4:
        return tuple[inner, ...], st.lists(values, max_size=3).map(tuple)  # type: ignore[valid-type]
    if kind == 5:
        return inner | None, values | st.none()
    if kind == 6:
        other, others = draw(typed(depth - 1))
        return inner | other, values | others
    if kind == 7:
        key, keys = draw(st.sampled_from(HASHABLE))
        return dict[key, inner], st.dictionaries(keys, values, max_size=3)  # type: ignore[valid-type]
    if kind == 8:
        key, keys = draw(st.sampled_from(HASHABLE))
        return set[key], st.sets(keys, max_size=3)  # type: ignore[valid-type]
    return draw(records(inner, values))


@st.composite
def records(draw: st.DrawFn, inner: Any, values: st.SearchStrategy[Any]) -> tuple[Any, st.SearchStrategy[Any]]:
    """A new class with fields, of one of the kinds that hold values."""
    other, others = draw(st.sampled_from(SCALARS))
    kind = draw(st.sampled_from(["dataclass", "slots", "pydantic", "namedtuple", "event"]))
    fields = {"a": inner, "b": other}
    number = next(COUNTER)  # types written by name must have one of their own
    cls: Any
    if kind == "pydantic":
        cls = create_model(f"Model{number}", a=(Any, ...), b=(other, ...), __module__=__name__)
        cls.__pydantic_fields__["a"].annotation = inner
        return cls, st.builds(lambda a, b: cls.model_construct(a=a, b=b), values, others)
    if kind == "namedtuple":
        cls = NamedTuple(f"Pair{number}", list(fields.items()))
    elif kind == "event":
        cls = type(f"Inner{number}", (DomainEvent,), {"__annotations__": fields, "__module__": __name__})
    else:
        cls = make_dataclass(f"Record{number}", list(fields.items()), slots=kind == "slots")
    return cls, st.builds(lambda a, b: cls(a=a, b=b), values, others)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, Any]:
    """An annotation and one of its values."""
    annotation, values = draw(typed())
    return annotation, draw(values)


def check_round_trip(case: tuple[Any, Any]) -> None:
    annotation, value = case
    cls: Any = type("Random", (DomainEvent,), {"__annotations__": {"value": annotation}, "__module__": __name__})
    event = cls(value=value, aggregate_id="a")
    for codec in (JSON, BINARY):
        row = codec.encode(event)
        back: Any = codec.decode(row.type_name, row.event_type, row.payload, 1, 1)
        assert type(back) is cls
        assert same(back.value, value)
        assert same(codec.decode_value(codec.encode_value(value, annotation), annotation), value)
        assert same(codec.decode_value(codec.encode_value(value)), value)
    assert JSON.parse(JSON.encode(event).payload) == BINARY.parse(BINARY.encode(event).payload)


@QUICK
@given(cases())
def test_any_value_of_any_annotation_comes_back_in_both_forms(case: tuple[Any, Any]) -> None:
    """Typed, untyped, and as a field of a random event class."""
    check_round_trip(case)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@LONG
@given(cases())
def test_any_value_of_any_annotation_comes_back_in_both_forms_for_long(case: tuple[Any, Any]) -> None:
    """The same with many more examples."""
    check_round_trip(case)


@QUICK
@given(cases(), cases())
def test_a_value_under_a_foreign_annotation_comes_back(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    """Whatever the annotation says, the value that was given is the one that comes back."""
    for codec in (JSON, BINARY):
        data = codec.encode_value(one[1], other[0])
        assert same(codec.decode_value(data, other[0]), one[1])


@QUICK
@given(cases())
def test_the_oracle_agrees(case: tuple[Any, Any]) -> None:
    """The plain Python codec reads what the core writes, and the reverse."""
    annotation, value = case
    oracle = codec_oracle.Interpreter(default_registry)
    node = shapes.node_for(annotation)
    assert same(oracle.from_json(node, json.loads(JSON.encode_value(value, annotation)), ""), value)
    written = json.dumps(oracle.to_json(node, value, "")).encode()
    assert same(JSON.decode_value(written, annotation), value)


def refused_or_read(codec: EventCodec, data: bytes, annotation: Any = Any) -> None:
    """Decoding may raise `SerializationError` and nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for attempt in (
            lambda: codec.decode_value(data, annotation),
            lambda: codec.parse(data),
            lambda: codec.decode(default_registry.type_name(Fuzzed), "Fuzzed", data, 1, 1),
        ):
            try:
                attempt()
            except SerializationError:
                pass


class Fuzzed(DomainEvent):
    a: int
    b: list[Decimal]
    c: dict[str, datetime | None]
    d: Colour | str = ""
    e: Any = None


FUZZED = Fuzzed(
    a=1, b=[Decimal("1.5")], c={"x": datetime(2026, 1, 1, tzinfo=UTC)}, d=Colour.RED, e={1: (UUID(int=1), {2})}
)
SEEDS = [
    JSON.encode(FUZZED).payload,
    BINARY.encode(FUZZED).payload,
    JSON.encode_value([FUZZED]),
    BINARY.encode_value([FUZZED]),
]
PIECES = st.sampled_from(
    [
        b'{"$type":',
        b'"value":',
        b'"$meta":{',
        b"[[[",
        b"\xff\xff\xff\xff\xff\x0f",
        b"\xe1",
        b"\xe2",
        b"\x98\x01",
        b"\x1b",
        b"9" * 50,
        b'"\\ud800"',
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid payload with pieces cut out, changed, doubled or put in."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        how = draw(st.integers(0, 3))
        if how == 0:
            del data[at:end]
        elif how == 1:
            data[at:end] = draw(st.binary(max_size=6))
        elif how == 2:
            data[at:at] = data[at:end]
        else:
            data[at:at] = draw(PIECES)
    return bytes(data)


@QUICK
@example(b"\xe2\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@given(
    st.binary(max_size=60)
    | st.binary(max_size=60).map(b"\xe1".__add__)
    | st.binary(max_size=60).map(b"\xe2".__add__)
    | damaged()
)
def test_damaged_bytes_are_read_or_refused(data: bytes) -> None:
    """Never a crash, never another exception."""
    refused_or_read(JSON, data)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(LONG, max_examples=200_000)
@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(b"\xe1".__add__)
    | st.binary(max_size=200).map(b"\xe2".__add__)
    | damaged()
)
def test_damaged_bytes_are_read_or_refused_for_long(data: bytes) -> None:
    """The same with many more examples."""
    refused_or_read(JSON, data)


@QUICK
@given(cases(), st.data())
def test_damaged_typed_values_are_read_or_refused(case: tuple[Any, Any], data: st.DataObject) -> None:
    """Under random annotations, one byte changed."""
    annotation, value = case
    for codec in (JSON, BINARY):
        payload = bytearray(codec.encode_value(value, annotation))
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
        refused_or_read(codec, bytes(payload), annotation)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.builds(
            lambda tag, value: {"$type": tag, "value": value},
            st.sampled_from(
                [
                    "uuid",
                    "any",
                    "dict",
                    "set",
                    "tuple",
                    "deque",
                    "ordereddict",
                    "member",
                    "foreign",
                    "int",
                    "float",
                    "x.Y",
                ]
            ),
            inner,
        )
    ),
    max_leaves=8,
)


@QUICK
@given(JSON_VALUES, cases())
def test_any_json_is_read_or_refused_under_any_annotation(data: Any, case: tuple[Any, Any]) -> None:
    """Data of other programs, with tags in wrong places."""
    refused_or_read(JSON, json.dumps(data).encode(), case[0])


@QUICK
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.integers() | st.uuids() | st.text(), max_size=5))
def test_ad_hoc_attributes_of_any_name_come_back(values: dict[str, Any]) -> None:
    """Names that look like ours included."""
    event = Event(**{name: value for name, value in values.items() if not hasattr(Event, name) and name != "self"})
    for codec in (JSON, BINARY):
        row = codec.encode(event)
        assert codec.decode(row.type_name, row.event_type, row.payload, 1, 1) == event
