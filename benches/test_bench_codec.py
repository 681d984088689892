"""Encoding and decoding twelve mixed fields; run with `pytest benches/test_bench_codec.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest

from lexigram.events import DomainEvent, EventCodec

JSON = EventCodec()
BINARY = EventCodec(format="binary")
CUSTOMER = UUID("0190f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)


class Status(Enum):
    NEW = "new"
    PAID = "paid"


@dataclass(frozen=True, slots=True)
class Item:
    sku: str
    quantity: int
    price: Decimal


class ItemStruct(msgspec.Struct, frozen=True):
    sku: str
    quantity: int
    price: Decimal


class OrderPlaced(DomainEvent):
    order_id: str
    customer: UUID
    total: Decimal
    status: Status
    items: tuple[Item, ...]
    labels: tuple[str, ...]
    rate: float
    express: bool
    placed_at: datetime
    note: str


class OrderStruct(msgspec.Struct, frozen=True, kw_only=True):
    event_id: UUID
    occurred_at: datetime
    order_id: str
    customer: UUID
    total: Decimal
    status: Status
    items: tuple[ItemStruct, ...]
    labels: tuple[str, ...]
    rate: float
    express: bool
    placed_at: datetime
    note: str


def values(item: Any) -> dict[str, Any]:
    return {
        "order_id": "order-123456",
        "customer": CUSTOMER,
        "total": Decimal("1234.50"),
        "status": Status.PAID,
        "items": tuple(item(sku=f"SKU-{i}", quantity=i, price=Decimal("19.90")) for i in range(3)),
        "labels": ("a", "priority", "eu-west"),
        "rate": 0.0725,
        "express": True,
        "placed_at": MOMENT,
        "note": "leave at the door",
    }


EVENT = OrderPlaced(**values(Item))
STRUCT = OrderStruct(event_id=CUSTOMER, occurred_at=MOMENT, **values(ItemStruct))


def converted(order: OrderStruct) -> OrderPlaced:
    """What a program that decodes with msgspec must do to get its own event."""
    names = ("order_id", "customer", "total", "status", "labels", "rate", "express", "placed_at", "note")
    fields = {name: getattr(order, name) for name in names}
    items = tuple(Item(item.sku, item.quantity, item.price) for item in order.items)
    return OrderPlaced(event_id=order.event_id, occurred_at=order.occurred_at, items=items, **fields)


@pytest.mark.parametrize("codec", [JSON, BINARY], ids=["json", "binary"])
def test_encode(benchmark: Any, codec: EventCodec) -> None:
    """An event as a store writes it."""
    assert benchmark(codec.encode, EVENT).event_type == "OrderPlaced"


@pytest.mark.parametrize("codec", [JSON, BINARY], ids=["json", "binary"])
def test_decode(benchmark: Any, codec: EventCodec) -> None:
    """The event of a stored row."""
    row = codec.encode(EVENT)
    assert benchmark(codec.decode, row.type_name, row.event_type, row.payload, 0, None) == EVENT


@pytest.mark.parametrize("codec", [JSON, BINARY], ids=["json", "binary"])
def test_decode_100_rows(benchmark: Any, codec: EventCodec) -> None:
    """A page of a stream."""
    row = codec.encode(EVENT)
    rows = [(row.type_name, row.event_type, row.payload, 0, None)] * 100
    assert benchmark(codec.decode_rows, rows) == [EVENT] * 100


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_msgspec_encode(benchmark: Any, form: str) -> None:
    """The yardstick: the same fields in a Struct."""
    encoder: Any = getattr(msgspec, form).Encoder()
    assert benchmark(encoder.encode, STRUCT)


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_msgspec_decode(benchmark: Any, form: str) -> None:
    """The yardstick, into a Struct."""
    encoder, decoder = getattr(msgspec, form).Encoder(), getattr(msgspec, form).Decoder(OrderStruct)
    assert benchmark(decoder.decode, encoder.encode(STRUCT)) == STRUCT


def test_msgspec_json_decode_with_conversion(benchmark: Any) -> None:
    """The yardstick, into an event."""
    data, decoder = msgspec.json.encode(STRUCT), msgspec.json.Decoder(OrderStruct)
    assert benchmark(lambda: converted(decoder.decode(data))).order_id == EVENT.order_id
