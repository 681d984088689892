"""What a process manager remembers of the events it has handled: a position for each follower, ids only elsewhere."""

from __future__ import annotations

import asyncio
import contextvars
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events import DomainEvent, ProjectionManager, ProjectionRebuildError, SagaBase, SqliteEventStore
from lexigram.events.exceptions import ProjectionBuildError
from lexigram.events.sagas.manager import SagaManager
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.sagas.store import InMemorySagaStore
from lexigram.events.sagas.types import SagaRecord
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.sqlite.dead_letters import SqliteDeadLetterStore


class Opened(DomainEvent):
    key: str


class Noted(DomainEvent):
    key: str
    number: int = 0


class Counting(SagaBase):
    """Notes the numbers it sees; some of them it cannot stand at first."""

    name = "counting"
    start_events = (Opened,)
    continue_events = (Noted,)
    timeout = math.inf
    broken: frozenset[int] = frozenset()

    def correlation_key(self, event: Any) -> str:
        return str(event.key)

    async def handle(self, event: Any) -> list[Any]:
        if isinstance(event, Noted):
            if event.number in Counting.broken:
                raise ValueError(f"cannot count {event.number}")
            self.context.data.setdefault("seen", []).append(event.number)
        return []


class Elsewhere(InMemorySagaStore):
    """A saga store that does not commit with the events."""

    def joins(self, unit: Any) -> bool:
        return False

    async def save(self, record: SagaRecord) -> None:
        await asyncio.get_running_loop().create_task(super().save(record), context=contextvars.Context())


@pytest_asyncio.fixture(params=["sqlite", "elsewhere"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Any, Any]]:
    """An empty log, and sagas that commit with it or do not."""
    async with SqliteEventStore(str(tmp_path / "events.db")) as events:
        async with SqlSagaStore(events) if request.param == "sqlite" else Elsewhere() as sagas:
            yield events, sagas


def manager_of(events: Any, sagas: Any) -> SagaManager:
    """Return a manager that knows the one saga."""
    manager = SagaManager(sagas, event_store=events)
    manager.register(Counting)
    return manager


@asynccontextmanager
async def following(events: Any, manager: SagaManager, **options: Any) -> AsyncIterator[ProjectionManager]:
    """Feed the manager from the log up to its head."""
    projections = ProjectionManager(events, **options)
    projections.register(manager.follower())
    async with projections:
        await projections.wait_for("sagas", await events.head(), timeout=10)
        yield projections


async def record_of(manager: SagaManager, key: str = "a") -> SagaRecord:
    """Return the stored saga."""
    record = await manager.get(f"counting:{key}")
    assert record is not None
    return record


async def test_a_record_does_not_grow_with_the_events_handled(world: tuple[Any, Any]) -> None:
    """One position instead of a thousand ids; a follower that begins anew hands in everything without effect."""
    events, sagas = world
    await events.append("log", [Opened(key="a"), *[Noted(key="a", number=n) for n in range(1000)]])
    manager = manager_of(events, sagas)
    async with following(events, manager):
        record = await record_of(manager)
        assert (record.handled, record.positions) == ([], {"sagas": 1001})
    async with events.checkpoint_store() as checkpoints:
        await checkpoints.delete_checkpoint("sagas")
    again = manager_of(events, sagas)
    await events.append("log", [Noted(key="a", number=1000)])
    async with following(events, again) as projections:
        assert await projections.rebuild("sagas") == 1002
        assert (await record_of(again)).data["seen"] == list(range(1001))


async def test_an_event_handed_in_both_ways_counts_once(world: tuple[Any, Any]) -> None:
    """By hand before the follower or after it; what merely has a small position of another log counts."""
    events, sagas = world
    first = [Opened(key="a"), *[Noted(key="a", number=n) for n in range(5)]]
    await events.append("log", first)
    manager = manager_of(events, sagas)
    for event in first[:3]:
        await manager.process(event)
    assert len((await record_of(manager)).handled) == 3
    async with following(events, manager):
        record = await record_of(manager)
        assert record.data["seen"] == [0, 1, 2, 3, 4]
        assert record.positions == {"sagas": 6}
        assert record.handled == []
        for event in await events.read_all():
            await manager.process(event)
        assert (await record_of(manager)).data["seen"] == [0, 1, 2, 3, 4]
        other = InMemoryEventStore()
        await other.append("log", [Noted(key="a", number=77)])
        for _ in range(2):
            await manager.process((await other.read_all())[0])
        record = await record_of(manager)
        assert record.data["seen"] == [0, 1, 2, 3, 4, 77]
        assert len(record.handled) == 1


async def test_an_event_that_was_parked_counts_when_it_is_replayed(
    world: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the saga is past its position; once, however often it is replayed. A reset asks for that first."""
    events, sagas = world
    monkeypatch.setattr(Counting, "broken", frozenset({1}))
    await events.append("log", [Opened(key="a")])
    for number in range(4):
        await events.append(f"log-{number}", [Noted(key="a", number=number, aggregate_id=f"log-{number}")])
    manager = manager_of(events, sagas)
    async with SqliteDeadLetterStore(events) as letters:
        async with following(events, manager, dead_letters=letters, on_error="park") as projections:
            assert (await record_of(manager)).data["seen"] == [0, 2, 3]
            with pytest.raises((ProjectionBuildError, ProjectionRebuildError), match="parked"):
                await projections.rebuild("sagas")
            projections.resume("sagas")
            monkeypatch.setattr(Counting, "broken", frozenset())
            (letter,) = await letters.list_entries()
            for _ in range(2):
                await projections.redeliver(letter.event, letter.handler_name)
            assert await letters.pending_lanes() == []
            assert (await record_of(manager)).data["seen"] == [0, 2, 3, 1]
            await projections.rebuild("sagas")
            assert (await record_of(manager)).data["seen"] == [0, 2, 3, 1]


async def test_records_of_an_earlier_release_go_on(tmp_path: Path) -> None:
    """Their ids count, and stay until a follower that is reset hands the events in again."""
    async with SqliteEventStore(str(tmp_path / "events.db")) as events, SqlSagaStore(events) as sagas:
        log = [Opened(key="a"), *[Noted(key="a", number=n) for n in range(3)]]
        await events.append("log", log)
        manager = manager_of(events, sagas)
        async with following(events, manager):
            pass
        text = (await events.engine.fetch_all("SELECT record FROM event_sagas"))[0][0]
        values = json.loads(text)
        del values["positions"]
        values["handled"] = [str(event.event_id) for event in log]
        await events.engine.execute("UPDATE event_sagas SET record = ?", (json.dumps(values),))

        manager = manager_of(events, sagas)
        for event in log:
            await manager.process(event)
        await events.append("log", [Noted(key="a", number=3)])
        async with following(events, manager) as projections:
            record = await record_of(manager)
            assert (len(record.handled), record.positions) == (4, {"sagas": 5})
            assert record.data["seen"] == [0, 1, 2, 3]
            await projections.rebuild("sagas")
        record = await record_of(manager)
        assert (record.handled, record.positions) == ([], {"sagas": 5})
        assert record.data["seen"] == [0, 1, 2, 3]
