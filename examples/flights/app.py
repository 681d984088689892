"""Puts the parts together: one SQLite file, a command bus, projections and a saga that follow the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from examples.flights.domain import Flight
from examples.flights.handlers import FlightHandlers, Flights
from examples.flights.projections import all_projections
from examples.flights.saga import Desk, RebookPassengers
from lexigram.events import (
    EventSourcingRepository,
    ProjectionConfig,
    ProjectionManager,
    SagaConfig,
    SagaManager,
    SqliteEventStore,
    SqlSagaStore,
)
from lexigram.events.buses.command import CommandBusImpl
from lexigram.events.middleware.retry import RetryMiddleware
from lexigram.events.sagas.store import SagaStore

if TYPE_CHECKING:
    from lexigram.events import PostgresEventStore

    Store: TypeAlias = SqliteEventStore | PostgresEventStore

BATCH_SIZE = 2000
SAGAS_AT_ONCE = 16


@dataclass(frozen=True)
class App:
    """Everything that runs."""

    backend: ClassVar[str] = "SQLite file"

    store: Store
    bus: CommandBusImpl
    flights: Flights
    projections: ProjectionManager
    sagas: SagaManager

    async def settle(self) -> None:
        """Return when every projection has seen the whole log and every saga has ended."""
        names = [projection.name for projection in self.projections.get_all()]
        position = -1
        while position != (position := await self.store.head()):
            for name in names:
                await self.projections.wait_for(name, position)
            await self.sagas_end()

    async def sagas_end(self) -> None:
        """Return when no saga is unfinished."""
        await self.sagas.drain()

    @property
    def commits(self) -> int:
        """How often this process has committed."""
        return int(getattr(self.store.engine, "commits", 0))

    def note(self) -> str:
        """Tell how far the slowest projection is behind the log."""
        lag = max(status["lag"] for status in self.projections.list_status())
        return f"projections {lag:,} behind" if lag else ""


def commands(store: Store) -> tuple[CommandBusImpl, Flights]:
    """Return a bus that handles every command about flights, and the repository behind it."""
    # A reservation may come between reading a flight and saving it: the loser of such a race tries again.
    bus = CommandBusImpl(middlewares=[RetryMiddleware(max_retries=10, backoff_base=0.002)])
    flights: Flights = EventSourcingRepository(Flight, store)
    FlightHandlers(flights).register(bus)
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


@asynccontextmanager
async def open_app(path: Path) -> AsyncIterator[App]:
    """Open or create the file, go on with projections and sagas where they stopped; close everything at the end."""
    # synchronous=FULL is the default: what was acknowledged survives a power cut.
    async with SqliteEventStore(str(path)) as store, SqlSagaStore(store) as saga_store:
        bus, flights = commands(store)
        projections = ProjectionManager(store, config=ProjectionConfig(batch_size=BATCH_SIZE))
        sagas = rebooking(saga_store, store, projections, bus)
        for projection in (*all_projections(), sagas.follower()):
            projections.register(projection)
        async with projections:
            await sagas.resume(wait=False)
            try:
                yield App(store, bus, flights, projections, sagas)
            finally:
                await sagas.close(timeout=5.0)
