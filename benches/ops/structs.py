"""What both sides of the codec comparison encode and decode, and how it is timed.

The values inside an event are of the same classes on both sides: `UUID`, `datetime`, `Decimal`, the enum `Status`, the
dataclass `Line`. The event itself is each library's own kind of object: `DomainEvent` here, `msgspec.Struct` there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

now = time.process_time_ns


class Status(Enum):
    NEW = "new"
    PAID = "paid"


@dataclass(frozen=True)
class Line:
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Twelve fields and nothing else."""

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


class BodyStruct(msgspec.Struct, frozen=True, kw_only=True):
    """The same in a Struct."""

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


class OrderPlaced(BodyStruct, frozen=True, kw_only=True):
    """An event of msgspec: the id and the time that our events have too."""

    event_id: UUID
    occurred_at: datetime


PAGE, PAGES = 100, 10
NAME = "OrderPlaced"
"""Under which msgspec's side stores the type, and finds the decoder."""


def fields(number: int) -> dict[str, Any]:
    """Return the twelve values of one order; no two orders are the same."""
    return {
        "order_id": UUID(int=(number + 1) << 100 | 7),
        "customer": f"Ada Lovelace {number}",
        "email": f"ada{number}@example.test",
        "placed_at": datetime(2026, 1, 2, 3, 4, 5, 678, UTC) + timedelta(hours=number),
        "total": Decimal(f"{number}234.56"),
        "status": Status.PAID,
        "quantity": number,
        "weight": number / 4,
        "express": number % 3 == 0,
        "lines": (Line(f"tea-{number}", 2), Line("milk", number)),
        "tags_": ("a", f"b{number}"),
        "note": None,
    }


def struct(number: int) -> OrderPlaced:
    """Return one event of msgspec."""
    return OrderPlaced(event_id=UUID(int=number), occurred_at=datetime(2026, 1, 2, tzinfo=UTC), **fields(number))


def timed(page: Callable[[], object]) -> tuple[float, int]:
    """Time a page of work again and again; freeing the results of one page belongs to the time of the next."""
    found = page()
    start = now()
    for _ in range(PAGES):
        found = page()
    elapsed = now() - start
    del found
    return elapsed, PAGE * PAGES


def encoding(encode: Callable[[Any], bytes], values: list[Any]) -> tuple[float, int]:
    """Time encoding to bytes and nothing else."""
    return timed(lambda: [encode(value) for value in values])


def decoding(decode: Callable[[bytes], Any], payloads: list[bytes], wanted: list[Any]) -> tuple[float, int]:
    """Time decoding from bytes and nothing else."""
    if [decode(payload) for payload in payloads] != wanted:
        raise AssertionError("the decoded values are not the encoded ones")
    return timed(lambda: [decode(payload) for payload in payloads])
