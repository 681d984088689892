"""Events, aggregate and filled stores of the comparison; the same source for our package and the published one."""

from __future__ import annotations

import gc
from typing import Any

from lexigram.events import AggregateRoot, Command, Event, InMemoryEventStore


class Ordered(Event):
    order_id: str
    product: str
    quantity: int
    price: float
    note: str


TYPES = [type(f"Ordered{i}", (Ordered,), {"__module__": __name__}) for i in range(10)]


class Order(AggregateRoot):
    total: int = 0

    def add(self) -> None:
        self._apply(Ordered(order_id="o1", product="p1", quantity=3, price=1.5, note="n"))

    def _handle_ordered(self, event: Ordered) -> None:
        self.total += event.quantity


class Ship(Command):
    order_id: str = ""


def make(cls: Any = Ordered) -> Any:
    return cls(order_id="o1", product="p1", quantity=3, price=1.5, note="n")


def new_store() -> Any:
    return InMemoryEventStore(max_events_per_stream=0)


async def fill(store: Any, count: int, streams: int, types: int) -> None:
    """Append `count` events in turn to the streams, in batches of 1,000 / streams."""
    size = 1000 // streams
    for start in range(0, count, size * streams):
        for stream in range(streams):
            batch = [make(TYPES[(start + i) % types] if types > 1 else Ordered) for i in range(size)]
            await store.append(f"order-{stream}", batch)
    gc.collect()
    gc.freeze()  # what a collection costs with stored events is measured by itself, not before each sample


async def filled(state: dict[str, Any], count: int, streams: int = 1, types: int = 1) -> Any:
    """Return a store with `count` events in all, made once."""
    if "store" not in state:
        store = state["store"] = new_store()
        await fill(store, count, streams, types)
    return state["store"]
