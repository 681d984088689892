"""The same operations in careful pure Python, without validation: what Rust has to beat. msgspec is the floor."""

from __future__ import annotations

import asyncio
import contextvars
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
from ops import collecting, structs
from ops.structs import NAME, PAGE, timed
from worker import op, report

now = time.process_time_ns
CONTEXT: contextvars.ContextVar[Any] = contextvars.ContextVar("context", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    order_id: str
    product: str
    quantity: int
    price: float
    note: str
    event_id: UUID = field(default_factory=uuid4)
    occurred_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Bare(msgspec.Struct, frozen=True, kw_only=True):
    order_id: str
    product: str
    quantity: int
    price: float
    note: str


class Uncollected(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """As `Bare`, but smaller: the collector could not see what it holds, so it must never be part of a cycle."""

    order_id: str
    product: str
    quantity: int
    price: float
    note: str


class Store:
    """Streams as lists, one global list: correct for one thread, with an expected version and nothing else."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Any]] = {}
        self.log: list[Any] = []
        self.types: dict[type, list[Any]] = {}

    async def append(self, stream: str, events: list[Any], expected: int | None = None) -> int:
        target = self.streams.setdefault(stream, [])
        if expected is not None and expected != len(target):
            raise RuntimeError("conflict")
        target.extend(events)
        self.log.extend(events)
        types = self.types
        for event in events:
            try:
                types[type(event)].append(event)
            except KeyError:
                types[type(event)] = [event]
        return len(target)

    async def read(self, stream: str, from_version: int = 1) -> list[Any]:
        return self.streams.get(stream, [])[from_version - 1 :]


def make() -> Ordered:
    return Ordered(order_id="o1", product="p1", quantity=3, price=1.5, note="n")


@op("construct event, 5 fields")
async def construct(state: dict[str, Any]) -> tuple[float, int]:
    start = now()
    for _ in range(2000):
        Ordered(order_id="o1", product="p1", quantity=3, price=1.5, note="n")
    return now() - start, 2000


@op("construct a bare msgspec.Struct, 5 fields")
async def construct_bare(state: dict[str, Any]) -> tuple[float, int]:
    start = now()
    for _ in range(2000):
        Bare(order_id="o1", product="p1", quantity=3, price=1.5, note="n")
    return now() - start, 2000


@op("construct a bare msgspec.Struct with gc=False, 5 fields")
async def construct_uncollected(state: dict[str, Any]) -> tuple[float, int]:
    start = now()
    for _ in range(2000):
        Uncollected(order_id="o1", product="p1", quantity=3, price=1.5, note="n")
    return now() - start, 2000


@op("construct + append 1, awaited")
async def append_one(state: dict[str, Any]) -> tuple[float, int]:
    store = Store()
    start = now()
    for _ in range(1000):
        await store.append("order-1", [Ordered(order_id="o1", product="p1", quantity=3, price=1.5, note="n")])
    return now() - start, 1000


async def append_batches(size: int, count: int) -> tuple[float, int]:
    store = Store()
    batches = [[make() for _ in range(size)] for _ in range(count)]
    start = now()
    for batch in batches:
        await store.append("order-1", batch)
    return now() - start, count


@op("append, batch of 1")
async def append_1(state: dict[str, Any]) -> tuple[float, int]:
    return await append_batches(1, 1000)


@op("append, batch of 100")
async def append_100(state: dict[str, Any]) -> tuple[float, int]:
    return await append_batches(100, 20)


async def reads(state: dict[str, Any], from_version: int, count: int) -> tuple[float, int]:
    if "store" not in state:
        state["store"] = Store()
        await state["store"].append("order-0", [make() for _ in range(1000)])
    store = state["store"]
    start = now()
    for _ in range(count):
        await store.read("order-0", from_version)
    return now() - start, count


@op("read 1,000")
async def read_1000(state: dict[str, Any]) -> tuple[float, int]:
    return await reads(state, 1, 20)


@op("read last 100 of 1,000")
async def read_100(state: dict[str, Any]) -> tuple[float, int]:
    return await reads(state, 901, 100)


async def dispatch(middleware: int) -> tuple[float, int]:
    async def handle(command: Any) -> int:
        return 1

    chain: Any = handle
    for _ in range(middleware):

        async def link(message: Any, inner: Any = chain) -> Any:
            return await inner(message)

        chain = link
    handlers = {Ordered: chain}

    async def send(command: Any) -> Any:
        token = CONTEXT.set(command)
        try:
            return await handlers[type(command)](command)
        finally:
            CONTEXT.reset(token)

    command = make()
    start = now()
    for _ in range(1000):
        await send(command)
    return now() - start, 1000


@op("dispatch a command, no middleware")
async def dispatch_0(state: dict[str, Any]) -> tuple[float, int]:
    return await dispatch(0)


@op("dispatch a command, 6 middleware")
async def dispatch_6(state: dict[str, Any]) -> tuple[float, int]:
    return await dispatch(6)


async def gather_handlers(handlers: int) -> tuple[float, int]:
    async def handle(event: Any) -> None:
        return None

    events = [make() for _ in range(50)]
    start = now()
    for event in events:
        await asyncio.gather(*(handle(event) for _ in range(handlers)))
    return now() - start, 50


@op("publish + flush 1 event, 1 handler")
async def publish_1(state: dict[str, Any]) -> tuple[float, int]:
    return await gather_handlers(1)


@op("publish + flush 1 event, 10 handlers")
async def publish_10(state: dict[str, Any]) -> tuple[float, int]:
    return await gather_handlers(10)


@op("asyncio.Queue put + get, capacity 1,024")
async def channel(state: dict[str, Any]) -> tuple[float, int]:
    queue: asyncio.Queue[int] = asyncio.Queue(1024)
    start = now()
    for _ in range(4):
        for i in range(1000):
            await queue.put(i)
        for _ in range(1000):
            await queue.get()
    return now() - start, 4000


def orders() -> list[Any]:
    return [structs.struct(number) for number in range(PAGE)]


def encode(encoder: Any) -> tuple[float, int]:
    """Events to rows: id, type name, time, payload."""
    encode_struct, events = encoder.encode, orders()
    return timed(lambda: [(event.event_id, NAME, event.occurred_at, encode_struct(event)) for event in events])


def decode(encoder: Any, decoder: Any) -> tuple[float, int]:
    """Rows to events, each beside its version and position."""
    decoders, events = {NAME: decoder}, orders()
    rows = [(NAME, encoder.encode(event), 1, n) for n, event in enumerate(events)]
    if [decoder.decode(payload) for _, payload, _, _ in rows] != events:
        raise AssertionError("the decoded events are not the encoded ones")
    return timed(lambda: [(decoders[name].decode(data), version, n) for name, data, version, n in rows])


def bodies(kind: Any) -> list[Any]:
    return [kind(**structs.fields(number)) for number in range(PAGE)]


for _form, _module in (("msgpack", msgspec.msgpack), ("json", msgspec.json)):

    @op(f"codec: msgspec.{_form} encode, 12 fields")
    async def _encode(state: dict[str, Any], module: Any = _module) -> tuple[float, int]:
        return encode(module.Encoder())

    @op(f"codec: msgspec.{_form} decode, 12 fields")
    async def _decode(state: dict[str, Any], module: Any = _module) -> tuple[float, int]:
        return decode(module.Encoder(), module.Decoder(structs.OrderPlaced))

    for _what, _kind in (("the same dataclass", structs.Body), ("a Struct", structs.BodyStruct)):

        @op(f"codec: msgspec.{_form} encode, body alone, {_what}")
        async def _encode_body(state: dict[str, Any], module: Any = _module, kind: Any = _kind) -> tuple[float, int]:
            return structs.encoding(module.Encoder().encode, bodies(kind))

        @op(f"codec: msgspec.{_form} decode, body alone, {_what}")
        async def _decode_body(state: dict[str, Any], module: Any = _module, kind: Any = _kind) -> tuple[float, int]:
            payloads = [module.encode(body) for body in bodies(kind)]
            return structs.decoding(module.Decoder(kind).decode, payloads, bodies(kind))


@report("collector")
async def collector(events: int) -> dict[str, Any]:
    return await collecting.run(Store(), make, events)
