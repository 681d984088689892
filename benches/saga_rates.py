"""How many steps per second sagas make: 64 at once, each step stored in the database, on SQLite and PostgreSQL.

Run: python tools/services.py run postgres -- python -m benches.saga_rates
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from typing import Any
from uuid import uuid4

from benches.figures import Figure, show
from lexigram.events import (
    PostgresEventStore,
    SagaBase,
    SagaContext,
    SagaManager,
    SagaStatus,
    SqliteEventStore,
    SqlSagaStore,
    saga_step,
)
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.sagas.postgres import PostgresSagaStore

AT_ONCE = 64
STEPS = 5
SAGAS = 640
ROUNDS = 3
BAR = 3_000


class Fulfilment(SagaBase):
    """Five steps that do nothing themselves: what is measured is what a step costs beside its work."""

    name = "fulfilment"

    @saga_step
    async def reserve(self, ctx: SagaContext) -> dict[str, Any]:
        """First."""
        return {"reservation": ctx.data["order"]}

    @saga_step
    async def charge(self, ctx: SagaContext) -> dict[str, Any]:
        """Second."""
        return {"payment": ctx.data["order"]}

    @saga_step
    async def pack(self, ctx: SagaContext) -> None:
        """Third."""

    @saga_step
    async def ship(self, ctx: SagaContext) -> None:
        """Fourth."""

    @saga_step
    async def notify(self, ctx: SagaContext) -> None:
        """Fifth."""


async def steps_per_second(manager: SagaManager, label: str) -> float:
    """Return the rate of 64 clients that each start one saga after the other and wait for its end."""

    async def client(number: int) -> None:
        for turn in range(SAGAS // AT_ONCE):
            await manager.start("fulfilment", {"order": f"{label}-{number}-{turn}"})

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(AT_ONCE)))
    return SAGAS * STEPS / (time.perf_counter() - started)


async def measure(name: str, store: Any, sagas: Any) -> None:
    """Print the median of several rounds after one that is not counted; storing new sagas and their ends is included."""
    async with store, sagas, SagaManager(sagas, event_store=store) as manager:
        manager.register(Fulfilment)
        await steps_per_second(manager, "warm")
        cpu = time.process_time()
        rates = [await steps_per_second(manager, str(turn)) for turn in range(ROUNDS)]
        cpu = time.process_time() - cpu
        done = await manager.list(status=SagaStatus.COMPLETED, limit=SAGAS * (ROUNDS + 2))
        assert len(done) == SAGAS * (ROUNDS + 1), f"only {len(done)} sagas are complete"
    show(Figure(f"{name}: saga steps, {AT_ONCE} sagas at once", statistics.median(rates), "steps/s", at_least=BAR))
    show(Figure(f"{name}: CPU of this process per saga step", cpu / (SAGAS * STEPS * ROUNDS) * 1e6, "µs"))


async def main() -> None:
    """SQLite, then PostgreSQL where LEXIGRAM_TEST_POSTGRES_URL names one."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteEventStore(f"{folder}/events.db")
        await measure("SQLite", store, SqlSagaStore(store))
    url = os.environ.get("LEXIGRAM_TEST_POSTGRES_URL")
    if url:
        schema = f"bench_{uuid4().hex[:8]}"
        postgres = PostgresEventStore(PostgresEventStoreConfig(dsn=url, schema_name=schema))
        await measure("PostgreSQL", postgres, PostgresSagaStore(postgres))


if __name__ == "__main__":
    asyncio.run(main())
