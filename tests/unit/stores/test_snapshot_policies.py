"""Snapshot policies and the snapshot manager."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lexigram.events import (
    CompositePolicy,
    ConcurrencyError,
    EventCountPolicy,
    EventLoadError,
    EventValidationError,
    InMemoryEventStore,
    InMemorySnapshotStore,
    OnDemandPolicy,
    Snapshot,
    SnapshotConfig,
    SnapshotManager,
    SnapshotStrategy,
    TimeBasedPolicy,
)
from lexigram.events.stores.snapshot import policy_from_config
from tests.contract_store import ContractStore
from tests.unit.aggregates.domain import ItemAdded


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_counting_events() -> None:
    """Due at the threshold and above, 100 by default."""
    assert [EventCountPolicy(3).should_snapshot(number) for number in (0, 2, 3, 4)] == [False, False, True, True]
    assert (EventCountPolicy().should_snapshot(99), EventCountPolicy().should_snapshot(100)) == (False, True)


def test_waiting_for_time_to_pass() -> None:
    """Due once the interval has passed or if there is no snapshot; never without new events; naive times are UTC."""
    policy = TimeBasedPolicy(60)
    assert policy.should_snapshot(1, ago(61))
    assert not policy.should_snapshot(1, ago(50))
    assert policy.should_snapshot(1, None)
    assert not policy.should_snapshot(0, ago(100))
    assert policy.should_snapshot(1, ago(61).replace(tzinfo=None))
    assert policy.should_snapshot(1, ago(-61))  # the clock was set back
    assert TimeBasedPolicy().interval_seconds == 3600


def test_only_on_demand() -> None:
    """Never by itself."""
    assert not OnDemandPolicy().should_snapshot(10**6, ago(10**6), 10**6)


def test_policies_together() -> None:
    """Any of them by default, each of them with `require_all`."""
    count, time = EventCountPolicy(5), TimeBasedPolicy(60)
    either, both = CompositePolicy([count, time]), CompositePolicy([count, time], require_all=True)
    for events, age, expected in ((5, 1, (True, False)), (1, 61, (True, False)), (5, 61, (True, True)), (1, 1, (0, 0))):
        assert (either.should_snapshot(events, ago(age)), both.should_snapshot(events, ago(age))) == expected


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: EventCountPolicy(0), "event_threshold"),
        (lambda: EventCountPolicy(2.5), "event_threshold"),  # type: ignore[arg-type]
        (lambda: TimeBasedPolicy(-1), "interval_seconds"),
        (lambda: CompositePolicy([]), "policies"),
        (lambda: CompositePolicy(["x"]), "policies"),  # type: ignore[list-item]
    ],
)
def test_impossible_policies_are_refused(make: Any, field: str) -> None:
    """With the name of the argument."""
    with pytest.raises(EventValidationError) as caught:
        make()
    assert caught.value.field == field


def test_policies_from_configuration() -> None:
    """One for each strategy; none of them by itself if snapshots are switched off."""
    counted = policy_from_config(SnapshotConfig(event_count_threshold=7))
    timed = policy_from_config(SnapshotConfig(strategy=SnapshotStrategy.TIME_BASED, time_threshold_seconds=9))
    assert isinstance(counted, EventCountPolicy)
    assert isinstance(timed, TimeBasedPolicy)
    assert (counted.event_threshold, timed.interval_seconds) == (7, 9)
    assert isinstance(policy_from_config(SnapshotConfig(strategy=SnapshotStrategy.ON_DEMAND)), OnDemandPolicy)
    assert isinstance(policy_from_config(SnapshotConfig(enabled=False)), OnDemandPolicy)


@pytest.fixture
def stores() -> tuple[InMemoryEventStore, InMemorySnapshotStore]:
    """Empty stores."""
    return InMemoryEventStore(), InMemorySnapshotStore()


async def test_the_manager_loads_state_events_and_version(stores: Any) -> None:
    """A triple: without a snapshot None and all events, with one only the events after it."""
    manager = SnapshotManager(*stores)
    assert await manager.load_with_snapshot("o", "Order") == (None, [], 0)
    await stores[0].append("o", [ItemAdded(sku=str(number)) for number in range(5)])
    state, events, version = await manager.load_with_snapshot("o", "Order")
    assert (state, len(events), version) == (None, 5, 5)
    await manager.create_snapshot("o", "Order", 3, {"items": 3})
    state, events, version = await manager.load_with_snapshot("o", "Order")
    assert (state, [event.sku for event in events], version) == ({"items": 3}, ["3", "4"], 5)


async def test_the_manager_ignores_a_snapshot_of_another_type(stores: Any) -> None:
    """And replays everything."""
    manager = SnapshotManager(*stores)
    await stores[0].append("o", [ItemAdded(sku="a")])
    await manager.create_snapshot("o", "Invoice", 1, {})
    assert (await manager.load_with_snapshot("o", "Order"))[0] is None


async def test_the_manager_notices_missing_events(stores: Any) -> None:
    """A beginning that is gone and not covered raises, also if all is gone, or if a snapshot is ahead of the stream."""
    manager = SnapshotManager(*stores)
    await stores[0].append("o", [ItemAdded(sku=str(number)) for number in range(5)])
    for version in (2, 5):
        await stores[0].compact("o", version)
        with pytest.raises(EventLoadError):
            await manager.load_with_snapshot("o", "Order")
    await manager.create_snapshot("o", "Order", 5, {"items": 5})
    assert await manager.load_with_snapshot("o", "Order") == ({"items": 5}, [], 5)
    await manager.create_snapshot("o", "Order", 9, {"items": 9})
    with pytest.raises(EventLoadError):
        await manager.load_with_snapshot("o", "Order")


async def test_the_manager_saves_and_snapshots_by_policy(stores: Any) -> None:
    """True where a snapshot was taken; a conflict writes nothing."""
    manager = SnapshotManager(*stores, EventCountPolicy(3))
    taken = []
    for number in range(7):
        taken.append(
            await manager.save_and_maybe_snapshot("o", "Order", [ItemAdded(sku="a")], {"n": number + 1}, number)
        )
    assert taken == [False, False, True, False, False, True, False]
    latest = await stores[1].get_latest("o")
    assert (latest.version, latest.state, latest.aggregate_type) == (6, {"n": 6}, "Order")
    with pytest.raises(ConcurrencyError):
        await manager.save_and_maybe_snapshot("o", "Order", [ItemAdded(sku="a")], {}, 3)
    assert await stores[0].get_stream_version("o") == 7


async def test_a_failing_snapshot_does_not_fail_the_managers_save(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events are there; the answer is False."""

    async def fail(snapshot: Snapshot) -> None:
        raise RuntimeError("no space")

    monkeypatch.setattr(stores[1], "save_snapshot", fail)
    manager = SnapshotManager(*stores, EventCountPolicy(1))
    assert not await manager.save_and_maybe_snapshot("o", "Order", [ItemAdded(sku="a")], {}, 0)
    assert await stores[0].get_stream_version("o") == 1


async def test_the_manager_forces_and_cleans_up(stores: Any) -> None:
    """A forced snapshot is at the stream's version; old ones go as configured or as asked."""
    manager = SnapshotManager(*stores, config=SnapshotConfig(max_snapshots_per_aggregate=2))
    for number in range(4):
        await stores[0].append("o", [ItemAdded(sku="a")])
        snapshot = await manager.force_snapshot("o", "Order", lambda number=number: {"n": number})
        assert (snapshot.version, snapshot.state) == (number + 1, {"n": number})
    assert await stores[1].get_by_version("o", 2) is None
    assert await stores[1].get_by_version("o", 3) is not None
    assert await manager.cleanup_old_snapshots("o", keep_count=1) == 1
    assert await manager.cleanup_old_snapshots("o") == 0


async def test_the_manager_needs_only_the_frameworks_contracts() -> None:
    """Stores with `append`, `read`, `read_all` and with `save`, `load` are enough for everything that it does."""

    class Snapshots:
        kept: tuple[Any, int] | None = None

        async def save(self, aggregate_id: str, snapshot: Any, version: int) -> None:
            self.kept = (snapshot, version)

        async def load(self, aggregate_id: str) -> tuple[Any, int] | None:
            return self.kept

    manager: SnapshotManager[Any] = SnapshotManager(ContractStore(), Snapshots(), EventCountPolicy(2))
    assert not await manager.save_and_maybe_snapshot("o", "Order", [ItemAdded(sku="1")], {"n": 1}, 0)
    assert await manager.save_and_maybe_snapshot("o", "Order", [ItemAdded(sku="2")], {"n": 2}, 1)
    assert not await manager.save_and_maybe_snapshot("o", "Order", [ItemAdded(sku="3")], {"n": 3}, 2)
    state, events, version = await manager.load_with_snapshot("o", "Order")
    assert (state, [event.sku for event in events], version) == ({"n": 2}, ["3"], 3)
    assert (await manager.force_snapshot("o", "Order", lambda: {"n": 3})).version == 3
    assert await manager.load_with_snapshot("o", "Order") == ({"n": 3}, [], 3)
    assert await manager.cleanup_old_snapshots("o") == 0
