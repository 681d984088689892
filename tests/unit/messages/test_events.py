"""Events: construction, metadata, immutability, equality."""

from __future__ import annotations

import dataclasses as dc
import gc
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import DomainEvent, Event, EventValidationError, IntegrationEvent


class UserRegistered(DomainEvent):
    user_id: str
    email: str = ""


class Priced(DomainEvent):
    sku: str
    price: Decimal
    notes: list[str] = dc.field(default_factory=list)


def test_a_class_with_annotations_is_a_complete_event() -> None:
    """Fields, defaults and the contract's base class are all there."""
    event = UserRegistered(user_id="u1")
    assert (event.user_id, event.email, event.event_type) == ("u1", "", "UserRegistered")
    assert isinstance(event, ContractEvent)
    assert issubclass(UserRegistered, ContractEvent)


def test_metadata_has_its_documented_defaults() -> None:
    """What nobody gave is empty, not missing."""
    event = UserRegistered(user_id="u1")
    assert (event.aggregate_id, event.aggregate_type, event.sequence_number, event.actor_id) == (None,) * 4
    assert (event.schema_version, event.version, event.correlation_id, event.causation_id) == (1, 0, None, None)
    assert (event.tags, event.metadata) == ((), {})


def test_ids_are_uuid7_and_increase_in_order_of_construction() -> None:
    """Ids of one process sort like the events were made, also within a millisecond."""
    ids = [UserRegistered(user_id="u").event_id for _ in range(5000)]
    assert all(type(one) is UUID and one.version == 7 and one.variant == "specified in RFC 4122" for one in ids)
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_the_id_carries_the_time_of_the_event() -> None:
    """The first 48 bits of the id are the milliseconds of occurred_at (or slightly later under pressure)."""
    event = UserRegistered(user_id="u")
    milliseconds = event.event_id.int >> 80
    assert 0 <= milliseconds - int(event.occurred_at.timestamp() * 1000) < 50


def test_time_is_aware_utc_with_microseconds() -> None:
    """occurred_at is the present, in UTC."""
    before = datetime.now(UTC)
    event = UserRegistered(user_id="u")
    assert before <= event.occurred_at <= datetime.now(UTC)
    assert event.occurred_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (datetime(2024, 2, 29, 23, 59, 59, 999999, UTC), datetime(2024, 2, 29, 23, 59, 59, 999999, UTC)),
        (datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))), datetime(2023, 12, 31, 23, tzinfo=UTC)),
        (datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 12, tzinfo=UTC)),
        ("2024-01-01T12:00:00+00:00", datetime(2024, 1, 1, 12, tzinfo=UTC)),
        (datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    ],
)
def test_every_time_is_shown_in_utc(given: Any, expected: datetime) -> None:
    """Zones are converted; a time without zone is UTC."""
    assert UserRegistered(user_id="u", occurred_at=given).occurred_at == expected


def test_missing_and_unknown_fields_are_named() -> None:
    """The TypeError lists all of them at once."""
    with pytest.raises(TypeError, match=r"^Priced\(\) missing required keyword arguments: 'sku', 'price'$"):
        Priced()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^UserRegistered\(\) got unexpected keyword argument: 'name'$"):
        UserRegistered(user_id="u", name="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"missing required keyword argument: 'price'; got unexpected .*: 'a', 'b'$"):
        Priced(sku="s", a=1, b=2)  # type: ignore[call-arg]


def test_positional_arguments_are_rejected() -> None:
    """Fields of an undecorated class are keyword-only."""
    with pytest.raises(TypeError, match="keyword arguments only, 1 positional given"):
        UserRegistered("u1")  # type: ignore[misc]


def test_keywords_work_in_any_order_and_when_not_interned() -> None:
    """Names are compared by value, not only by identity."""
    names = {"".join(["user", "_id"]): "u", "".join(["em", "ail"]): "e", "".join(["actor", "_id"]): "a"}
    event = UserRegistered(**dict(reversed(names.items())))
    assert (event.user_id, event.email, event.actor_id) == ("u", "e", "a")


def test_default_factories_give_every_event_its_own_value() -> None:
    """Two events never share a mutable default."""
    one, two = Priced(sku="s", price=Decimal(1)), Priced(sku="s", price=Decimal(1))
    assert one.notes == []
    assert one.notes is not two.notes


def test_a_mutable_default_is_refused_when_the_class_is_defined() -> None:
    """As with dataclasses, a list as default is a mistake."""
    with pytest.raises(ValueError, match="mutable default"):

        class Wrong(DomainEvent):
            items: list[str] = []


def test_events_cannot_be_changed() -> None:
    """Assignment and deletion raise, for fields, metadata and new names."""
    event = UserRegistered(user_id="u")
    for name in ("user_id", "version", "event_id", "anything"):
        with pytest.raises(dc.FrozenInstanceError, match=name):
            setattr(event, name, "x")
        with pytest.raises(dc.FrozenInstanceError, match=name):
            delattr(event, name)


def test_metadata_given_as_dictionary_is_copied_in_and_out() -> None:
    """Neither the caller's dictionary nor the one read changes the event."""
    given = {"tenant_id": "t"}
    event = UserRegistered(user_id="u", metadata=given)
    given["tenant_id"] = "other"
    event.metadata["tenant_id"] = "third"  # type: ignore[index]
    assert event.metadata == {"tenant_id": "t"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"event_id": "not-a-uuid"}, "event_id"),
        ({"event_id": 5}, "event_id"),
        ({"occurred_at": "yesterday"}, "occurred_at"),
        ({"occurred_at": 5}, "occurred_at"),
        ({"version": -1}, "version"),
        ({"version": "1"}, "version"),
        ({"version": True}, "version"),
        ({"version": 2**40}, "version"),
        ({"sequence_number": -1}, "sequence_number"),
        ({"sequence_number": 1.5}, "sequence_number"),
        ({"schema_version": -1}, "schema_version"),
        ({"event_type": ""}, "event_type"),
        ({"event_type": 5}, "event_type"),
        ({"tags": "abc"}, "tags"),
        ({"tags": ["a", ""]}, "tags"),
        ({"tags": [1]}, "tags"),
        ({"tags": 5}, "tags"),
        ({"metadata": 5}, "metadata"),
        ({"metadata": {1: 2}}, "metadata"),
    ],
)
def test_unacceptable_metadata_is_refused_by_name(values: dict[str, Any], field: str) -> None:
    """One clear error names the field, and it is a ValueError too."""
    with pytest.raises(EventValidationError, match=f"{field} must be") as caught:
        UserRegistered(user_id="u", **values)
    assert caught.value.field == field


def test_tags_are_distinct_and_keep_their_order() -> None:
    """Any collection of strings will do."""
    assert UserRegistered(user_id="u", tags=["b", "a", "b"]).tags == ("b", "a")  # type: ignore[arg-type]


def test_large_schema_versions_are_kept() -> None:
    """A date as schema version is possible."""
    assert UserRegistered(user_id="u", schema_version=20260101).schema_version == 20260101
    assert UserRegistered(user_id="u", schema_version=65535).schema_version == 65535


def test_equality_is_by_value_and_ignores_what_a_store_writes() -> None:
    """Class, fields and metadata count; version and sequence_number do not."""
    event = UserRegistered(user_id="u", metadata={"a": 1}, tags=("t",))
    assert event == event.with_version(7)
    assert event == UserRegistered(**{**_values(event), "sequence_number": 9})
    for name, value in {"user_id": "x", "actor_id": "x", "tags": (), "metadata": {}, "event_id": uuid4()}.items():
        assert event != UserRegistered(**{**_values(event), name: value}), name
    assert event != "something else"
    assert event is not None


def _values(event: DomainEvent) -> dict[str, Any]:
    return {f.name: getattr(event, f.name) for f in dc.fields(event)}  # type: ignore[arg-type]


def test_a_subclass_instance_never_equals_its_base() -> None:
    """Equality includes the class."""

    class Sub(UserRegistered):
        pass

    event = UserRegistered(user_id="u")
    assert event != Sub(**_values(event))


def test_a_field_without_comparison_does_not_count() -> None:
    """`field(compare=False)` is honoured."""

    class Cached(DomainEvent):
        a: int
        b: int = dc.field(default=0, compare=False, repr=False)

    event = Cached(a=1)
    assert event == event._with(b=5)
    assert "b=" not in repr(event)


def test_hashes_follow_the_id() -> None:
    """Events with unhashable fields can be in sets."""
    event = Priced(sku="s", price=Decimal(1))
    assert hash(event) == hash(event.with_version(3))
    assert len({event, event.with_version(3)}) == 1


def test_ad_hoc_keywords_are_attributes_of_a_plain_event() -> None:
    """Only `Event` itself takes them."""
    event = Event(event_type="ping", host="a", data=[1])
    assert (event.event_type, event.host, event.data) == ("ping", "a", [1])  # type: ignore[attr-defined]
    assert event == event.with_version(1)
    assert event != Event(event_id=event.event_id, occurred_at=event.occurred_at, event_type="ping", host="b")
    with pytest.raises(TypeError, match="unexpected keyword argument: 'host'"):
        IntegrationEvent(host="a")  # type: ignore[call-arg]


def test_ad_hoc_keywords_cannot_hide_methods() -> None:
    """A name that the class has is refused."""
    with pytest.raises(TypeError, match="to_dict"):
        Event(to_dict=1)


def test_integration_events_have_source_and_destinations() -> None:
    """Both are ordinary fields with defaults."""
    event = IntegrationEvent(source_service="orders", destination_services=["billing"])
    assert (event.source_service, event.destination_services) == ("orders", ["billing"])
    assert IntegrationEvent().destination_services == []


def test_repr_shows_fields_and_identity() -> None:
    """Enough to recognise the event, nothing that is merely a default."""
    event = UserRegistered(user_id="u")
    assert repr(event).startswith("UserRegistered(user_id='u', email='', event_id=UUID(")
    assert "schema_version" not in repr(event)
    assert "data=1" in repr(Event(data=1))


class Address(BaseModel):
    street: str


def test_pydantic_models_can_be_field_values() -> None:
    """They are kept as they are."""

    class Moved(DomainEvent):
        to: Address

    event = Moved(to=Address(street="x"))
    assert event.to == Address(street="x")
    assert event == event.with_version(1)


def test_only_events_with_containers_are_tracked_by_the_collector() -> None:
    """Plain values, enums, decimals, ids and times do not make an event visible to the collector."""
    plain = UserRegistered(user_id="u", aggregate_id=uuid4(), correlation_id=uuid4())
    assert not gc.is_tracked(plain)
    assert not gc.is_tracked(Priced(sku="s", price=Decimal("1"), notes=None))  # type: ignore[arg-type]
    assert gc.is_tracked(Priced(sku="s", price=Decimal("1")))
    assert gc.is_tracked(Event(data=1))


def test_five_fields_take_at_most_160_bytes() -> None:
    """Header, collector's header, metadata and five words."""

    class Five(DomainEvent):
        a: int
        b: int
        c: int
        d: int
        e: int

    assert sys.getsizeof(Five(a=1, b=2, c=3, d=4, e=5)) <= 160


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_other_ids() -> None:
    """Parent and child never repeat each other's random bits."""
    program = (
        "import os\n"
        "from lexigram.events import Event\n"
        "Event()\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.write(w, Event().event_id.bytes[8:]); os._exit(0)\n"
        "os.wait(); print(os.read(r, 8) != Event().event_id.bytes[8:])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_events_can_be_fields_of_pydantic_models() -> None:
    """An instance is kept as it is; plain data becomes an event; JSON has the fields."""

    class Envelope(BaseModel):
        event: UserRegistered
        others: list[DomainEvent] = []

    event = UserRegistered(user_id="u")
    envelope = Envelope(event=event, others=[event])
    assert envelope.event is event
    assert envelope.others[0] is event
    assert envelope.model_dump(mode="json")["event"]["user_id"] == "u"
    made = Envelope.model_validate({"event": {"user_id": "v"}}).event
    assert (made.user_id, made.email, made.event_type, made.event_id.version) == ("v", "", "UserRegistered", 7)
    with pytest.raises(ValueError, match="user_id"):
        Envelope.model_validate({"event": {}})


def test_classes_of_unknown_modules_can_be_events() -> None:
    """Code run by `exec` or in a notebook may have a module name that nobody imported."""
    space: dict[str, Any] = {"DomainEvent": DomainEvent, "__name__": "nowhere"}
    exec(
        "from __future__ import annotations\n"
        "from typing import ClassVar\n"
        "class Made(DomainEvent):\n    a: int\n    b: ClassVar[int] = 1\n",
        space,
    )
    assert space["Made"](a=2).a == 2
    with pytest.raises(TypeError, match="'b'"):
        space["Made"](a=1, b=2)
