"""The saga of the order example, crashed and cancelled at every await."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from typing import Any

import pytest

from examples.order_fulfilment.app import CENTS, KINDS
from examples.order_fulfilment.events import OrderPlaced
from examples.order_fulfilment.outside import _SCHEMA, STOCK, Effect, Outside
from examples.order_fulfilment.saga import FulfilOrder
from lexigram.events import (
    InMemoryCheckpointStore,
    InMemoryEventStore,
    InMemorySagaStore,
    ProjectionManager,
    SagaManager,
)
from lexigram.events.testing.scheduler import Trial, explore
from tests.flow.test_order_fulfilment import DEEDS, ENDS


class KeptOpen(sqlite3.Connection):
    """Other people's database in memory, which lasts as long as the trial."""

    def close(self) -> None:
        """Stay open; what was not committed is gone."""
        self.rollback()


class FakeOutside(Outside):
    """Does the same in memory; being called takes a while before it is done, and until the answer is there."""

    def __init__(self) -> None:
        self._kept = sqlite3.connect(":memory:", isolation_level=None, factory=KeptOpen)
        self._kept.executescript(_SCHEMA)
        self._kept.executemany("INSERT INTO stock VALUES (?, ?)", STOCK.items())

    def _connect(self) -> sqlite3.Connection:
        return self._kept

    async def _call(self, action: str, key: str, order: str, amount: int, effect: Effect = lambda _: None) -> None:
        await asyncio.sleep(0.1)
        self._once(action, key, order, amount, effect)
        await asyncio.sleep(0.1)

    def shut(self) -> None:
        """End it."""
        sqlite3.Connection.close(self._kept)


class Order(Trial):
    """One order of the given kind."""

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.events, self.sagas, self.checkpoints = InMemoryEventStore(), InMemorySagaStore(), InMemoryCheckpointStore()
        self.outside = FakeOutside()

    async def prepare(self) -> None:
        product, card, address = KINDS[self.kind]
        placed = OrderPlaced(order="o", product=product, quantity=1, cents=CENTS, card=card, address=address)
        await self.events.append("o", [placed])

    async def run(self) -> None:
        services: dict[str, Any] = {"store": self.events, "outside": self.outside}
        sagas = SagaManager(self.sagas, event_store=self.events, services=services)
        sagas.register(FulfilOrder)
        projections = ProjectionManager(self.events, self.checkpoints)
        projections.register(sagas.follower())
        await sagas.resume(wait=False)
        async with sagas, projections:
            await projections.wait_for("sagas", 1)
            await sagas.drain()

    async def recover(self) -> None:
        await self.run()

    async def check(self) -> None:
        (record,) = await self.sagas.list_by_name(FulfilOrder.name)
        assert record.status.value == ENDS[self.kind], record
        effects = self.outside.effects()
        assert Counter(action for _, action, _ in effects) == DEEDS[self.kind], effects
        logged = [event.event_type for event in await self.events.read("o")]
        assert len(logged) == 1 + len(effects) == len(set(logged)), logged
        assert self.outside.missing_stock("tea") == (1 if self.kind == 0 else 0)

    async def close(self) -> None:
        self.outside.shut()


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_an_order_ends_once_wherever_it_is_interrupted(kind: int) -> None:
    """Exactly one terminal state, each effect once outside and once in the log, nothing reserved."""
    found = explore(lambda: Order(kind))
    assert found.points["crash"] > 30
    assert not found.unreached
