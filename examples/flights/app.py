"""Puts the parts together: a log and a command bus here; projections and a saga that follow the log in workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from examples.flights.domain import Flight
from examples.flights.handlers import KEPT, FlightHandlers, Flights
from examples.flights.projections import FlightProjection, all_projections
from examples.flights.saga import Desk, RebookPassengers
from examples.flights.supervisor import Supervisor
from lexigram.events import (
    EventSourcingRepository,
    ProjectionConfig,
    ProjectionManager,
    SagaConfig,
    SagaManager,
    SagaStatus,
    SqliteEventStore,
    SqlSagaStore,
)
from lexigram.events.buses.command import CommandBusImpl
from lexigram.events.middleware.retry import RetryMiddleware
from lexigram.events.sagas.sharing import SagaSharing
from lexigram.events.sagas.store import SagaStore

if TYPE_CHECKING:
    from lexigram.events import PostgresEventStore

    Store: TypeAlias = SqliteEventStore | PostgresEventStore

BATCH_SIZE = 2000
SAGAS_AT_ONCE = 16
LEASE_SECONDS = 2.0
"""So long after a worker was killed, another one takes over."""
POLL_SECONDS = 0.25
"""How often a worker looks for sagas that another one has left."""
UNFINISHED = tuple(status for status in SagaStatus if status.is_unfinished)


@dataclass(frozen=True)
class App:
    """What runs in the process that sends the commands: it waits for the workers and restarts them."""

    backend: str
    store: Store
    bus: CommandBusImpl
    flights: Flights
    projections: ProjectionManager
    sagas: SagaManager
    supervisor: Supervisor

    async def settle(self) -> None:
        """Return when every projection has seen the whole log and every saga has ended."""
        names = [projection.name for projection in self.projections.get_all()]
        position = -1
        while position != (position := await self.store.head()):
            for name in names:
                await self.projections.wait_for(name, position)
            await self._sagas_end()

    async def _sagas_end(self) -> None:
        while True:
            if not await self.sagas.store.list_by_status(UNFINISHED, self.sagas.saga_names, 1):
                return
            await asyncio.sleep(0.05)

    @property
    def commits(self) -> int:
        """How often this process has committed."""
        engine: Any = self.store.engine
        return int(getattr(engine, "committer", engine).commits)

    def note(self) -> str:
        """Tell how many workers had to be replaced."""
        return f"{self.supervisor.restarts} workers restarted" if self.supervisor.restarts else ""


def commands(store: Store, kept: int = KEPT) -> tuple[CommandBusImpl, Flights]:
    """Return a bus that handles every command about flights, and the repository behind it."""
    # A reservation may come between reading a flight and saving it: the loser of such a race tries again.
    bus = CommandBusImpl(middlewares=[RetryMiddleware(max_retries=10, backoff_base=0.002)])
    flights: Flights = EventSourcingRepository(Flight, store)
    FlightHandlers(flights, kept).register(bus)
    return bus, flights


def rebooking(saga_store: SagaStore, store: Store, projections: ProjectionManager, bus: CommandBusImpl) -> SagaManager:
    """Return a manager of the rebooking sagas."""
    sagas = SagaManager(
        saga_store,
        event_store=store,
        services={"desk": Desk(store, projections, bus)},
        config=SagaConfig(retry_delay_seconds=0.05),
        max_concurrent=SAGAS_AT_ONCE,
    )
    sagas.register(RebookPassengers)
    return sagas


async def create_tables(store: Store, models: ProjectionManager) -> None:
    """Create what workers would create when they begin: the sending process looks at the tables before they do."""
    async with store.unit_of_work() as unit:
        await unit.lock_schema()
        for model in models.get_all():
            if isinstance(model, FlightProjection):
                await model.create_schema()


@asynccontextmanager
async def supervised(
    backend: str, store: Store, saga_store: SagaStore, models: ProjectionManager, supervisor: Supervisor
) -> AsyncIterator[App]:
    """Start the workers and keep them running; end them at the end."""
    await create_tables(store, models)
    bus, flights = commands(store)
    sagas = rebooking(saga_store, store, models, bus)
    models.register(sagas.follower())
    try:
        async with supervisor:
            yield App(backend, store, bus, flights, models, sagas, supervisor)
    finally:
        await models.stop()


@asynccontextmanager
async def saga_work(
    store: Store, saga_store: SagaStore, models: ProjectionManager, following: ProjectionManager
) -> AsyncIterator[ProjectionManager]:
    """In a worker: start sagas for what the log says, and run them; yields the manager that follows the log."""
    bus, _ = commands(store, kept=0)
    sagas = rebooking(saga_store, store, models, bus)
    following.register(sagas.follower())
    async with (
        store.checkpoint_store() as leases,
        SagaSharing(sagas, leases, lease_seconds=LEASE_SECONDS, poll_seconds=POLL_SECONDS),
        following,
    ):
        yield following


def read_models(store: SqliteEventStore) -> ProjectionManager:
    """Return a manager of all read models in the file; one that is not started can still wait for them."""
    config = ProjectionConfig(shared=True, lease_seconds=LEASE_SECONDS, batch_size=BATCH_SIZE)
    manager = ProjectionManager(store, config=config)
    for projection in all_projections():
        manager.register(projection)
    return manager


@asynccontextmanager
async def open_app(path: Path) -> AsyncIterator[App]:
    """Open or create the file; a worker, on the machine's second core, goes on with read models and sagas."""
    # synchronous=FULL is the default: what was acknowledged survives a power cut.
    async with SqliteEventStore(str(path)) as store, SqlSagaStore(store) as saga_store:
        workers = Supervisor(str(path), ["file"])
        async with supervised("SQLite file", store, saga_store, read_models(store), workers) as app:
            yield app


@asynccontextmanager
async def file_worker(path: str) -> AsyncIterator[ProjectionManager]:
    """Run all read models and sagas of a file; yields the manager that follows the log."""
    async with SqliteEventStore(path) as store, SqlSagaStore(store) as saga_store:
        models = read_models(store)
        async with saga_work(store, saga_store, models, models):
            yield models
