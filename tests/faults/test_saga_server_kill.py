"""Sagas on PostgreSQL while the server is killed: they wait for it and go on, and no step counts twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from lexigram.events import (
    DomainEvent,
    PostgresEventStore,
    SagaBase,
    SagaConfig,
    SagaContext,
    SagaManager,
    event_type,
    saga_step,
)
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.sagas.postgres import PostgresSagaStore
from lexigram.events.sagas.types import SagaStatus

SAGAS = 150


@event_type("saga_kill.deed")
class Deed(DomainEvent):
    saga: str
    step: str


class Work(SagaBase):
    """Steps that append, and steps whose state is all there is to store; every third one is undone."""

    name = "work"
    timeout = 600.0

    async def _note(self, ctx: SagaContext, step: str) -> None:
        await ctx.services.store.append(f"deeds-{ctx.saga_id}", [Deed(saga=ctx.saga_id, step=step)])

    async def give_back(self, ctx: SagaContext) -> None:
        await self._note(ctx, "give back")

    @saga_step(compensation=give_back, max_retries=50)
    async def take(self, ctx: SagaContext) -> None:
        await self._note(ctx, "take")

    @saga_step(max_retries=50)
    async def think(self, ctx: SagaContext) -> None:
        ctx.data["thought"] = True

    @saga_step(max_retries=50)
    async def end(self, ctx: SagaContext) -> None:
        if int(ctx.saga_id) % 3 == 0:
            raise LookupError("not this one")
        await self._note(ctx, "end")


async def test_a_killed_server_leaves_no_saga_behind_and_no_step_twice(own_postgres: Any) -> None:
    """kill -9 twice under load; the same manager finishes everything, without a restart of its own."""
    config = PostgresEventStoreConfig(dsn=own_postgres.url, schema_name="sagas", pool_min_size=1)
    async with PostgresEventStore(config) as store, PostgresSagaStore(store) as sagas:
        manager = SagaManager(
            sagas, event_store=store, services={"store": store}, config=SagaConfig(retry_delay_seconds=0.05)
        )
        manager.register(Work)
        begun = 0

        async def begin(number: int) -> None:
            nonlocal begun
            while True:  # a start that failed is repeated with its id, and starts nothing twice
                try:
                    await manager.start("work", saga_id=str(number), wait=False)
                    begun += 1
                    return
                except Exception:
                    await asyncio.sleep(0.05)

        starting = [asyncio.create_task(begin(number)) for number in range(SAGAS)]
        for _ in range(2):
            async with asyncio.timeout(60):
                before = begun
                while begun <= min(before + 20, SAGAS - 1):
                    await asyncio.sleep(0.001)
            own_postgres.kill()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(own_postgres.restart)
        async with asyncio.timeout(90):
            await asyncio.gather(*starting)
            await manager.drain()
        records = await sagas.list_by_name("work")
        deeds = Counter((event.saga, event.step) for event in await store.read_all(0, 10 * SAGAS))
        await manager.close()
    assert {record.saga_id for record in records} == {str(number) for number in range(SAGAS)}
    for record in records:
        undone = int(record.saga_id) % 3 == 0
        assert record.status is (SagaStatus.COMPENSATED if undone else SagaStatus.COMPLETED)
    expected = Counter(
        (str(number), step)
        for number in range(SAGAS)
        for step in (("take", "give back") if number % 3 == 0 else ("take", "end"))
    )
    assert deeds == expected
