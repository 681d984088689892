"""The demo on PostgreSQL: the log in one database, read models and sagas in worker processes that share it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from examples.flights.app import LEASE_SECONDS, App, saga_work, supervised
from examples.flights.projections import (
    AircraftDays,
    AirportPunctuality,
    CarrierPunctuality,
    FlightProjection,
    Timetable,
)
from examples.flights.supervisor import Supervisor
from lexigram.events import PostgresEventStore, ProjectionConfig, ProjectionManager
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.sagas.postgres import PostgresSagaStore

PARTITIONS = 4
"""Processes that can work on one projection at the same time."""

BATCH_SIZE = 500


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


@asynccontextmanager
async def worker(kind: str, dsn: str) -> AsyncIterator[ProjectionManager]:
    """Run a share of the read models, or of the sagas; yields the manager that follows the log."""
    async with open_store(dsn) as store:
        models = read_models(store)
        if kind == "projections":
            async with models:
                yield models
            return
        try:
            async with (
                PostgresSagaStore(store) as saga_store,
                saga_work(store, saga_store, models, shared_manager(store)) as following,
            ):
                yield following
        finally:
            await models.stop()


@asynccontextmanager
async def open_shared_app(dsn: str, workers: int) -> AsyncIterator[App]:
    """Open or create the log and start the workers."""
    async with open_store(dsn) as store, PostgresSagaStore(store) as saga_store:
        supervisor = Supervisor(dsn, ["projections"] * workers + ["sagas"])
        async with supervised("PostgreSQL database", store, saga_store, read_models(store), supervisor) as app:
            yield app
