"""The demo on PostgreSQL: the log in one database, read models and sagas in worker processes that share it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

from examples.flights.app import App, commands, rebooking
from examples.flights.projections import (
    AircraftDays,
    AirportPunctuality,
    CarrierPunctuality,
    FlightProjection,
    Timetable,
)
from examples.flights.supervisor import Supervisor
from lexigram.events import PostgresEventStore, ProjectionConfig, ProjectionManager, SagaManager, SagaStatus
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.sagas.postgres import PostgresSagaStore
from lexigram.events.sagas.sharing import SagaSharing

PARTITIONS = 4
"""Processes that can work on one projection at the same time."""

LEASE_SECONDS = 2.0
"""So long after a worker was killed, others take over."""

BATCH_SIZE = 500
UNFINISHED = tuple(status for status in SagaStatus if status.is_unfinished)


def _numbered(sql: str) -> str:
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)


class OnPostgres(FlightProjection):
    """Runs the same statements through asyncpg, several partitions at once."""

    partitions = PARTITIONS

    async def create_schema(self) -> None:
        """Create the same tables."""
        for sql in self.schema:
            sql = sql.replace(" WITHOUT ROWID", "").replace("CREATE VIEW IF NOT EXISTS", "CREATE OR REPLACE VIEW")
            await self.db.execute(sql)

    async def project_batch(self, connection: Any, events: Sequence[Any]) -> None:  # type: ignore[override]
        """Do what the batch changes in the transaction that moves the checkpoint."""
        for sql, rows in self.changes(events):
            await connection.executemany(_numbered(sql), rows)


class SharedTimetable(OnPostgres, Timetable): ...


class SharedCarriers(OnPostgres, CarrierPunctuality): ...


class SharedAirports(OnPostgres, AirportPunctuality): ...


class SharedAircraft(OnPostgres, AircraftDays): ...


def open_store(dsn: str) -> PostgresEventStore:
    """Return the log; each process has a few connections of its own."""
    return PostgresEventStore(PostgresEventStoreConfig(dsn=dsn, pool_min_size=1, pool_max_size=12))


def shared_manager(store: PostgresEventStore) -> ProjectionManager:
    """Return a manager whose projections belong to whichever process holds the lease of their partition."""
    config = ProjectionConfig(shared=True, partitions=PARTITIONS, lease_seconds=LEASE_SECONDS, batch_size=BATCH_SIZE)
    return ProjectionManager(store, config=config)


def read_models(store: PostgresEventStore) -> ProjectionManager:
    """Return a manager of all read models; one that is not started can still wait for them."""
    manager = shared_manager(store)
    for projection in (SharedTimetable(), SharedCarriers(), SharedAirports(), SharedAircraft()):
        manager.register(projection)
    return manager


async def create_tables(store: PostgresEventStore, models: ProjectionManager) -> None:
    """Create what workers would create when they begin: this process looks at the tables before they do."""
    async with store.unit_of_work() as unit:
        await unit.lock_schema()
        for model in models.get_all():
            if isinstance(model, OnPostgres):
                await model.create_schema()


@asynccontextmanager
async def saga_worker(store: PostgresEventStore) -> AsyncIterator[ProjectionManager]:
    """Start sagas for what the log says, and run this process's share of them; yields the manager that follows the log."""
    async with PostgresSagaStore(store) as saga_store, store.checkpoint_store() as leases:
        bus, _ = commands(store)
        models, follow = read_models(store), shared_manager(store)
        sagas = rebooking(saga_store, store, models, bus)
        follow.register(sagas.follower())
        try:
            async with SagaSharing(sagas, leases, lease_seconds=LEASE_SECONDS, poll_seconds=0.1), follow:
                yield follow
        finally:
            await models.stop()


@dataclass(frozen=True)
class SharedApp(App):
    """What runs in the process that sends the commands: it waits for the others and restarts them."""

    backend: ClassVar[str] = "PostgreSQL database"

    supervisor: Supervisor

    async def sagas_end(self) -> None:
        """Return when no saga is unfinished, in whatever process it runs."""
        while True:
            if not await self.sagas.store.list_by_status(UNFINISHED, self.sagas.saga_names, 1):
                return
            await asyncio.sleep(0.05)

    @property
    def commits(self) -> int:
        """How often this process has committed."""
        return int(self._engine.committer.commits)

    def note(self) -> str:
        """Tell how many workers had to be replaced."""
        return f"{self.supervisor.restarts} workers restarted" if self.supervisor.restarts else ""

    @property
    def _engine(self) -> Any:
        return self.store.engine


@asynccontextmanager
async def open_shared_app(dsn: str, workers: int) -> AsyncIterator[SharedApp]:
    """Open or create the log, start the workers, keep them running; end them at the end."""
    async with open_store(dsn) as store, PostgresSagaStore(store) as saga_store:
        bus, flights = commands(store)
        projections = read_models(store)
        await create_tables(store, projections)
        sagas: SagaManager = rebooking(saga_store, store, projections, bus)
        projections.register(sagas.follower())
        try:
            async with Supervisor(dsn, ["projections"] * workers + ["sagas"]) as supervisor:
                yield SharedApp(store, bus, flights, projections, sagas, supervisor)
        finally:
            await projections.stop()
