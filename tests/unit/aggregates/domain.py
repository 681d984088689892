"""A small order domain for the tests of aggregates and repositories."""

from __future__ import annotations

import dataclasses as dc
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, Field

from lexigram.events import AggregateRoot, DomainEvent, Entity, ValueObject


class ItemAdded(DomainEvent):
    sku: str
    quantity: int = 1
    price: Decimal = Decimal("1.00")


class OrderShippedEvent(DomainEvent):
    at: datetime


class OrderCancelled(DomainEvent):
    reason: str = ""


class Unheard(DomainEvent):
    """No aggregate here handles it."""


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    since: date | None = None


@dc.dataclass(frozen=True)
class Note:
    text: str
    by: UUID


class Money(ValueObject):
    amount: Decimal
    currency: str = "EUR"


class Line(Entity):
    sku: str
    quantity: int
    price: Money


class Order(AggregateRoot):
    status: str = "draft"
    lines: list[Line] = Field(default_factory=list)
    labels: set[str] = Field(default_factory=set)
    total: Decimal = Decimal("0.00")
    colour: Colour = Colour.RED
    shipped_at: datetime | None = None
    address: Address | None = None
    notes: tuple[Note, ...] = ()

    def add(self, sku: str, quantity: int = 1, price: Decimal = Decimal("1.00")) -> None:
        if self.status != "draft":
            raise ValueError("not a draft")
        self._apply(ItemAdded(sku=sku, quantity=quantity, price=price))

    def ship(self, at: datetime) -> None:
        self._apply(OrderShippedEvent(at=at))

    def cancel(self, reason: str = "") -> None:
        self._apply(OrderCancelled(reason=reason))

    def _handle_item_added(self, event: ItemAdded) -> None:
        self.lines.append(Line(len(self.lines), event.sku, event.quantity, Money(event.price)))
        self.total += event.price * event.quantity
        self.labels.add(event.sku[:1])

    def _handle_order_shipped(self, event: OrderShippedEvent) -> None:
        self.status = "shipped"
        self.shipped_at = event.at

    def _handle_order_cancelled(self, event: OrderCancelled) -> None:
        if event.reason == "boom":
            raise RuntimeError("handler failed")
        self.status = "cancelled"


class Counter(AggregateRoot):
    """The smallest aggregate: counts items."""

    count: int = 0

    def add(self, quantity: int = 1) -> None:
        self._apply(ItemAdded(sku="x", quantity=quantity))

    def _handle_item_added(self, event: ItemAdded) -> None:
        self.count += event.quantity
