"""Our operations: those shared with the published package, and the codec."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import ops.lexigram  # noqa: F401 - registers the shared operations
from ops import structs
from ops.structs import PAGE, Body, Line, Status, decoding, encoding, timed
from worker import op

from lexigram.events import DomainEvent, EventCodec


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


def samples() -> list[OrderPlaced]:
    return [OrderPlaced(**structs.fields(number)) for number in range(PAGE)]


def encode(form: Any) -> tuple[float, int]:
    """Events to rows: id, type name, event type, time, tags, payload."""
    encode_event, events = EventCodec(format=form).encode, samples()
    return timed(lambda: [encode_event(event) for event in events])


def decode(form: Any) -> tuple[float, int]:
    """Rows to events, each with its version and position."""
    codec, events = EventCodec(format=form), samples()
    encoded = [codec.encode(event) for event in events]
    rows = [(row.type_name, row.event_type, row.payload, 1, n) for n, row in enumerate(encoded)]
    if codec.decode_rows(rows) != events:
        raise AssertionError("the decoded events are not the encoded ones")
    return timed(lambda: codec.decode_rows(rows))


def bodies() -> list[Body]:
    return [Body(**structs.fields(number)) for number in range(PAGE)]


def encode_body(form: Any) -> tuple[float, int]:
    codec = EventCodec(format=form)
    return encoding(lambda body: codec.encode_value(body, Body), bodies())


def decode_body(form: Any) -> tuple[float, int]:
    codec = EventCodec(format=form)
    payloads = [codec.encode_value(body, Body) for body in bodies()]
    return decoding(lambda payload: codec.decode_value(payload, Body), payloads, bodies())


@op("codec: JSON encode, 12 fields")
async def json_encode(state: dict[str, Any]) -> tuple[float, int]:
    return encode("json")


@op("codec: JSON decode, 12 fields")
async def json_decode(state: dict[str, Any]) -> tuple[float, int]:
    return decode("json")


@op("codec: binary encode, 12 fields")
async def binary_encode(state: dict[str, Any]) -> tuple[float, int]:
    return encode("binary")


@op("codec: binary decode, 12 fields")
async def binary_decode(state: dict[str, Any]) -> tuple[float, int]:
    return decode("binary")


@op("codec: binary encode, body alone")
async def binary_encode_body(state: dict[str, Any]) -> tuple[float, int]:
    return encode_body("binary")


@op("codec: binary decode, body alone")
async def binary_decode_body(state: dict[str, Any]) -> tuple[float, int]:
    return decode_body("binary")


@op("codec: JSON encode, body alone")
async def json_encode_body(state: dict[str, Any]) -> tuple[float, int]:
    return encode_body("json")


@op("codec: JSON decode, body alone")
async def json_decode_body(state: dict[str, Any]) -> tuple[float, int]:
    return decode_body("json")


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
        lines=order.lines,
        tags_=order.tags_,
        note=order.note,
    )


@op("codec: msgspec.json decode and conversion, 12 fields")
async def json_decode_and_convert(state: dict[str, Any]) -> tuple[float, int]:
    """Decode into a struct with msgspec, then make our event of it."""
    encoder, decoders = msgspec.json.Encoder(), {structs.NAME: msgspec.json.Decoder(structs.OrderPlaced)}
    rows = [(structs.NAME, encoder.encode(structs.struct(n)), 1, n) for n in range(PAGE)]
    if converted(decoders[structs.NAME].decode(rows[5][1])).lines != samples()[5].lines:
        raise AssertionError("the converted event is not the encoded one")
    return timed(lambda: [(converted(decoders[name].decode(data)), at, n) for name, data, at, n in rows])
