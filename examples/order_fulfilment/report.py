"""What became of the orders, and whether the two worlds agree."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from examples.order_fulfilment.app import CENTS, App
from examples.order_fulfilment.events import (
    CardCharged,
    CardRefunded,
    OrderPlaced,
    OrderShipped,
    StockReleased,
    StockReserved,
)
from examples.order_fulfilment.saga import FulfilOrder
from lexigram.events import SagaStatus

DONE: dict[SagaStatus, set[tuple[str, ...]]] = {
    SagaStatus.COMPLETED: {("reserve", "charge", "ship")},
    SagaStatus.COMPENSATED: {("reserve", "release"), ("reserve", "charge", "refund", "release")},
    SagaStatus.FAILED: {()},
}
"""What may have been done outside for an order that has ended so."""

EVENTS: dict[type[Any], str] = {
    StockReserved: "reserve",
    CardCharged: "charge",
    OrderShipped: "ship",
    CardRefunded: "refund",
    StockReleased: "release",
}


async def report(app: App) -> list[str]:
    """Print a line for each order; return everything that is not as it must be."""
    records = {record.data["order"]: record for record in await app.sagas.store.list_by_name(FulfilOrder.name)}
    outside: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for order, action, amount in app.outside.effects():
        outside[order].append((action, amount))
    logged: dict[str, list[str]] = defaultdict(list)
    placed: list[str] = []
    async for event in app.store.stream_all():
        if isinstance(event, OrderPlaced):
            placed.append(event.order)
        elif type(event) in EVENTS:
            logged[event.order].append(EVENTS[type(event)])
    problems = []
    print(f"\n{'Order':<10}{'End':<13}What happened")
    for order in placed:
        record, done = records.get(order), tuple(action for action, _ in outside[order])
        end = "no saga" if record is None else record.status.value
        reason = f"   ({record.error})" if record is not None and record.error else ""
        print(f"{order:<10}{end:<13}{', '.join(('place', *logged[order]))}{reason}")
        if record is None or not record.status.is_terminal:
            problems.append(f"{order} has not ended: {end}")
        elif done not in DONE.get(record.status, ()):
            problems.append(f"{order} is {end}, but outside was done: {', '.join(done) or 'nothing'}")
        if list(done) != logged[order]:
            problems.append(f"{order}: the log says {logged[order]}, outside was done {list(done)}")
    return problems + _sums(app, outside)


def _sums(app: App, outside: dict[str, list[tuple[str, int]]]) -> list[str]:
    """Print and check money and stock."""
    total: dict[str, int] = defaultdict(int)
    for deeds in outside.values():
        for action, amount in deeds:
            total[action] += amount
    parcels = sum("ship" in dict(deeds) for deeds in outside.values())
    kept = total["charge"] - total["refund"]
    missing = app.outside.missing_stock("tea")
    print(f"\nMoney kept: {kept / 100:.2f} for {parcels} parcels. Tea reserved for nobody: {missing - total['ship']}.")
    problems = []
    if missing != total["ship"]:
        problems.append(f"{missing} packets of tea are gone, {total['ship']} were sent")
    if kept != CENTS * total["ship"]:
        problems.append(f"{kept} cents were kept, {CENTS * total['ship']} are due")
    return problems
