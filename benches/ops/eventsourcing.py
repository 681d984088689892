"""The operations of the `eventsourcing` library: its in-memory recorder behind its own mapper and aggregate."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent
from eventsourcing.popo import POPOApplicationRecorder
from worker import op

now = time.process_time_ns
PASSES = 10


class Order(Aggregate):
    def __init__(self) -> None:
        self.total = 0

    @event("Ordered")
    def order(self, order_id: str, product: str, quantity: int, price: float, note: str) -> None:
        self.total += quantity


class Orders(Application[Any]):
    pass


@op("construct + append 1, awaited")
async def append_one(state: dict[str, Any]) -> tuple[float, int]:
    """Construct one stored event and insert it: no mapper, no aggregate, no asynchronous form, so nothing is awaited."""
    recorder, order_id = POPOApplicationRecorder(), uuid4()
    start = now()
    for version in range(1000):
        recorder.insert_events([StoredEvent(order_id, version, "bench:Ordered", b"0123456789" * 12)])
    return now() - start, 1000


@op("repository: load 1,000 events")
async def load_1000(state: dict[str, Any]) -> tuple[float, int]:
    if "app" not in state:
        app = state["app"] = Orders()
        order = Order()
        for _ in range(1000):
            order.order("o1", "p1", 3, 1.5, "n")
        app.save(order)
        state["id"] = order.id
    if state["app"].repository.get(state["id"]).total != 3000:
        raise AssertionError("the loaded order is not the saved one")
    start = now()
    for _ in range(PASSES):
        state["app"].repository.get(state["id"])
    return now() - start, PASSES


@op("repository: save 10 events")
async def save_10(state: dict[str, Any]) -> tuple[float, int]:
    app = state.setdefault("app", Orders())
    orders = []
    for _ in range(20):
        order = Order()
        for _ in range(9):
            order.order("o1", "p1", 3, 1.5, "n")
        orders.append(order)
    start = now()
    for order in orders:
        app.save(order)
    return now() - start, 20
