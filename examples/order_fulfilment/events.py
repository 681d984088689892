"""What happens to an order."""

from __future__ import annotations

from lexigram.events import DomainEvent, event_type


@event_type("order.placed")
class OrderPlaced(DomainEvent):
    order: str
    product: str
    quantity: int
    cents: int
    card: str
    address: str


@event_type("order.stock_reserved")
class StockReserved(DomainEvent):
    order: str
    reservation: str


@event_type("order.card_charged")
class CardCharged(DomainEvent):
    order: str
    cents: int
    receipt: str


@event_type("order.shipped")
class OrderShipped(DomainEvent):
    order: str
    parcel: str


@event_type("order.card_refunded")
class CardRefunded(DomainEvent):
    order: str
    cents: int


@event_type("order.stock_released")
class StockReleased(DomainEvent):
    order: str
    reservation: str
