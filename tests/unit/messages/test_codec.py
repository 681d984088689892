"""The codec keeps every value it accepts, and says clearly what it does not accept."""

from __future__ import annotations

import functools
import json
import sys
import threading
import tracemalloc
import warnings
from dataclasses import dataclass, make_dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from pydantic import BaseModel, HttpUrl, SecretStr
from tests.unit.messages import codec_oracle
from tests.unit.messages.codec_samples import (
    A_UUID,
    TYPED,
    UNTYPED,
    Colour,
    DecoratedContract,
    Item,
    Noted,
    PlainContract,
    Point,
    UuidWrapped,
    ad_hoc,
    event_class,
    same,
)

from lexigram.events import (
    Command,
    DomainEvent,
    Event,
    EventCodec,
    EventValidationError,
    SerializationError,
    UnknownEvent,
)
from lexigram.events.messages import codec as codec_module
from lexigram.events.messages import shapes
from lexigram.events.messages.registry import EventTypeRegistry, default_registry

JSON = EventCodec()
BINARY = EventCodec(format="binary")
CASES = [pytest.param(a, v, id=f"{a}-{i}"[:70]) for a, values in TYPED for i, v in enumerate(values)]
LOOSE = [pytest.param(v, id=f"{i}-{type(v).__name__}") for i, v in enumerate(UNTYPED)]
both = pytest.mark.parametrize("codec", [JSON, BINARY], ids=["json", "binary"])


def there_and_back(codec: EventCodec, event: Any) -> Any:
    row = codec.encode(event)
    return codec.decode(row.type_name, row.event_type, row.payload, 3, 7)


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


# Schema changes between writing and reading


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


# Bad input


@both
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"text":1e999}',
        b'{"text":NaN}',
        b"\xe1",
        b"\xe1\x1c",
        b"\xe2\x00",
        b"{} {}",
    ],
)
def test_damaged_payloads_raise_serialization_errors(codec: EventCodec, payload: bytes) -> None:
    """Whatever the bytes."""
    with pytest.raises(SerializationError):
        codec.decode(default_registry.type_name(Noted), "Noted", payload, 1, 1)
    with pytest.raises(SerializationError):
        codec.decode("far.away.Gone", "Gone", payload, 1, 1)


def test_every_cut_and_every_changed_byte_is_read_or_refused() -> None:
    """No byte of a payload can crash the decoder or come back as another error."""
    event = event_class(**{f"f{i}": a for i, (a, _) in enumerate(TYPED)})(
        **{f"f{i}": v[0] for i, (_, v) in enumerate(TYPED)}
    )
    warnings.simplefilter("ignore")
    for codec in (JSON, BINARY):
        row = codec.encode(event)
        for at in range(0, len(row.payload), 3):
            for piece in (b"", bytes([row.payload[at] ^ 1]), b"\xff", b'"', b"\x1b"):
                damaged = row.payload[:at] + piece + (row.payload[at + 1 :] if piece else b"")
                try:
                    codec.decode(row.type_name, row.event_type, damaged, 1, 1)
                    codec.parse(damaged)
                except SerializationError:
                    pass


@pytest.mark.parametrize("payload", [None, 5, object(), ["x"]])
def test_a_payload_that_is_not_bytes_is_refused(payload: Any) -> None:
    """Also not by accident of a driver."""
    with pytest.raises(SerializationError, match="bytes expected"):
        JSON.decode(default_registry.type_name(Noted), "Noted", payload, 1, 1)


@pytest.mark.parametrize("make", [str, bytes, bytearray, memoryview])
def test_payloads_may_come_as_text_or_any_kind_of_bytes(make: Any) -> None:
    """Drivers differ."""
    payload = JSON.encode(Noted(text="x")).payload
    given = payload.decode() if make is str else make(payload)
    assert JSON.decode(default_registry.type_name(Noted), "Noted", given, 1, 1).text == "x"  # type: ignore[attr-defined]


def test_only_events_are_encoded_as_events() -> None:
    """Anything else is a validation error."""
    for value in (object(), Item("a", Decimal(1)), Command(), None, "x"):
        with pytest.raises(EventValidationError, match="an event expected"):
            JSON.encode(value)  # type: ignore[arg-type]


def test_a_framework_event_with_a_bad_id_or_time_is_refused() -> None:
    """Ours cannot have one; the framework's class takes anything."""
    with pytest.raises(SerializationError) as caught:
        JSON.encode(ContractEvent(event_id="abc"))
    assert caught.value.field == "event_id"
    with pytest.raises(SerializationError) as caught:
        JSON.encode(ContractEvent(occurred_at="soon"))
    assert caught.value.field == "occurred_at"


@pytest.mark.parametrize("option", [{"format": "pickle"}, {"unknown": "ignore"}])
def test_bad_options_are_refused(option: Any) -> None:
    """The error names the option."""
    with pytest.raises(EventValidationError) as caught:
        EventCodec(**option)
    assert caught.value.field in option


def test_a_type_named_in_data_is_never_imported() -> None:
    """A class that nobody registered stays closed, even if its module is loaded."""
    assert "colorsys" not in sys.modules
    for name in (
        "colorsys.rgb_to_hsv",
        "subprocess.Popen",
        "os.system",
        "builtins.object",
        "pathlib.Path",
        "argparse.Namespace",
    ):
        data = json.dumps({"$type": name, "value": {}}).encode()
        with pytest.raises(SerializationError, match="not known"):
            EventCodec(EventTypeRegistry()).decode_value(data)
    assert "colorsys" not in sys.modules


@pytest.mark.parametrize(
    "data",
    [
        '{"$type":"uuid"}',
        '{"$type":"uuid","value":5}',
        '{"$type":"uuid","value":"x"}',
        '{"$type":5,"value":"x"}',
        '{"$type":"decimal","value":"1","more":1}',
        '{"value":"1","$type":"decimal"}',
        '{"$type":"dict","value":[[[],1]]}',
        '{"$type":"dict","value":[1]}',
        '{"$type":"set","value":[[]]}',
        '{"$type":"deque","value":[-1,[]]}',
        '{"$type":"int","value":"0xg"}',
        '{"$type":"float","value":"x"}',
        '{"$type":"timedelta","value":"P9999999999DT0S"}',
        '{"$type":"datetime","value":"2026-01-01T00:00:00+01:00[No/Where]"}',
        '{"$type":"bytes","value":"a"}',
    ],
)
def test_malformed_tags_are_refused(data: str) -> None:
    """By both the core and the oracle."""
    with pytest.raises(SerializationError):
        JSON.decode_value(data.encode())


# Re-entrancy and memory


@both
def test_values_whose_code_encodes_while_being_encoded_do_not_disturb(codec: EventCodec) -> None:
    """A property that calls the codec gets its own buffer."""

    @dataclass
    class Sly:
        a: int

        def __getattribute__(self, name: str) -> Any:
            if name == "a":
                assert codec.decode_value(codec.encode_value([1, 2])) == [1, 2]
            return object.__getattribute__(self, name)

    value = [Sly(1), "text", Sly(2)]
    assert codec.decode_value(codec.encode_value(value)) == value


@both
def test_containers_that_change_while_being_encoded_are_refused(codec: EventCodec) -> None:
    """Never a torn payload, never a crash."""
    victims: list[Any] = [[], {}, set()]

    class Grow:
        def __get__(self, instance: Any, owner: Any = None) -> Any:
            victims[0].append(1)
            victims[1][len(victims[1])] = 1
            victims[2].add(len(victims[2]) + 100)
            return 1

    trap = make_dataclass("Trap", ["a"], frozen=True, eq=False)
    trap.a = Grow()  # type: ignore[attr-defined]
    instance = object.__new__(trap)
    victims[0] += [instance, 2]
    victims[1][0] = instance
    victims[2] |= {instance}
    for value in victims:
        try:
            data = codec.encode_value(value)
        except SerializationError:
            continue
        codec.parse(codec.encode(ad_hoc(value=1)).payload)
        assert codec.decode_value(data) is not None


@both
def test_encoding_and_decoding_leak_nothing(codec: EventCodec) -> None:
    """Reference counts and memory stay where they were."""
    event = event_class(a=str, b=list[Item], c=Any, p=Point)(
        a="x" * 50, b=[Item("a", Decimal(1))], c={A_UUID: (1, 2)}, p=Point(1)
    )
    row = codec.encode(event)
    watched = [event, event.c, A_UUID, Item, type(event), Colour.RED]  # type: ignore[attr-defined]

    def work() -> None:
        for _ in range(300):
            codec.encode(event)
            codec.decode(row.type_name, row.event_type, row.payload, 1, 1)
            try:
                codec.decode(row.type_name, row.event_type, row.payload[:-2], 1, 1)
            except SerializationError:
                pass
            try:
                codec.encode(ad_hoc(a=1, b=object()))
            except SerializationError:
                pass

    work()
    counts = [sys.getrefcount(one) for one in watched]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert [sys.getrefcount(one) for one in watched] == counts
    assert grown < 20_000


@both
def test_threads_share_a_codec(codec: EventCodec) -> None:
    """Four threads encode and decode different events with one codec."""
    wrong: list[Any] = []

    def work(name: str) -> None:
        for number in range(300):
            event = Noted(text=f"{name}{number}")
            if there_and_back(codec, event) != event:
                wrong.append(event)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_ad_hoc_names_that_look_like_ours_come_back() -> None:
    """`$meta` and `$type` as attribute names are escaped."""
    event = Event(**{"$meta": 1, "$type": 2, "$$x": 3, "plain": 4})
    for codec in (JSON, BINARY):
        back = there_and_back(codec, event)
        assert [getattr(back, name) for name in ("$meta", "$type", "$$x", "plain")] == [1, 2, 3, 4]
