"""`EventSourcingRepository[Order]` can be annotated, injected, subclassed and called."""

from __future__ import annotations

from typing import Any

import pytest

from lexigram.contracts.events.protocols.store import EventStoreProtocol, SnapshotStoreProtocol
from lexigram.di.container import Container
from lexigram.events.aggregates.aggregate import AggregateRoot
from lexigram.events.config import EventsConfig
from lexigram.events.exceptions import EventValidationError
from lexigram.events.repository.event_sourcing import EventSourcingRepository
from lexigram.events.stores.memory import InMemoryEventStore, InMemorySnapshotStore
from lexigram.events.stores.snapshot import OnDemandPolicy, SnapshotPolicy


class Order(AggregateRoot):
    """An aggregate."""


class Invoice(AggregateRoot):
    """Another aggregate."""


class OrderRepository(EventSourcingRepository[Order]):
    """A repository of the application."""


@pytest.fixture
def container() -> Container:
    container = Container()
    container.singleton(EventStoreProtocol, InMemoryEventStore())
    container.singleton(SnapshotStoreProtocol, InMemorySnapshotStore())
    container.singleton(SnapshotPolicy, OnDemandPolicy())
    container.singleton(EventsConfig, EventsConfig(snapshots={"max_snapshots_per_aggregate": 2}))
    return container


async def test_any_aggregate_class_is_resolved_without_registration(container: Container) -> None:
    """The alias is a class of its own per aggregate, and the container builds it from what is bound."""
    orders = await container.resolve(EventSourcingRepository[Order])
    invoices = await container.resolve(EventSourcingRepository[Invoice])
    assert isinstance(orders, EventSourcingRepository)
    assert (orders.aggregate_type, invoices.aggregate_type) == (Order, Invoice)
    assert isinstance(orders.snapshot_policy, OnDemandPolicy)
    assert EventSourcingRepository[Order] is EventSourcingRepository[Order]


async def test_a_repository_of_the_application_is_resolved_too(container: Container) -> None:
    """A subclass inherits the injection."""
    repository = await container.resolve(OrderRepository)
    assert isinstance(repository, OrderRepository)
    assert repository.aggregate_type is Order


async def test_calling_the_alias_works_as_before() -> None:
    """Programs call the alias with the constructor's own arguments."""
    store = InMemoryEventStore()
    assert EventSourcingRepository[Order](Order, store).aggregate_type is Order
    build: Any = OrderRepository
    assert build(event_store=store).aggregate_type is Order


async def test_without_an_event_store_the_error_is_clear() -> None:
    """Where no events module is booted there is nothing to inject."""
    with pytest.raises(EventValidationError, match="needs an event_store"):
        await Container().resolve(EventSourcingRepository[Order])
