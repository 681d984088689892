"""Puts the parts together: orders and sagas in one database, the other systems in another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from examples.order_fulfilment.events import OrderPlaced
from examples.order_fulfilment.outside import Outside
from examples.order_fulfilment.saga import FulfilOrder
from lexigram.events import (
    ConcurrencyError,
    ProjectionManager,
    SagaConfig,
    SagaManager,
    SqliteEventStore,
    SqlSagaStore,
)

KINDS = (
    ("tea", "good", "12 Hill Road"),
    ("tea", "empty", "12 Hill Road"),
    ("tea", "good", "nowhere"),
    ("saffron", "good", "12 Hill Road"),
)
"""Product, card and address: one that goes well, and one for each step that can be refused."""

CENTS = 750

ORDERS_AT_ONCE = 16


@dataclass(frozen=True)
class App:
    """Everything that runs."""

    store: SqliteEventStore
    sagas: SagaManager
    projections: ProjectionManager
    outside: Outside

    async def place(self, orders: int) -> None:
        """Put orders into the log, except those that an earlier run has placed."""
        for number, (product, card, address) in enumerate(islice(cycle(KINDS), orders), start=1):
            order, quantity = f"order-{number}", 1 + number % 3
            event = OrderPlaced(
                order=order, product=product, quantity=quantity, cents=CENTS * quantity, card=card, address=address
            )
            try:
                await self.store.append(order, [event], expected_version=0)
            except ConcurrencyError:
                continue

    async def begin(self) -> None:
        """Go on with sagas that an earlier run left, and follow the log from where it stopped."""
        for record in await self.sagas.check_in_flight():
            place = f"at {record.cursor}" if record.cursor else "behind its last step"
            print(f"Going on with {record.data['order']}, which stands {place} ({record.status.value}).")
        await self.sagas.resume(wait=False)
        await self.projections.start()

    async def settle(self) -> None:
        """Return when every order has a saga and every saga has ended."""
        await self.projections.wait_for("sagas", await self.store.head())
        await self.sagas.drain()


@asynccontextmanager
async def open_app(path: Path, outside: Outside) -> AsyncIterator[App]:
    """Open or create the file; close everything at the end."""
    async with SqliteEventStore(str(path)) as store, SqlSagaStore(store) as saga_store:
        sagas = SagaManager(
            saga_store,
            event_store=store,
            services={"store": store, "outside": outside},
            config=SagaConfig(retry_delay_seconds=0.05),
            max_concurrent=ORDERS_AT_ONCE,
        )
        sagas.register(FulfilOrder)
        projections = ProjectionManager(store)
        projections.register(sagas.follower())
        try:
            yield App(store, sagas, projections, outside)
        finally:
            await projections.stop()
            await sagas.close(timeout=5.0)
