"""The codec keeps every value it accepts, and says clearly what it does not accept."""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, HttpUrl, SecretStr

from lexigram.events import (
    Command,
    EventCodec,
    SerializationError,
)
from lexigram.events.messages import codec as codec_module
from lexigram.events.messages import shapes
from lexigram.events.messages.registry import default_registry
from tests.unit.messages import codec_oracle
from tests.unit.messages.codec_samples import (
    A_UUID,
    BINARY,
    JSON,
    TYPED,
    UNTYPED,
    Access,
    Basket,
    DecoratedContract,
    Item,
    Noted,
    PlainContract,
    UuidWrapped,
    ad_hoc,
    both,
    event_class,
    same,
    there_and_back,
)

CASES = [pytest.param(a, v, id=f"{a}-{i}"[:70]) for a, values in TYPED for i, v in enumerate(values)]
LOOSE = [pytest.param(v, id=f"{i}-{type(v).__name__}") for i, v in enumerate(UNTYPED)]


@both
@pytest.mark.parametrize(("annotation", "value"), CASES)
def test_a_value_of_its_annotated_type_comes_back(codec: EventCodec, annotation: Any, value: Any) -> None:
    """Equal and of the same type, as field of an event."""
    event = event_class(value=annotation)(value=value)
    back = there_and_back(codec, event)
    assert same(back.value, value)
    assert (back.version, back.sequence_number) == (3, 7)


@both
@pytest.mark.parametrize("value", LOOSE)
def test_a_value_without_annotation_comes_back(codec: EventCodec, value: Any) -> None:
    """Ad-hoc attributes and values under Any carry their type."""
    assert same(there_and_back(codec, ad_hoc(value=value)).value, value)
    assert same(codec.decode_value(codec.encode_value(value)), value)


@both
@pytest.mark.parametrize("annotation", [case for case, _ in TYPED], ids=lambda a: str(a)[:50])
def test_a_value_of_another_type_than_annotated_comes_back(codec: EventCodec, annotation: Any) -> None:
    """Nothing is coerced to the annotation: every sample value survives under every annotation."""
    plan = annotation
    for value in UNTYPED:
        assert same(codec.decode_value(codec.encode_value(value, plan), plan), value), value


@pytest.mark.parametrize(("annotation", "value"), CASES)
def test_the_core_and_the_plain_python_codec_read_each_other(annotation: Any, value: Any) -> None:
    """The Rust core and the oracle in Python agree on the JSON form."""
    oracle = codec_oracle.Interpreter(default_registry)
    node = shapes.node_for(annotation)
    ours = json.loads(JSON.encode_value(value, annotation))
    theirs = oracle.to_json(node, value, "")
    assert same(oracle.from_json(node, ours, ""), value)
    assert same(JSON.decode_value(json.dumps(theirs).encode(), annotation), value)


@pytest.mark.parametrize(("annotation", "value"), CASES)
def test_both_forms_parse_to_the_same_data(annotation: Any, value: Any) -> None:
    """Upcasters see the same data whichever form is stored."""
    event = event_class(value=annotation)(value=value)
    data = [codec.parse(codec.encode(event).payload) for codec in (JSON, BINARY)]
    assert data[0] == data[1]


@both
def test_a_payload_is_read_by_a_codec_of_either_format(codec: EventCodec) -> None:
    """The format option chooses what is written only."""
    row = codec.encode(Noted(text="x"))
    for reader in (JSON, BINARY):
        assert same(reader.decode(row.type_name, row.event_type, row.payload, 1, 1), Noted(text="x")) is False
        assert reader.decode(row.type_name, row.event_type, row.payload, 1, 1).text == "x"  # type: ignore[attr-defined]


@both
def test_any_is_any_also_where_annotations_are_not_text(codec: EventCodec) -> None:
    """`typing.Any` is a class; a module without `from __future__ import annotations` hands it over as that."""
    assert shapes.node_for(Any) == shapes.ANY
    assert shapes.node_for(list[Any]) == ("list", shapes.ANY)
    value = OrderedDict(b=(1,), a={A_UUID})
    loose = event_class(a=Any, b=list[Any])
    back = there_and_back(codec, loose(a=value, b=[value]))
    assert same((back.a, back.b), (value, [value]))
    with pytest.raises(SerializationError, match=r"\.a: "):
        codec.encode(loose(a=object(), b=[]))


def test_the_json_form_is_readable() -> None:
    """Fields stand under their names, metadata under `$meta`."""
    event = Noted(
        text="x",
        event_id=A_UUID,
        occurred_at=datetime(2026, 1, 2, tzinfo=UTC),
        aggregate_id="acc-1",
        tags=("a",),
        metadata={"tenant_id": "t"},
    )
    assert json.loads(JSON.encode(event).payload) == {
        "text": "x",
        "$meta": {
            "event_id": str(A_UUID),
            "occurred_at": "2026-01-02T00:00:00+00:00",
            "schema_version": 1,
            "aggregate_id": "acc-1",
            "tags": ["a"],
            "metadata": {"tenant_id": "t"},
        },
    }


@both
def test_all_metadata_comes_back(codec: EventCodec) -> None:
    """Every metadata name, with ids as UUID or text."""
    event = Noted(
        text="x",
        event_type="noted.v2",
        aggregate_id=str(A_UUID),
        aggregate_type="Note",
        actor_id="ann",
        schema_version=70_000,
        correlation_id=A_UUID,
        causation_id=UUID(int=5),
        tags=("b", "a"),
        metadata={"a": Decimal("1.0"), "n": None},
    )
    assert same(there_and_back(codec, event), event)
    row = codec.encode(event)
    assert (row.event_id, row.event_type, row.tags) == (event.event_id.bytes, "noted.v2", ("b", "a"))
    assert row.occurred_at_us == round(event.occurred_at.timestamp() * 1_000_000)
    assert tuple(row)[5] == row.payload


@both
def test_events_of_the_framework_s_own_class_come_back(codec: EventCodec) -> None:
    """Plain and decorated subclasses, with undeclared attributes and their own use of names like tags."""
    plain = PlainContract(user_id=A_UUID, score=1, other={A_UUID}, aggregate_id="acc-1")
    decorated = DecoratedContract(tags=("x",), actor_id="ann")
    for event in (plain, decorated):
        back = there_and_back(codec, event)
        assert same(back, event)
        assert (back.version, back.sequence_number) == (3, 7)


@both
def test_events_and_commands_inside_values_come_back(codec: EventCodec) -> None:
    """A nested event keeps its version and position too."""

    class DoIt(Command[None]):
        what: Item

    stored = there_and_back(codec, UuidWrapped(content=A_UUID))
    command = DoIt(what=Item("a", Decimal(1)))
    back = codec.decode_value(codec.encode_value([stored, command]))
    assert same(back[0], stored)
    assert (back[0].version, back[0].sequence_number) == (3, 7)
    assert back[1] == command
    assert type(back[1]) is DoIt


@both
def test_values_are_made_without_running_their_code(codec: EventCodec) -> None:
    """Neither `__post_init__` nor validators run; attributes that they made are stored."""
    ran = []

    @dataclass
    class Noisy:
        a: int

        def __post_init__(self) -> None:
            ran.append(self.a)
            self.twice = self.a * 2

        @functools.cached_property
        def computed(self) -> int:
            return self.a * 3

    class Strict(BaseModel):
        a: int

        def model_post_init(self, context: Any, /) -> None:
            ran.append(self.a)

    value = [Noisy(1), Strict(a=2)]
    assert value[0].computed == 3  # type: ignore[union-attr]
    ran.clear()
    back = codec.decode_value(codec.encode_value(value))
    assert ran == []
    assert (back[0].twice, "computed" in vars(back[0])) == (2, False)
    assert back[1] == value[1]


@both
@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), "value"),
        ([1, {"a": (object(),)}], "value[1]['a'][0]"),
        (Item("a", lambda: 1), "value.price"),  # type: ignore[arg-type]
        ({object(): 1}, "value[key]"),
    ],
)
def test_what_cannot_be_stored_is_named_with_event_and_path(codec: EventCodec, value: Any, path: str) -> None:
    """The error has the event type and the path of the field, and nothing else happens."""
    with pytest.raises(SerializationError, match=r"^\[LEX_ERR_EVT_025\] Event\.") as caught:
        codec.encode(ad_hoc(value=value))
    assert caught.value.field == path
    assert "cannot be stored" in str(caught.value)


@both
def test_a_value_that_contains_itself_is_refused(codec: EventCodec) -> None:
    """Depth is limited, so a cycle is an error and not a crash."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SerializationError, match="contains itself"):
        codec.encode(ad_hoc(value=loop))


@both
def test_depth_is_limited_on_both_sides(codec: EventCodec) -> None:
    """The deepest value that can be written can be read."""
    value: Any = 1
    for _ in range(codec_module.MAX_DEPTH - 1):
        value = (value,)
    assert codec.decode_value(codec.encode_value(value)) == value
    with pytest.raises(SerializationError, match="nested deeper"):
        codec.encode_value(((value,),))
    for bad in (b"[" * 100_000, b'{"a":' * 100_000, b"\xe2" + b"\x12\x01" * 100_000):
        with pytest.raises(SerializationError):
            codec.decode_value(bad)
        with pytest.raises(SerializationError):
            codec.parse(bad)


def test_a_foreign_time_zone_class_is_refused() -> None:
    """A zone that could not come back is an error that says what to use."""

    class Zone(tzinfo):
        def utcoffset(self, moment: datetime | None, /) -> Any:
            return None

    with pytest.raises(SerializationError, match=r"use zoneinfo\.ZoneInfo"):
        JSON.encode(ad_hoc(value=datetime(2026, 1, 1, tzinfo=Zone())))


@both
def test_types_that_only_pydantic_knows_are_stored_if_nothing_is_lost(codec: EventCodec) -> None:
    """An URL comes back; a secret, which pydantic would mask, is refused."""

    class Hook(BaseModel):
        url: HttpUrl

    class Hooks(BaseModel):
        urls: list[HttpUrl | int | None]

    class Login(BaseModel):
        password: SecretStr

    hook = Hook(url="https://example.org/x")  # type: ignore[arg-type]
    assert codec.decode_value(codec.encode_value(hook, Hook), Hook) == hook
    hooks = Hooks(urls=[hook.url, 5, None])
    assert codec.decode_value(codec.encode_value(hooks)) == hooks
    with pytest.raises(SerializationError, match=r"password: SecretStr cannot be stored"):
        codec.encode_value(Login(password=SecretStr("x")))


@both
@pytest.mark.parametrize(
    ("one", "other"),
    [(bytes | Access, Access | bytes), (date | datetime, datetime | date), (Item | Basket, Basket | Item)],
)
def test_the_order_of_a_union_does_not_matter(codec: EventCodec, one: Any, other: Any) -> None:
    """Python takes both orders for equal, so the stored form may not depend on it."""
    for value in (b"", Access.READ, date(2026, 1, 1), datetime(2026, 1, 1), Item("a", Decimal(1)), Basket([])):
        assert shapes.node_for(one) == shapes.node_for(other)
        assert same(codec.decode_value(codec.encode_value(value, one), other), value)
