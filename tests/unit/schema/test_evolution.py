"""Conversion of events between schema versions."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import (
    DomainEvent,
    EventCodec,
    EventValidationError,
    InMemoryEventStore,
    SchemaError,
    SqliteEventStore,
    UnknownEvent,
)
from lexigram.events.schema.evolution import Downcaster, EventMigrator, SchemaEvolution, Upcaster
from lexigram.events.schema.models import EventSchema, SchemaIncompatibleError, SchemaNotFoundError
from lexigram.events.schema.registry import SchemaRegistry


class PriceSet(DomainEvent):
    amount: Decimal
    currency: str
    source: str = "shop"


class Step(Upcaster):
    def __init__(self, start: int, end: int, change: Any, event_type: str = "PriceSet") -> None:
        self.event_type, self.from_version, self.to_version, self.change = event_type, start, end, change

    async def upcast(self, data: dict[str, Any]) -> dict[str, Any]:
        return self.change(data)


class Back(Downcaster):
    event_type, from_version, to_version = "PriceSet", 3, 2

    async def downcast(self, data: dict[str, Any]) -> dict[str, Any]:
        data.pop("source")
        return data


def chain() -> SchemaEvolution:
    """Versions 1 (price: float) → 2 (amount) → 3 (currency required)."""
    registry = SchemaRegistry()
    registry.register_event_class(PriceSet, version=3)
    evolution = SchemaEvolution(registry)
    evolution.register_upcaster(Step(1, 2, lambda data: {"amount": str(data["price"])}))
    evolution.register_upcaster(Step(2, 3, lambda data: {**data, "currency": "EUR", "source": "old"}))
    return evolution


def old_event() -> Any:
    """An event of version 1 whose class can no longer be built from its data."""
    payload = (
        b'{"price":1.5,"$meta":{"event_id":"01a1fd7b-b0ce-7a3f-abfe-b7569e4512b2",'
        b'"occurred_at":"2026-01-01T00:00:00+00:00","event_type":"PriceSet","schema_version":1,"actor_id":"ann"}}'
    )
    return EventCodec().decode("gone.away.PriceSetV1", "PriceSetV1", payload, 4, 9)


async def test_a_chain_of_upcasters_makes_fields_that_the_class_requires() -> None:
    """Version 1 data becomes the class of version 3, before that class is built; metadata and numbers stay."""
    old = old_event()
    assert isinstance(old, UnknownEvent)
    event = await chain().migrate_event(old, 3)
    assert isinstance(event, PriceSet)
    assert (event.amount, event.currency, event.source) == (Decimal("1.5"), "EUR", "old")
    assert (event.schema_version, event.version, event.sequence_number, event.actor_id) == (3, 4, 9, "ann")
    assert event.event_id == old.event_id
    assert event.occurred_at == old.occurred_at


async def test_an_upcaster_may_put_python_values_in() -> None:
    """A Decimal set by an upcaster comes out as that Decimal."""
    registry = SchemaRegistry()
    registry.register_event_class(PriceSet, version=2)
    evolution = SchemaEvolution(registry)
    evolution.register_upcaster(Step(1, 2, lambda data: {"amount": Decimal("9.90"), "currency": "USD"}))
    event: Any = await evolution.migrate_event(old_event(), 2)
    assert event.amount == Decimal("9.90")


async def test_a_missing_step_raises() -> None:
    """Nothing is passed on unconverted."""
    with pytest.raises(SchemaError, match="PriceSet: no conversion from schema version 1 to 4"):
        await chain().migrate_event(old_event(), 4)


async def test_a_failing_upcaster_raises_with_type_and_versions() -> None:
    """The error names event type, both versions and the cause."""
    with pytest.raises(SchemaError, match="PriceSet from schema version 1 to 2 failed: KeyError") as caught:
        await chain().migrate_data("PriceSet", {}, 1, 3)
    assert isinstance(caught.value.__cause__, KeyError)


async def test_an_upcaster_that_returns_nothing_raises() -> None:
    """A forgotten return statement is not an empty event."""
    evolution = chain()
    evolution.register_upcaster(Step(3, 4, lambda data: None))
    with pytest.raises(SchemaError, match="returned NoneType"):
        await evolution.migrate_data("PriceSet", {"price": 1}, 1, 4)


async def test_migrate_data_leaves_its_argument_alone() -> None:
    """Upcasters work on a copy, nested values included."""
    evolution = SchemaEvolution(SchemaRegistry())

    def change(data: dict[str, Any]) -> dict[str, Any]:
        data["inner"]["x"] = 2
        return data

    evolution.register_upcaster(Step(1, 2, change))
    data = {"inner": {"x": 1}}
    assert await evolution.migrate_data("PriceSet", data, 1, 2) == {"inner": {"x": 2}}
    assert data == {"inner": {"x": 1}}


async def test_the_shortest_way_is_taken_and_downcasters_go_back() -> None:
    """A direct step wins over a chain; downcasters are used in their direction only."""
    evolution = chain()
    direct = Step(1, 3, lambda data: {"amount": "1", "currency": "CHF"})
    evolution.register_upcaster(direct)
    path = await evolution.get_migration_path("PriceSet", 1, 3)
    assert path is not None
    assert path.steps == [direct]
    assert await evolution.get_migration_path("PriceSet", 3, 2) is None
    evolution.register_downcaster(Back())
    assert await evolution.migrate_data("PriceSet", {"amount": "1", "source": "x"}, 3, 2) == {"amount": "1"}


@pytest.mark.parametrize(("start", "end"), [(2, 1), (1, 1), (0, 1), ("1", 2)])
def test_an_upcaster_with_bad_versions_is_refused(start: Any, end: Any) -> None:
    """Upcasters go up, from version 1."""
    with pytest.raises(EventValidationError):
        SchemaEvolution(SchemaRegistry()).register_upcaster(Step(start, end, dict))


async def test_the_migrator_reports_and_converts() -> None:
    """The report counts versions and names missing ways; conversion to latest leaves current events alone."""
    migrator = EventMigrator(chain())
    current = PriceSet(amount=Decimal(1), currency="EUR", schema_version=3)
    events = [old_event(), current]
    report = await migrator.get_migration_report(events)
    assert (report["total_events"], report["needs_migration"], report["missing_paths"]) == (2, 1, [])
    assert report["by_type"] == {"PriceSet": {1: 1, 3: 1}}
    migrated = await migrator.migrate_to_latest(events)
    assert isinstance(migrated[0], PriceSet)
    assert migrated[1] is current
    assert (await migrator.migrate_to_versions(events, {"Other": 2})) == events


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_without_a_schema_events_are_read_where_the_upcasters_lead(backend: str, tmp_path: Path) -> None:
    """Registering upcasters is enough; what they cannot convert raises, and a schema in the registry decides."""
    evolution = SchemaEvolution(SchemaRegistry())
    evolution.register_upcaster(Step(1, 2, lambda data: {**data, "source": "old"}))
    evolution.register_upcaster(Step(2, 3, lambda data: {**data, "currency": "EUR"}))
    file = tmp_path / "events.db"
    memory = backend == "memory"
    store = InMemoryEventStore(evolution) if memory else SqliteEventStore(file, schema_evolution=evolution)
    async with store:
        for version in (1, 2, 3, 4):
            await store.append("a", [PriceSet(amount=Decimal(1), currency="USD", schema_version=version)])
        events = [
            await store.read("a"),
            [event async for event in store.stream_all()],
            await EventMigrator(evolution).migrate_to_latest(await store.read("a")),
        ]
        for read in events:
            told = [(event.schema_version, event.source, event.currency) for event in read]
            assert told == [(3, "old", "EUR"), (3, "shop", "EUR"), (3, "shop", "USD"), (4, "shop", "USD")]
        evolution.registry.register_event_class(PriceSet, version=2)
        assert [event.schema_version for event in await store.read("a")] == [2, 2, 3, 4]

    lacking = SchemaEvolution(SchemaRegistry())
    lacking.register_upcaster(Step(2, 3, lambda data: data))
    broken = InMemoryEventStore(lacking)
    await broken.append("a", [PriceSet(amount=Decimal(1), currency="USD")])
    with pytest.raises(SchemaError, match="no conversion from schema version 1 to 3"):
        await broken.read("a")


async def test_an_incompatible_schema_is_refused_unless_asked_for() -> None:
    """A newly required field needs an upcaster, so it must be registered deliberately."""
    registry = SchemaRegistry()
    await registry.register_schema(EventSchema("A", 1, json_schema={"properties": {"x": {"type": "string"}}}))
    second = EventSchema("A", 2, json_schema={"properties": {"x": {"type": "integer"}}, "required": ["y"]})
    with pytest.raises(SchemaIncompatibleError) as caught:
        await registry.register_schema(second)
    assert len(caught.value.issues) == 2
    assert await registry.get_latest_version("A") == 1
    await registry.register_schema(second, check_compatibility=False)
    assert (await registry.get_schema("A")).version == 2
    with pytest.raises(SchemaNotFoundError):
        await registry.get_schema("A", 7)
    assert await registry.list_event_types() == ["A"]


async def test_a_schema_is_derived_from_annotations_and_validates_data() -> None:
    """Missing and mistyped fields are named."""
    registry = SchemaRegistry()
    registry.register_event_class(PriceSet)
    assert await registry.validate("PriceSet", {"amount": "1", "currency": "EUR"}) == (True, [])
    valid, issues = await registry.validate("PriceSet", {"amount": 1})
    assert not valid
    assert issues == ["currency: missing", "amount: string expected, not int"]
    assert await registry.get_event_class("PriceSet") is PriceSet
