"""Aggregates, value objects and repositories: only the marked lines are errors."""

from __future__ import annotations

from decimal import Decimal
from typing import assert_type
from uuid import UUID, uuid4

from pydantic import Field

from lexigram.events import (
    AggregateRoot,
    DomainEvent,
    Entity,
    EventSourcingRepository,
    InMemoryEventStore,
    InMemorySnapshotStore,
    ReadOnlyEventSourcingRepository,
    SingleValueObject,
    Snapshot,
    ValueObject,
    VersionedAggregateRoot,
)
from lexigram.events.testing.scenario import Scenario


class Placed(DomainEvent):
    total: Decimal


class Money(ValueObject):
    amount: Decimal
    currency: str = "EUR"


class Email(SingleValueObject[str]):
    pass


class Line(Entity):
    sku: str
    quantity: int = 1


class Order(AggregateRoot):
    status: str = "draft"
    lines: list[Line] = Field(default_factory=list[Line])
    limit: Money | None = None

    def place(self, total: Decimal) -> None:
        self._apply(Placed(total=total))

    def _handle_placed(self, event: Placed) -> None:
        self.status = "placed"


class Account(VersionedAggregateRoot):
    owner: str


def right() -> None:
    order = Order(id=uuid4(), status="new", limit=Money(Decimal(1)))
    Order()
    Order("o-1", lines=[Line(sku="a")])
    order.place(Decimal(1))
    assert_type(order.version, int)
    assert_type(order.create_snapshot(), Snapshot)
    assert_type(Order.from_snapshot(order.create_snapshot()), Order)
    assert_type(Email("a@b").value, str)
    Account(owner="Ada").set_expected_version(3)


async def loaded() -> None:
    repository = EventSourcingRepository(Order, InMemoryEventStore(), InMemorySnapshotStore(), snapshot_every=10)
    assert_type(repository, EventSourcingRepository[Order])
    assert_type(await repository.get("o-1"), Order | None)
    assert_type(await repository.get_or_raise(UUID(int=1)), Order)
    assert_type(await repository.get_all(limit=3), list[Order])
    assert_type(await ReadOnlyEventSourcingRepository(Order, InMemoryEventStore()).list(status="placed"), list[Order])
    Scenario(Order).given(Placed(total=Decimal(1))).when(lambda order: order.place(Decimal(2))).then_raises(ValueError)
    await repository.save(Account(owner="Ada"))  # E: another aggregate class
    await repository.get(5)  # E: an id is a UUID or a str


def wrong() -> None:
    Order(nothing=1)  # E: unknown
    Order(status=1)  # E: mistyped
    Account()  # E: missing
    Money()  # E: missing
    Money(Decimal(1), 2)  # E: mistyped
    Line()  # E: missing
    Money(Decimal(1)).amount = Decimal(2)  # E: frozen
    Order().place("1")  # E: mistyped
    Scenario(Order).when(lambda order: order.nothing())  # E: unknown method
    EventSourcingRepository(Placed, InMemoryEventStore())  # E: not an aggregate
