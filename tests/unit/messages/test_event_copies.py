"""Copies of events: with_…, copy, deepcopy, pickle, dictionaries."""

from __future__ import annotations

import copy
import dataclasses as dc
import enum
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from lexigram.events import DomainEvent, Event, IntegrationEvent, SerializationError

AGGREGATE = uuid4()


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Line:
    sku: str
    price: Decimal


class Ordered(DomainEvent):
    order_id: UUID
    lines: list[Line]
    colour: Colour = Colour.RED
    day: date | None = None


@dataclass(frozen=True)
class Decorated(DomainEvent):
    name: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slotted(DomainEvent):
    a: int
    b: str = "b"


class Tagged(DomainEvent):
    tags: list[str]


def samples() -> list[DomainEvent]:
    full: dict[str, Any] = {
        "aggregate_id": AGGREGATE,
        "aggregate_type": "Order",
        "sequence_number": 7,
        "actor_id": "me",
        "schema_version": 3,
        "version": 2,
        "correlation_id": uuid4(),
        "causation_id": uuid4(),
        "tags": ("a", "b"),
        "metadata": {"tenant_id": "t", "n": [1]},
    }
    lines = [Line("s", Decimal("1.50"))]
    return [
        Ordered(order_id=uuid4(), lines=lines, **full),
        Ordered(order_id=uuid4(), lines=[], day=date(2024, 2, 29)),
        Decorated("n", {"k": [1]}, aggregate_id="a-1"),
        Slotted(1, **full),
        Event(data=[1], kind="x"),
        IntegrationEvent(source_service="s", event_type="custom"),
        Tagged(tags=["x"]).with_tags("hidden").with_metadata(k="v"),
        Ordered(order_id=uuid4(), lines=[], schema_version=20260101),
    ]


def stamped(event: DomainEvent) -> tuple[Any, ...]:
    return event.version, event.sequence_number


@pytest.mark.parametrize("event", samples(), ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_class_and_every_field(event: DomainEvent, protocol: int) -> None:
    """All protocols; version and position included, attributes of plain events too."""
    again = pickle.loads(pickle.dumps(event, protocol))
    assert type(again) is type(event)
    assert again == event
    assert stamped(again) == stamped(event)
    assert again.to_dict() == event.to_dict()


@pytest.mark.parametrize("event", samples(), ids=lambda event: type(event).__name__)
def test_copies_are_equal_and_new(event: DomainEvent) -> None:
    """copy shares values, deepcopy does not."""
    shallow, deep = copy.copy(event), copy.deepcopy(event)
    assert shallow == event
    assert deep == event
    assert shallow is not event
    assert stamped(shallow) == stamped(deep) == stamped(event)


def test_deepcopy_copies_containers_and_follows_cycles() -> None:
    """A list inside is a new list; one object stays one object."""
    shared = [1]
    event = Event(a=shared, b=shared)
    deep: Any = copy.deepcopy(event)
    assert deep.a is deep.b
    assert deep.a is not shared


def test_with_methods_change_one_thing_and_keep_the_rest() -> None:
    """Every copy helper keeps class, id, time, fields and the other metadata."""
    correlation, causation, aggregate = uuid4(), uuid4(), uuid4()
    for event in samples():
        changed = (
            event.with_version(9)
            .for_aggregate(aggregate, "Basket")
            .with_correlation_id(correlation)
            .with_causation_id(causation)
        )
        assert type(changed) is type(event)
        assert (changed.event_id, changed.occurred_at, changed.event_type) == (
            event.event_id,
            event.occurred_at,
            event.event_type,
        )
        assert (changed.version, changed.aggregate_id, changed.aggregate_type) == (9, aggregate, "Basket")
        assert (changed.correlation_id, changed.causation_id) == (correlation, causation)
        back = changed._with(
            aggregate_id=event.aggregate_id,
            aggregate_type=event.aggregate_type,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
        )
        assert back == event


def test_tags_and_metadata_are_added() -> None:
    """Existing ones stay; values given later win."""
    event = Slotted(1, tags=("a",), metadata={"x": 1, "y": 1}).with_tags("b", "a").with_metadata(y=2)
    assert event.tags == ("a", "b")
    assert event.metadata == {"x": 1, "y": 2}


def test_copies_run_no_user_code() -> None:
    """`__post_init__` happened when the event was made."""
    runs: list[int] = []

    class Counted(DomainEvent):
        a: int = 1

        def __post_init__(self) -> None:
            runs.append(1)

    event = Counted()
    event.with_version(1)
    copy.deepcopy(event)
    assert runs == [1]


@pytest.mark.parametrize("event", samples(), ids=lambda event: type(event).__name__)
def test_dictionaries_have_every_field_and_are_json(event: DomainEvent) -> None:
    """to_dict of a plain subclass loses nothing; from_dict gives back an equal event."""
    data = event.to_dict()
    assert {f.name for f in dc.fields(event)} <= set(data)  # type: ignore[arg-type]
    again = type(event).from_dict(json.loads(json.dumps(data)))
    if type(event) is not Tagged:  # hidden tags are not part of the dictionary
        assert again == event
    assert stamped(again) == stamped(event)


def test_dictionary_values_have_the_documented_form() -> None:
    """UUIDs and times are strings."""
    event = Slotted(1, occurred_at=datetime(2024, 1, 1, tzinfo=UTC), aggregate_id=AGGREGATE)
    data = event.to_dict()
    assert (data["event_id"], data["aggregate_id"]) == (str(event.event_id), str(AGGREGATE))
    assert datetime.fromisoformat(data["occurred_at"]) == event.occurred_at
    assert (data["a"], data["b"], data["event_type"]) == (1, "b", "Slotted")


def test_from_dict_takes_python_values_and_refuses_unknown_keys() -> None:
    """A UUID or Decimal needs no text form."""
    order = uuid4()
    assert Ordered.from_dict({"order_id": order, "lines": [], "aggregate_id": AGGREGATE}).order_id == order
    with pytest.raises(TypeError, match="'bogus'"):
        Slotted.from_dict({"a": 1, "bogus": 2})
    with pytest.raises(TypeError, match="'a'"):
        Slotted.from_dict({})
    with pytest.raises(SerializationError):
        Ordered.from_dict({"order_id": "no uuid", "lines": []})


def test_a_value_without_json_form_is_refused_by_name() -> None:
    """The error names the field."""
    with pytest.raises(SerializationError, match="object"):
        Decorated("n", {"k": object()}).to_dict()


def test_a_pickle_is_read_by_another_process() -> None:
    """The class is found by its import path."""
    program = (
        "import pickle, sys\n"
        "from tests.unit.messages import importable as m\n"
        "sys.stdout.buffer.write(pickle.dumps(m.Importable(a=1, metadata={'k': 'v'})))\n"
    )
    from tests.unit.messages import importable

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    event = pickle.loads(done.stdout)
    assert type(event) is importable.Importable
    assert (event.a, event.metadata) == (1, {"k": "v"})


def test_damaged_state_is_refused() -> None:
    """Rebuilding checks names and metadata like a call."""
    from lexigram.events.messages.stamping import rebuild

    with pytest.raises(TypeError, match="no field 'bogus'"):
        rebuild(Slotted, {"a": 1, "bogus": 1}, None)
    with pytest.raises(TypeError, match="'a'"):
        rebuild(Slotted, {}, None)
    with pytest.raises(TypeError, match="not a message class"):
        rebuild(int, {}, None)  # type: ignore[type-var]
