"""Projections on PostgreSQL: rows and checkpoint are one transaction, on the store's own database."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from lexigram.events import DomainEvent
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.exceptions import EventStoreConnectionError, EventStoreError, ProjectionBuildError
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.stores.postgres import PostgresEventStore
from lexigram.events.stores.postgres.pool import Connections
from tests.postgres_schemas import EmptySchemas


class CrateOpened(DomainEvent):
    by: str


class Openings(DurableProjection):
    """Counts openings per person, in the event store's database."""

    name = "openings"
    handles = (CrateOpened,)
    schema = ("CREATE TABLE IF NOT EXISTS openings (person text PRIMARY KEY, n bigint NOT NULL)",)
    tables = ("openings",)

    async def handle_event(self, event: Any) -> None:
        if event.by == "poison":
            raise ValueError("poison")
        await self.db.execute(
            "INSERT INTO openings AS o VALUES ($1, $2) ON CONFLICT (person) DO UPDATE SET n = o.n + $2", event.by, 1
        )


class BatchedOpenings(Openings):
    """The same, a batch at a time."""

    name = "batched"

    async def project_batch(self, connection: Any, events: list[Any]) -> None:
        sql = "INSERT INTO openings AS o VALUES ($1, 1) ON CONFLICT (person) DO UPDATE SET n = o.n + 1"
        await connection.executemany(sql, [(event.by,) for event in events])


@pytest.fixture
def config(postgres_url: str) -> PostgresEventStoreConfig:
    """Where the tables are, all of them empty."""
    return EmptySchemas(postgres_url, purpose="boot").config()


@pytest.mark.parametrize("projection_type", [Openings, BatchedOpenings])
async def test_a_projection_writes_rows_and_checkpoint_in_one_transaction(
    config: PostgresEventStoreConfig, projection_type: type[Openings]
) -> None:
    """`self.db` with `$1` parameters, live; after a restart it goes on where it stopped and counts nothing twice."""
    async with PostgresEventStore(config) as store:
        await store.engine.execute("DROP TABLE IF EXISTS openings")
        for _ in range(2):
            manager = ProjectionManager(store)
            manager.register(projection_type())
            await manager.start()
            for n in range(5):
                await store.append(f"c{n}", [CrateOpened(by="ann"), CrateOpened(by="bob")])
            await manager.wait_for(projection_type.name, await store.head(), timeout=10)
            await manager.stop()
        rows = await store.engine.fetch_all("SELECT person, n FROM openings ORDER BY person")
        assert [tuple(row) for row in rows] == [("ann", 10), ("bob", 10)]
        checkpoints = store.checkpoint_store()
        assert await checkpoints.get_checkpoint(projection_type.name) == 20
        await checkpoints.close()


async def test_a_failing_event_leaves_rows_and_checkpoint_before_it(config: PostgresEventStoreConfig) -> None:
    """What was written for the poisonous event is rolled back with its checkpoint; the events before it stay."""
    async with PostgresEventStore(config) as store:
        await store.engine.execute("DROP TABLE IF EXISTS openings")
        await store.append("c", [CrateOpened(by="ann"), CrateOpened(by="poison"), CrateOpened(by="ann")])
        manager = ProjectionManager(store)
        manager.register(Openings())
        await manager.start()
        async with asyncio.timeout(10):
            while (manager.get_status("openings") or {})["state"] != "faulted":
                await asyncio.sleep(0.01)
        await manager.stop()
        rows = await store.engine.fetch_all("SELECT person, n FROM openings")
        assert [tuple(row) for row in rows] == [("ann", 1)]
        checkpoints = store.checkpoint_store()
        assert await checkpoints.get_checkpoint("openings") == 1
        await checkpoints.close()


class Careless(Openings):
    """Goes on after a statement that failed."""

    name = "careless"

    async def handle_event(self, event: Any) -> None:
        insert = "INSERT INTO openings VALUES ($1, 1)"
        await self.db.execute(insert, event.by)
        with suppress(asyncpg.UniqueViolationError):
            await self.db.execute(insert, event.by)
        await self.db.execute("UPDATE openings SET n = n + 1")


async def test_going_on_after_a_failed_statement_is_a_fault_that_names_the_statements_error(
    config: PostgresEventStoreConfig,
) -> None:
    """PostgreSQL has ended the transaction by then; nothing is written."""
    async with PostgresEventStore(config) as store:
        await store.engine.execute("DROP TABLE IF EXISTS openings")
        await store.append("c", [CrateOpened(by="ann")])
        manager = ProjectionManager(store)
        manager.register(Careless())
        await manager.start()
        with pytest.raises(
            ProjectionBuildError, match=r"(?s)had failed.*UniqueViolationError.*openings_pkey.*SAVEPOINT"
        ):
            await manager.wait_for("careless", 1, timeout=10)
        await manager.stop()
        assert await store.engine.fetch_all("SELECT * FROM openings") == []


async def test_in_a_savepoint_a_statement_may_fail(config: PostgresEventStoreConfig) -> None:
    """What came before stays, what comes after counts; without one the end of the block raises, and says why."""
    insert = "INSERT INTO openings VALUES ('ann', 1)"

    async with PostgresEventStore(config) as store:
        await store.engine.execute("DROP TABLE IF EXISTS openings")
        await store.engine.execute(Openings.schema[0])
        async with store.unit_of_work() as unit:
            await unit.execute(insert)
            await unit.execute("SAVEPOINT again")
            with pytest.raises(asyncpg.UniqueViolationError):
                await unit.execute(insert)
            await unit.execute("ROLLBACK TO SAVEPOINT again")
            await unit.execute("UPDATE openings SET n = n + 1")
        assert await store.engine.fetch_all("SELECT * FROM openings") == [("ann", 2)]
        with pytest.raises(EventStoreError, match=r"had failed.*duplicate key") as failed:
            async with store.unit_of_work() as unit:
                await unit.execute("DELETE FROM openings")
                await unit.execute(insert)
                with suppress(asyncpg.UniqueViolationError):
                    await unit.execute(insert)
        assert isinstance(failed.value.__cause__, asyncpg.UniqueViolationError)
        assert await store.engine.fetch_all("SELECT * FROM openings") == [("ann", 2)]


async def test_a_connection_lost_at_the_beginning_of_a_batch_is_no_fault(
    config: PostgresEventStoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may go away before the first statement, too: the projection waits and goes on."""
    async with PostgresEventStore(config) as store, ProjectionManager(store) as projections:
        projections.register(Openings())
        await store.append("crate-1", [CrateOpened(by="ann")])
        await projections.wait_for("openings", 1, timeout=10)
        monkeypatch.setattr(Connections, "begin", lambda *_: "SELECT pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(EventStoreConnectionError):
            async with store.unit_of_work() as unit:
                await unit.execute("SELECT 1")
        await store.append("crate-1", [CrateOpened(by="ann")])
        await asyncio.sleep(0.2)
        assert projections.get_status("openings")["state"] != "faulted"
        monkeypatch.undo()
        await projections.wait_for("openings", 2, timeout=10)
