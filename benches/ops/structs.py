"""The twelve fields of the codec operations as msgspec structs."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

import msgspec


class Status(Enum):
    NEW = "new"
    PAID = "paid"


class Line(msgspec.Struct, frozen=True):
    sku: str
    quantity: int


class OrderPlaced(msgspec.Struct, frozen=True, kw_only=True):
    """The twelve fields of our codec operation, with the id and the time that our events have besides."""

    event_id: UUID
    occurred_at: datetime
    order_id: UUID
    customer: str
    email: str
    placed_at: datetime
    total: Decimal
    status: Status
    quantity: int
    weight: float
    express: bool
    lines: tuple[Line, ...]
    tags_: tuple[str, ...]
    note: str | None


def sample() -> OrderPlaced:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    return OrderPlaced(
        event_id=UUID(int=1),
        occurred_at=moment,
        order_id=UUID(int=7),
        customer="Ada Lovelace",
        email="ada@example.test",
        placed_at=moment,
        total=Decimal("1234.56"),
        status=Status.PAID,
        quantity=3,
        weight=1.25,
        express=True,
        lines=(Line("tea", 2), Line("milk", 1)),
        tags_=("a", "b"),
        note=None,
    )
