"""spec/api-reference.md and spec/architecture.md: aggregates, repositories, snapshots."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import pytest
from pydantic import Field

from lexigram.events import (
    AbstractRepository,
    AggregateRoot,
    EventBusImpl,
    EventCountPolicy,
    EventSourcingRepository,
    InMemoryEventStore,
    InMemorySnapshotStore,
    SnapshotManager,
)
from tests.spec_examples.shop import InvalidOperationError, ItemAdded, ItemAddedEvent, OrderItem


class Order(AggregateRoot):
    status: str = "draft"
    items: list[OrderItem] = Field(default_factory=list)
    total: Decimal = Decimal("0.00")

    def add_item(self, product_id: str, quantity: int, price: Decimal):
        if self.status != "draft":
            raise InvalidOperationError("Cannot modify non-draft order")
        self._apply(ItemAddedEvent(order_id=self.id, product_id=product_id, quantity=quantity, price=price))

    def _handle_item_added(self, event: ItemAddedEvent):
        self.items.append(OrderItem(product_id=event.product_id, quantity=event.quantity, price=event.price))
        self.total += event.price * event.quantity


def test_aggregate_root() -> None:
    """Section "AggregateRoot", example: fields with pydantic's `Field`, a command method, a handler."""
    order = Order()
    assert isinstance(order.id, UUID)
    order.add_item("p1", 2, Decimal("1.50"))
    assert order.items == [OrderItem(product_id="p1", quantity=2, price=Decimal("1.50"))]
    assert order.total == Decimal("3.00")
    assert Order().items == []
    with pytest.raises(InvalidOperationError):
        Order(status="placed").add_item("p1", 1, Decimal(1))


def test_aggregate_root_of_the_architecture_document() -> None:
    """spec/architecture.md, "AggregateRoot": positional construction of an item, two lines of handler."""
    outer = Order

    class Order_(AggregateRoot):
        status: str = "draft"
        items: list[OrderItem] = Field(default_factory=list)

        def add_item(self, product_id, quantity, price):
            self._apply(ItemAddedEvent(order_id=self.id, product_id=product_id, quantity=quantity, price=price))

        def _handle_item_added(self, event: ItemAddedEvent):
            self.items.append(OrderItem(event.product_id, event.quantity, event.price))

    order = Order_()
    order.add_item("p1", 2, Decimal("1.50"))
    assert order.items == [OrderItem("p1", 2, Decimal("1.50"))]
    assert outer is Order


async def test_abstract_repository() -> None:
    """Section "AbstractRepository", example: a repository of one's own."""

    class OrderRepository(AbstractRepository[Order]):
        async def get(self, id: UUID) -> Order | None: ...

        async def save(self, aggregate: Order) -> None: ...

        async def exists(self, id: UUID) -> bool:
            return False

    assert await OrderRepository().get(UUID(int=1)) is None


async def test_event_sourcing_repository() -> None:
    """Section "EventSourcingRepository", example: create, load, modify, save."""
    event_store, snapshot_store, event_bus = InMemoryEventStore(), InMemorySnapshotStore(), EventBusImpl()
    product_id, quantity, price = "p1", 2, Decimal("1.50")
    seen: list[ItemAddedEvent] = []
    event_bus.subscribe(ItemAddedEvent, seen.append)
    first = Order()
    first.add_item("p0", 1, Decimal(1))
    await event_store.append(str(first.id), first.pull_events())
    order_id = first.id

    # Create repository with snapshot support
    repository = EventSourcingRepository(
        aggregate_type=Order,
        event_store=event_store,
        snapshot_store=snapshot_store,
        event_bus=event_bus,
        snapshot_policy=EventCountPolicy(100),
    )
    # Load aggregate - uses snapshot if available
    order = await repository.get(order_id)
    # Modify aggregate
    order.add_item(product_id, quantity, price)
    # Save - stores events, maybe creates snapshot, publishes events
    await repository.save(order)

    await event_bus.flush()
    await event_bus.close()
    assert [event.product_id for event in seen] == ["p1"]
    assert (await repository.get_or_raise(order_id)).total == Decimal("4.00")


async def test_snapshot_manager() -> None:
    """Section "SnapshotManager", example; what it loads is a triple, as the table below the example says."""
    event_store, snapshot_store = InMemoryEventStore(), InMemorySnapshotStore()
    await event_store.append("order-123", [ItemAdded(product_id=str(number)) for number in range(100)])

    manager = SnapshotManager(event_store=event_store, snapshot_store=snapshot_store, policy=EventCountPolicy(100))
    # Load aggregate with snapshot acceleration
    state, events, _version = await manager.load_with_snapshot(aggregate_id="order-123", aggregate_type="Order")
    assert (state, len(events)) == (None, 100)
    state = {"items": 101}
    # Auto-snapshot after save if policy triggers
    await manager.save_and_maybe_snapshot(
        aggregate_id="order-123",
        aggregate_type="Order",
        events=[ItemAdded(product_id="100")],
        current_state=state,
        expected_version=100,
    )
    assert await manager.load_with_snapshot(aggregate_id="order-123", aggregate_type="Order") == (state, [], 101)


async def test_the_sequence_of_the_architecture_document() -> None:
    """spec/architecture.md, sequence diagram: save by hand, snapshot, reconstruct from version 51."""
    store, snapshots, bus = InMemoryEventStore(), InMemorySnapshotStore(), EventBusImpl()
    aggregate = Order(id="o-1")
    for _ in range(50):
        aggregate.add_item("p", 1, Decimal(1))
    events = aggregate.pull_events()
    version = await store.append("o-1", events, 0)
    await bus.publish(events)
    aggregate.clear_events()
    assert version == 50
    snapshot = aggregate.create_snapshot()
    await snapshots.save_snapshot(snapshot)
    for _ in range(3):
        aggregate.add_item("q", 1, Decimal(2))
    await store.append("o-1", aggregate.pull_events(), 50)

    # Reconstruction
    snapshot = await snapshots.get_latest("o-1")
    assert snapshot is not None
    assert snapshot.version == 50
    aggregate = Order()
    aggregate.load_from_snapshot(snapshot)
    events = await store.read("o-1", from_version=51)
    aggregate.load_from_history(events)
    assert (aggregate.id, aggregate.version, aggregate.total) == ("o-1", 53, Decimal(56))
    await bus.flush()
    await bus.close()
