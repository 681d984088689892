"""The follower of process managers on SQLite: others write while it works, and what they changed is noticed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from lexigram.events.messages.event import DomainEvent
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.sagas.base import SagaBase
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore


class Counted(DomainEvent):
    key: str


class Slow(SagaBase):
    """Counts events; the second one takes as long as the test wants."""

    name = "slow"
    start_events = (Counted,)
    continue_events = (Counted,)

    def correlation_key(self, event: Any) -> str:
        return str(event.key)

    async def handle(self, event: Any) -> None:
        count = self.context.data["count"] = self.context.data.get("count", 0) + 1
        if count == 2:
            self.context.services.entered.set()
            await self.context.services.go_on.wait()


async def test_others_write_while_an_event_is_handled_and_their_change_of_the_saga_is_not_lost(tmp_path: Path) -> None:
    """An append is answered meanwhile. As somebody has changed the saga, the event is handled again, on what is there."""
    entered, go_on = asyncio.Event(), asyncio.Event()
    async with (
        asyncio.timeout(20),
        SqliteEventStore(str(tmp_path / "log.db")) as store,
        SqlSagaStore(store) as saga_store,
        SagaManager(saga_store, event_store=store, services={"entered": entered, "go_on": go_on}) as sagas,
    ):
        sagas.register(Slow)
        projections = ProjectionManager(store)
        projections.register(sagas.follower())
        async with projections:
            await store.append("s", [Counted(key="a"), Counted(key="b")])
            await projections.wait_for("sagas", 2)
            await store.append("s", [Counted(key="a"), Counted(key="c"), Counted(key="c")])
            await entered.wait()
            assert await store.append("s", [Counted(key="d")]) == 6
            changed = await saga_store.load("slow:a")
            assert changed is not None
            changed.data["count"] = 10
            await saga_store.save(changed)
            go_on.set()
            await projections.wait_for("sagas", 6)
        found = {key: await saga_store.load(f"slow:{key}") for key in "abcd"}
        assert {key: saga and saga.data["count"] for key, saga in found.items()} == {"a": 11, "b": 1, "c": 2, "d": 1}
