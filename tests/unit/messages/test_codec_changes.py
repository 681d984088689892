"""Data written by another version of a class, or by a class that is not known here."""

from __future__ import annotations

from dataclasses import make_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from lexigram.events import (
    DomainEvent,
    EventCodec,
    SerializationError,
    UnknownEvent,
)
from lexigram.events.messages.registry import default_registry
from tests.unit.messages.codec_samples import (
    A_UUID,
    Colour,
    Item,
    Noted,
    both,
    event_class,
    same,
    there_and_back,
)


def rewritten(codec: EventCodec, event: Any, **annotations: Any) -> Any:
    """Write an event and read it with a class that has other fields."""
    row = codec.encode(event)
    cls = event_class(**annotations)
    return codec.decode(default_registry.type_name(cls), cls.__name__, row.payload, 1, 1)


@both
def test_a_field_added_with_a_default_takes_it(codec: EventCodec) -> None:
    """Old data is read by a class with more fields, in another order."""
    row = codec.encode(event_class(a=str)(a="x"))
    newer = type("Newer", (DomainEvent,), {"__annotations__": {"b": int, "a": str}, "b": 5, "__module__": __name__})
    event: Any = codec.decode(default_registry.type_name(newer), "Newer", row.payload, 1, 1)
    assert (event.a, event.b) == ("x", 5)


@both
def test_a_required_field_that_data_does_not_have_is_named(codec: EventCodec) -> None:
    """The error says which field of which class."""
    with pytest.raises(SerializationError, match=r"Sample\.b: missing in the stored data") as caught:
        rewritten(codec, event_class(a=str)(a="x"), a=str, b=int)
    assert caught.value.field == "b"


@both
def test_a_field_that_the_class_no_longer_has_is_kept(codec: EventCodec) -> None:
    """As an attribute of the event, so that storing it again loses nothing."""
    older = event_class(a=str, gone=UUID)(a="x", gone=A_UUID)
    back = rewritten(codec, older, a=str)
    assert back.gone == str(A_UUID)
    assert there_and_back(codec, back).gone == str(A_UUID)


@both
def test_a_field_without_a_place_in_a_slotted_value_warns_once_per_read(codec: EventCodec) -> None:
    """What cannot be kept is reported."""
    old = make_dataclass("V", [("a", int), ("b", int)])
    new = make_dataclass("V", [("a", int)], slots=True)
    data = codec.encode_value(old(1, 2), old)
    with pytest.warns(UserWarning, match="stored field 'b' has no place in V"):
        assert codec.decode_value(data, new) == new(1)


@both
@pytest.mark.parametrize(
    ("old", "value", "new", "expected"),
    [
        (UUID, A_UUID, str, str(A_UUID)),
        (str, str(A_UUID), UUID, A_UUID),
        (list[int], [1, 2], tuple[int, ...], (1, 2)),
        (list[int], [1, 2], set[int], {1, 2}),
        (int, 5, float, 5),
        (Decimal, Decimal("1.5"), str, "1.5"),
        (str, "red", Colour, Colour.RED),
        (Colour, Colour.RED, str, "red"),
        (dict[str, int], {"sku": 1}, dict[str, float], {"sku": 1}),
        (int, 5, int | None, 5),
    ],
)
def test_an_annotation_may_change_to_one_that_reads_the_same_json(
    codec: EventCodec, old: Any, value: Any, new: Any, expected: Any
) -> None:
    """Both forms follow the rule of JSON: text that is a UUID becomes one, and so on."""
    assert same(codec.decode_value(codec.encode_value(value, old), new), expected)


@both
@pytest.mark.parametrize(("annotation", "raw"), [(UUID, "nope"), (Decimal, "x"), (datetime, "soon"), (Colour, "green")])
def test_text_that_is_not_of_the_annotated_type_is_an_error(codec: EventCodec, annotation: Any, raw: str) -> None:
    """Never a silent string in the place of a UUID."""
    data = codec.encode_value([raw], list[str])
    with pytest.raises(SerializationError, match=r"\[0\]"):
        codec.decode_value(data, list[annotation])


@both
def test_a_class_defined_again_is_used_from_then_on(codec: EventCodec) -> None:
    """Decoding finds the newer definition, encoding an instance of the older one still works."""
    older = event_class(a=int)
    event = older(a=1)
    assert type(there_and_back(codec, event)) is older
    newer = event_class(a=int)
    assert type(there_and_back(codec, event)) is newer


# Unknown types


@both
def test_an_unknown_type_is_readable_and_stored_again_byte_for_byte(codec: EventCodec) -> None:
    """Nothing of an event is lost by a program that does not have its class."""
    event = Noted(text="x", aggregate_id=A_UUID, tags=("t",), event_type="Gone")
    row = codec.encode(event)
    unknown = codec.decode("far.away.Gone", "Gone", row.payload, 3, 7)
    assert isinstance(unknown, UnknownEvent)
    assert (unknown.type_name, unknown.event_type, unknown.data) == ("far.away.Gone", "Gone", {"text": "x"})
    assert (unknown.event_id, unknown.aggregate_id, unknown.tags) == (event.event_id, A_UUID, ("t",))
    assert (unknown.version, unknown.sequence_number) == (3, 7)
    again = codec.encode(unknown)
    assert tuple(again) == (row.event_id, "far.away.Gone", "Gone", row.occurred_at_us, ("t",), row.payload)


def test_an_unknown_type_raises_if_so_configured() -> None:
    """With `unknown="raise"`."""
    codec = EventCodec(unknown="raise")
    row = codec.encode(Noted(text="x"))
    with pytest.raises(SerializationError, match=r"'far\.away\.Gone' is not registered"):
        codec.decode("far.away.Gone", "Gone", row.payload, 1, 1)


@both
def test_rows_are_decoded_in_order_with_unknown_ones_among_them(codec: EventCodec) -> None:
    """One call for a batch, rows as tuples or other sequences."""
    rows = [(r.type_name, r.event_type, r.payload, i, i) for i in (1, 2, 3) for r in [codec.encode(Noted(text=str(i)))]]
    rows[1] = ("far.away.Gone", "Gone", *rows[1][2:])
    events = codec.decode_rows([rows[0], list(rows[1]), rows[2]])
    assert [type(event) for event in events] == [Noted, UnknownEvent, Noted]
    assert [event.sequence_number for event in events] == [1, 2, 3]


@both
def test_parse_and_build_take_python_values_from_upcasters(codec: EventCodec) -> None:
    """Data may be changed between the two, with values that JSON does not have."""
    old = event_class(a=str)(a="x", aggregate_id=A_UUID)
    data = codec.parse(codec.encode(old).payload)
    cls = event_class(owner=UUID, price=Decimal, when=datetime, item=Item)
    meta = {**data["$meta"], "schema_version": 2}
    item = Item("a", Decimal(1))
    when = datetime(2026, 1, 1, tzinfo=UTC)
    changed = {"owner": A_UUID, "price": Decimal("1.5"), "when": when, "item": item, "$meta": meta}
    event: Any = codec.build(default_registry.type_name(cls), "Sample", changed, 1, 2)
    assert (event.owner, event.price, event.when, event.item) == (A_UUID, Decimal("1.5"), when, item)
    assert (event.schema_version, event.aggregate_id, event.event_id) == (2, A_UUID, old.event_id)
