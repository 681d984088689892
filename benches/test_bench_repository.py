"""Aggregates and read models over the store in memory; run with `pytest benches/test_bench_repository.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benches.frames import drive
from lexigram.events import AggregateRoot, DomainEvent, EventSourcingRepository, InMemoryEventStore, ProjectionManager
from lexigram.events.projections.base import ProjectionProtocol


class ItemAdded(DomainEvent):
    sku: str
    quantity: int


class Cart(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.quantity = 0

    def add(self, quantity: int = 1) -> None:
        self._apply(ItemAdded(sku="SKU-9", quantity=quantity))

    def _handle_item_added(self, event: ItemAdded) -> None:
        self.quantity += event.quantity


class Totals(ProjectionProtocol):
    """Quantity by article."""

    name = "totals"
    handles = (ItemAdded,)

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[str, int] = {}

    async def apply(self, event: ItemAdded) -> None:
        self.totals[event.sku] = self.totals.get(event.sku, 0) + event.quantity


def cart(name: str, items: int) -> Cart:
    made = Cart(name)
    for _ in range(items):
        made.add()
    return made


def test_apply(benchmark: Any) -> None:
    """A new event to its handler."""
    made = Cart("cart-1")
    benchmark(made.add)
    assert made.quantity > 0


@pytest.mark.parametrize("items", [10, 1000])
def test_load(benchmark: Any, items: int) -> None:
    """An aggregate from its events."""
    repository = EventSourcingRepository(Cart, InMemoryEventStore())
    drive(repository.save(cart("cart-1", items)))
    assert benchmark(lambda: drive(repository.get("cart-1"))).quantity == items


def test_save(benchmark: Any) -> None:
    """Ten new events of a new aggregate; making them is not timed."""
    repository, saved = EventSourcingRepository(Cart, InMemoryEventStore()), list[Cart]()

    def fresh() -> tuple[tuple[Cart], dict[str, Any]]:
        saved.append(cart(f"cart-{len(saved)}", 10))
        return (saved[-1],), {}

    benchmark.pedantic(lambda made: drive(repository.save(made)), setup=fresh, rounds=1000)
    assert drive(repository.get("cart-0")).quantity == 10


def test_projection(benchmark: Any) -> None:
    """A read model in memory, built again from a thousand events."""
    store, totals = InMemoryEventStore(), Totals()
    drive(store.append("cart-1", [ItemAdded(sku=f"SKU-{n % 50}", quantity=1) for n in range(1000)]))
    with asyncio.Runner() as runner:
        manager = ProjectionManager(store)
        manager.register(totals)
        assert benchmark(lambda: runner.run(manager.rebuild("totals"))) == 1000
