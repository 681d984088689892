"""Damaged data, hostile data, values that call back, threads and memory."""

from __future__ import annotations

import json
import sys
import threading
import tracemalloc
import warnings
from dataclasses import dataclass, make_dataclass
from decimal import Decimal
from typing import Any

import pytest

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import (
    Command,
    Event,
    EventCodec,
    EventValidationError,
    SerializationError,
)
from lexigram.events.messages.registry import EventTypeRegistry, default_registry
from tests.unit.messages.codec_samples import (
    A_UUID,
    BINARY,
    JSON,
    TYPED,
    Colour,
    Item,
    Noted,
    Point,
    ad_hoc,
    both,
    event_class,
    there_and_back,
)


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
    sys.modules.pop("tabnanny", None)  # another test may have imported it
    for name in (
        "tabnanny.check",
        "subprocess.Popen",
        "os.system",
        "builtins.object",
        "pathlib.Path",
        "argparse.Namespace",
    ):
        data = json.dumps({"$type": name, "value": {}}).encode()
        with pytest.raises(SerializationError, match="not known"):
            EventCodec(EventTypeRegistry()).decode_value(data)
    assert "tabnanny" not in sys.modules


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
