"""spec/api-reference.md: AbstractEventStore, AbstractSnapshotStore, InMemoryEventStore, InMemorySnapshotStore, Sqlite…"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import (
    AbstractEventStore,
    AbstractSnapshotStore,
    InMemoryEventStore,
    InMemorySnapshotStore,
    SqliteConfig,
    SqliteEventStore,
    SqliteSnapshotStore,
)
from tests.spec_examples.shop import ItemAdded, ItemAddedEvent, OrderCreated
from tests.spec_examples.test_aggregates import Order


@pytest.fixture(params=["memory", "sqlite"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Any, Any]]:
    """Event and snapshot store of both backends."""
    config = SqliteConfig(database=str(tmp_path / "events.db"))
    memory = request.param == "memory"
    events: AbstractEventStore = InMemoryEventStore() if memory else SqliteEventStore(config)
    snapshots: AbstractSnapshotStore = InMemorySnapshotStore() if memory else SqliteSnapshotStore(config)
    async with events, snapshots:
        yield events, snapshots


async def test_abstract_event_store(stores: Any) -> None:
    """Section "AbstractEventStore", example."""
    store = stores[0]
    # Append events
    await store.append(
        stream_id="order-123",
        events=[OrderCreated(order_id="order-123"), ItemAdded(product_id="p1")],
        expected_version=0,
    )
    # Read events
    events = await store.read("order-123")
    assert [type(event) for event in events] == [OrderCreated, ItemAdded]


async def test_abstract_snapshot_store(stores: Any) -> None:
    """Section "AbstractSnapshotStore", example (M-14): `store.save(Snapshot(...))`, `to_dict`, `from_snapshot`, `start=`."""
    event_store, store = stores
    order = Order(id="order-123")
    order.add_item("p1", 2, Decimal("1.50"))
    await event_store.append("order-123", order.pull_events())
    later = ItemAddedEvent(order_id="order-123", product_id="p2", quantity=1, price=Decimal(1))
    await event_store.append("order-123", [later])

    from lexigram.events.types import Snapshot

    # Save a snapshot
    await store.save(
        Snapshot(aggregate_id=order.id, aggregate_type="Order", version=order.version, state=order.to_dict())
    )
    # Load the latest snapshot
    snapshot = await store.get_latest("order-123")
    if snapshot:
        order = Order.from_snapshot(snapshot.state)
        events = await event_store.read("order-123", start=snapshot.version)
    assert [event.product_id for event in events] == ["p2"]
    order.load_from_history(events)
    assert (order.id, order.version, order.total) == ("order-123", 2, Decimal("4.00"))


async def test_in_memory_event_store() -> None:
    """Section "InMemoryEventStore", example."""
    store = InMemoryEventStore()
    # Save events
    await store.append(stream_id="order-123", events=[OrderCreated(order_id="order-123")], expected_version=0)
    # Load events
    events = await store.read("order-123")
    assert [event.version for event in events] == [1]


async def test_in_memory_snapshot_store() -> None:
    """Section "InMemorySnapshotStore", example."""
    from lexigram.events.types import Snapshot

    store = InMemorySnapshotStore()
    # Save snapshot
    await store.save_snapshot(
        Snapshot(
            aggregate_id="order-123",
            aggregate_type="Order",
            version=100,
            state={"status": "completed", "total": 150.00},
        )
    )
    # Load latest snapshot
    snapshot = await store.get_latest("order-123")
    assert snapshot is not None
    assert (snapshot.version, snapshot.state) == (100, {"status": "completed", "total": 150.00})
