"""Loading with snapshots, taking them by policy, and snapshots that cannot be used."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from pydantic import Field

from lexigram.events import (
    AggregateRoot,
    DomainEvent,
    EventCountPolicy,
    EventLoadError,
    EventSourcingRepository,
    EventValidationError,
    InMemoryEventStore,
    InMemorySnapshotStore,
    OnDemandPolicy,
    Snapshot,
)
from tests.contract_store import ContractStore
from tests.unit.aggregates.domain import Address, Colour, Counter, ItemAdded, Note, Order


async def counted(event_store: Any, snapshot_store: Any, number: int, every: int = 10, **options: Any) -> Any:
    """Save a counter with `number` events, one save each, and return its repository."""
    repository = EventSourcingRepository(Counter, event_store, snapshot_store, snapshot_every=every, **options)
    counter = Counter(id="c")
    for _ in range(number):
        counter.add()
        await repository.save(counter)
    return repository


async def test_a_snapshot_after_every_so_many_events(event_store: Any, snapshot_store: Any) -> None:
    """Loading needs only the events after it."""
    repository = await counted(event_store, snapshot_store, 25)
    latest = await snapshot_store.get_latest("c")
    assert (latest.version, latest.state) == (20, {"count": 20})
    loaded = await repository.get_or_raise("c")
    assert (loaded.count, loaded.version, loaded.expected_version) == (25, 25, 25)
    await event_store.compact("c", 20)
    assert (await repository.get_or_raise("c")).count == 25


async def test_get_change_save_keeps_counting_from_the_latest_snapshot(event_store: Any, snapshot_store: Any) -> None:
    """Freshly loaded aggregates know when the next snapshot is due."""
    repository = await counted(event_store, snapshot_store, 10)
    for version in range(11, 31):
        counter = await repository.get_or_raise("c")
        counter.add()
        await repository.save(counter)
        assert (await snapshot_store.get_latest("c")).version == version // 10 * 10


async def test_only_the_latest_snapshots_are_kept(event_store: Any, snapshot_store: Any) -> None:
    """As many as `keep_snapshots` says."""
    await counted(event_store, snapshot_store, 9, every=1, keep_snapshots=2)
    assert await snapshot_store.get_by_version("c", 8) is not None
    assert await snapshot_store.get_by_version("c", 7) is None


async def test_a_snapshot_after_a_big_save(event_store: Any, snapshot_store: Any) -> None:
    """One, at the version reached."""
    repository = EventSourcingRepository(Counter, event_store, snapshot_store, snapshot_every=10)
    counter = Counter(id="c")
    for _ in range(34):
        counter.add()
    await repository.save(counter)
    assert (await snapshot_store.get_latest("c")).version == 34


async def test_snapshots_on_demand(event_store: Any, snapshot_store: Any) -> None:
    """`force_snapshot` takes one whatever the policy; not with unsaved events."""
    repository = EventSourcingRepository(Counter, event_store, snapshot_store, snapshot_policy=OnDemandPolicy())
    counter = Counter(id="c")
    counter.add()
    with pytest.raises(EventValidationError, match="save the aggregate"):
        await repository.force_snapshot(counter)
    await repository.save(counter)
    assert await snapshot_store.get_latest("c") is None
    await repository.force_snapshot(counter)
    assert (await snapshot_store.get_latest("c")).version == 1


async def test_every_type_survives_the_snapshot_store(event_store: Any, snapshot_store: Any) -> None:
    """State restored from a snapshot equals the state saved, types included."""
    repository = EventSourcingRepository(Order, event_store, snapshot_store, snapshot_every=1)
    order = Order(id=uuid4(), colour=Colour.BLUE, address=Address(street="Main", since=date(2024, 2, 29)))
    order.notes = (Note("ä", uuid4()),)
    order.add("apple", 3, Decimal("0.10"))
    order.ship(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
    await repository.save(order)
    await event_store.compact(str(order.id), 2)
    loaded = await repository.get_or_raise(order.id)
    for name in ("id", "status", "lines", "labels", "total", "colour", "shipped_at", "address", "notes"):
        assert (name, getattr(loaded, name)) == (name, getattr(order, name))
    assert type(loaded.total) is Decimal
    assert loaded.lines[0].price == order.lines[0].price


async def test_a_failing_snapshot_store_never_fails_a_save(
    event_store: Any, snapshot_store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The events are committed; a warning says what happened; the next save tries again."""

    async def fail(snapshot: Snapshot) -> None:
        raise RuntimeError("no space")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(snapshot_store, "save_snapshot", fail)
        repository = await counted(event_store, snapshot_store, 10)
    assert any("no space" in record.message for record in caplog.records)
    counter = await repository.get_or_raise("c")
    assert counter.version == 10
    counter.add()
    await repository.save(counter)
    assert (await snapshot_store.get_latest("c")).version == 11


async def test_a_snapshot_store_that_cannot_be_read_is_ignored(
    event_store: Any, snapshot_store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The events are replayed instead, with a warning."""
    repository = await counted(event_store, snapshot_store, 10)

    async def fail(aggregate_id: str) -> Any:
        raise RuntimeError("damaged row")

    monkeypatch.setattr(snapshot_store, "get_latest", fail)
    with caplog.at_level(logging.WARNING):
        assert (await repository.get_or_raise("c")).count == 10
    assert any("damaged row" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aggregate_type": "Order"}, "of a Order"),
        ({"metadata": {"snapshot_schema_version": 0}}, "schema version is 0"),
        ({"state": {"count": {"$type": "nonsense", "value": 1}}}, "does not fit"),
        ({"state": {}}, "before count existed"),
        ({"version": 99}, "newer than the events"),
    ],
)
async def test_an_unusable_snapshot_is_ignored_with_a_warning(
    event_store: Any, snapshot_store: Any, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], reason: str
) -> None:
    """Another class, another schema version, another shape, or newer than the events: these are replayed."""
    repository = await counted(event_store, snapshot_store, 3)
    values: dict[str, Any] = {"aggregate_type": "Counter", "version": 2, "state": {"count": 100}}
    await snapshot_store.save_snapshot(Snapshot(aggregate_id="c", **{**values, **changes}))
    with caplog.at_level(logging.WARNING):
        counter = await repository.get_or_raise("c")
    assert (counter.count, counter.version) == (3, 3)
    assert any(reason in record.message for record in caplog.records)
    counter.add()
    await repository.save(counter)


async def test_an_unusable_snapshot_does_not_hide_missing_events(event_store: Any, snapshot_store: Any) -> None:
    """If it is the only thing that covers them, loading fails."""
    repository = await counted(event_store, snapshot_store, 10)
    await event_store.compact("c", 10)
    latest = await snapshot_store.get_latest("c")
    await snapshot_store.save_snapshot(
        Snapshot("c", "Counter", latest.version, latest.state, metadata={"snapshot_schema_version": 7})
    )
    with pytest.raises(EventLoadError):
        await repository.get("c")


async def test_a_field_added_since_is_computed_from_the_events(event_store: Any, snapshot_store: Any) -> None:
    """An older snapshot does not know it; if the events are gone, the default has to do."""
    await counted(event_store, snapshot_store, 10)

    class Counter(AggregateRoot):
        count: int = 0
        largest: int = 0

        def _handle_item_added(self, event: ItemAdded) -> None:
            self.count += event.quantity
            self.largest = max(self.largest, event.quantity)

    repository = EventSourcingRepository(Counter, event_store, snapshot_store)
    assert (await repository.get_or_raise("c")).largest == 1
    await event_store.compact("c", 5)
    loaded = await repository.get_or_raise("c")
    assert (loaded.count, loaded.largest) == (10, 0)


async def test_a_snapshot_given_as_id_state_and_version_is_used(event_store: Any, snapshot_store: Any) -> None:
    """The contract's `save` knows neither class nor schema."""
    repository = await counted(event_store, snapshot_store, 3)
    await snapshot_store.save("c", {"count": 100}, 2)
    assert (await repository.get_or_raise("c")).count == 101


async def test_loading_with_a_snapshot_reads_only_what_comes_after(
    event_store: Any, snapshot_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost does not grow with the history."""
    repository = await counted(event_store, snapshot_store, 23)
    seen: list[DomainEvent] = []
    original = event_store._read

    async def watched(*args: Any) -> Any:
        events = await original(*args)
        seen.extend(events)
        return events

    monkeypatch.setattr(event_store, "_read", watched)
    await repository.get_or_raise("c")
    assert [event.version for event in seen] == [21, 22, 23]


async def test_the_policy_sees_what_was_saved(event_store: Any, snapshot_store: Any) -> None:
    """Events since the latest snapshot, its time, and the version."""
    calls: list[tuple[int, bool, int]] = []

    class Watching(EventCountPolicy):
        def should_snapshot(
            self, events_since_snapshot: int, last_snapshot_time: datetime | None = None, aggregate_version: int = 0
        ) -> bool:
            calls.append((events_since_snapshot, last_snapshot_time is not None, aggregate_version))
            return super().should_snapshot(events_since_snapshot)

    await counted(event_store, snapshot_store, 4, snapshot_policy=Watching(2))
    assert calls == [(1, False, 1), (2, False, 2), (1, True, 3), (2, True, 4)]


async def test_a_snapshot_with_values_of_another_kind_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """A field that was a number and is a list now: the events are replayed, and the log says what to do."""

    class Tally(AggregateRoot):
        counts: list[int] = Field(default_factory=list)

        def _handle_item_added(self, event: ItemAdded) -> None:
            self.counts.append(event.quantity)

    events, snapshots = InMemoryEventStore(), InMemorySnapshotStore()
    repository = EventSourcingRepository(Tally, events, snapshots)
    tally = Tally(id="t")
    tally._apply(ItemAdded(sku="p", quantity=2))
    await repository.save(tally)
    await snapshots.save_snapshot(Snapshot("t", "Tally", 1, {"counts": 2}))
    with caplog.at_level(logging.WARNING):
        loaded = await repository.get_or_raise("t")
    assert loaded.counts == [2]
    assert "snapshot_schema_version" in caplog.text


class Compact(AggregateRoot):
    """Keeps its state in snapshots its own way, without the base class."""

    count: int = 0
    seen: int = 0

    def add(self) -> None:
        self._apply(ItemAdded(sku="x"))

    def _handle_item_added(self, event: ItemAdded) -> None:
        self.count += 1
        self.seen += 1

    def create_snapshot(self) -> Snapshot:
        return Snapshot(self.id, "Compact", self.version, {"c": self.count})

    def load_from_snapshot(self, snapshot: Snapshot) -> None:
        self.count = snapshot.state["c"]


async def test_a_class_may_make_and_read_snapshots_its_own_way(
    event_store: Any, snapshot_store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """They are used although they do not name the fields, and the aggregate goes on at their version."""
    repository = EventSourcingRepository(Compact, event_store, snapshot_store, snapshot_every=3)
    compact = Compact(id="c")
    for _ in range(7):
        compact.add()
        await repository.save(compact)
    loaded = await repository.get_or_raise("c")
    assert (loaded.count, loaded.seen, loaded.version) == (7, 1, 7)
    loaded.add()
    await repository.save(loaded)
    await event_store.compact("c", 6)
    assert (await repository.get_or_raise("c")).count == 8
    assert Compact.from_snapshot(loaded.create_snapshot()).version == 8
    assert not caplog.records


async def test_a_field_added_since_is_computed_from_a_store_of_the_frameworks_contract() -> None:
    """Such a store reads with `start` and `count` only."""

    snapshots = InMemorySnapshotStore()
    repository = EventSourcingRepository(Counter, ContractStore(), snapshots)
    counter = Counter(id="c")
    counter.add()
    counter.add()
    await repository.save(counter)
    await snapshots.save_snapshot(Snapshot("c", "Counter", 2, {}))
    assert (await repository.get_or_raise("c")).count == 2


async def test_a_constructor_that_could_not_run_is_told_with_the_error() -> None:
    """An attribute that it sets is missing on replay; the error says why, and what to do."""

    class Owned(AggregateRoot):
        def __init__(self, id: str, owner: str) -> None:
            super().__init__(id)
            self.owner, self.notes = owner, 0

        def _handle_item_added(self, event: ItemAdded) -> None:
            self.notes += 1

    store = InMemoryEventStore()
    owned = Owned("a", "Ada")
    owned._apply(ItemAdded(sku="x"))
    await EventSourcingRepository(Owned, store).save(owned)
    with pytest.raises(EventLoadError, match=r"Owned.__init__ needs more than an id .* factory="):
        await EventSourcingRepository(Owned, store).get("a")
    found = await EventSourcingRepository(Owned, store, factory=lambda id: Owned(str(id), "?")).get_or_raise("a")
    assert found.notes == 1
