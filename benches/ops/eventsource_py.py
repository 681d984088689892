"""The operations of `eventsource-py` (needs Python 3.13): its in-memory store behind its own repository."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from eventsource import AggregateRepository, AggregateRoot, DomainEvent, InMemoryEventStore, register_event
from pydantic import BaseModel
from worker import op

now = time.process_time_ns
PASSES = 10


class OrderState(BaseModel):
    total: int = 0


@register_event
class Ordered(DomainEvent):
    event_type: str = "Ordered"
    aggregate_type: str = "Order"
    order_id: str
    product: str
    quantity: int
    price: float
    note: str


class Order(AggregateRoot[OrderState]):
    aggregate_type = "Order"

    def _get_initial_state(self) -> OrderState:
        return OrderState()

    def _apply(self, event: DomainEvent) -> None:
        if self._state is None:
            self._state = self._get_initial_state()
        self._state.total += event.quantity  # type: ignore[attr-defined]

    def add(self) -> None:
        self._raise_event(
            Ordered(
                aggregate_id=self.aggregate_id,
                aggregate_version=self.get_next_version(),
                order_id="o1",
                product="p1",
                quantity=3,
                price=1.5,
                note="n",
            )
        )


def repository() -> Any:
    return AggregateRepository(event_store=InMemoryEventStore(), aggregate_factory=Order)


@op("repository: load 1,000 events")
async def load_1000(state: dict[str, Any]) -> tuple[float, int]:
    if "repository" not in state:
        state["repository"] = repository()
        order = Order(uuid4())
        for _ in range(1000):
            order.add()
        await state["repository"].save(order)
        state["id"] = order.aggregate_id
    order = await state["repository"].load(state["id"])
    if order.state.total != 3000:
        raise AssertionError("the loaded order is not the saved one")
    start = now()
    for _ in range(PASSES):
        await state["repository"].load(state["id"])
    return now() - start, PASSES


@op("repository: save 10 events")
async def save_10(state: dict[str, Any]) -> tuple[float, int]:
    target = repository()
    orders = []
    for _ in range(20):
        order = Order(uuid4())
        for _ in range(10):
            order.add()
        orders.append(order)
    start = now()
    for order in orders:
        await target.save(order)
    return now() - start, 20
