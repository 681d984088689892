"""Our operations: those shared with the published package, and the codec."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import ops.lexigram  # noqa: F401 - registers the shared operations
from ops import structs
from ops.structs import Status
from worker import op

from lexigram.events import DomainEvent, EventCodec

now = time.process_time_ns


@dataclass(frozen=True)
class Line:
    sku: str
    quantity: int


class OrderPlaced(DomainEvent):
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
    return OrderPlaced(
        order_id=UUID(int=7),
        customer="Ada Lovelace",
        email="ada@example.test",
        placed_at=datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
        total=Decimal("1234.56"),
        status=Status.PAID,
        quantity=3,
        weight=1.25,
        express=True,
        lines=(Line("tea", 2), Line("milk", 1)),
        tags_=("a", "b"),
        note=None,
    )


async def encode(form: Any) -> tuple[float, int]:
    codec, event = EventCodec(format=form), sample()
    start = now()
    for _ in range(1000):
        codec.encode(event)
    return now() - start, 1000


async def decode(form: Any) -> tuple[float, int]:
    codec, event = EventCodec(format=form), sample()
    encoded = codec.encode(event)
    rows = [(encoded.type_name, encoded.event_type, encoded.payload, 1, 1)] * 1000
    start = now()
    found = codec.decode_rows(rows)
    elapsed = now() - start
    if found[0] != event:
        raise AssertionError("the decoded event is not the encoded one")
    return elapsed, 1000


@op("codec: JSON encode, 12 fields")
async def json_encode(state: dict[str, Any]) -> tuple[float, int]:
    return await encode("json")


@op("codec: JSON decode, 12 fields")
async def json_decode(state: dict[str, Any]) -> tuple[float, int]:
    return await decode("json")


@op("codec: binary encode, 12 fields")
async def binary_encode(state: dict[str, Any]) -> tuple[float, int]:
    return await encode("binary")


@op("codec: binary decode, 12 fields")
async def binary_decode(state: dict[str, Any]) -> tuple[float, int]:
    return await decode("binary")


def converted(order: structs.OrderPlaced) -> OrderPlaced:
    """Return our event of a struct: what a program that decodes with msgspec has to do for its own types."""
    return OrderPlaced(
        event_id=order.event_id,
        occurred_at=order.occurred_at,
        order_id=order.order_id,
        customer=order.customer,
        email=order.email,
        placed_at=order.placed_at,
        total=order.total,
        status=order.status,
        quantity=order.quantity,
        weight=order.weight,
        express=order.express,
        lines=tuple([Line(line.sku, line.quantity) for line in order.lines]),
        tags_=order.tags_,
        note=order.note,
    )


@op("codec: msgspec.json decode and conversion, 12 fields")
async def json_decode_and_convert(state: dict[str, Any]) -> tuple[float, int]:
    """Decode into a struct with msgspec, then make our event of it."""
    data, decoder = msgspec.json.encode(structs.sample()), msgspec.json.Decoder(structs.OrderPlaced)
    start = now()
    found = [converted(decoder.decode(data)) for _ in range(1000)]
    elapsed = now() - start
    if found[0].lines != sample().lines:
        raise AssertionError("the converted event is not the encoded one")
    return elapsed, 1000
