"""Puts the parts together: one SQLite file, a command bus, projections and a saga that follow the log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

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

BATCH_SIZE = 2000
SAGAS_AT_ONCE = 16


@dataclass(frozen=True)
class App:
    """Everything that runs."""

    store: SqliteEventStore
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
            await self.sagas.drain()


@asynccontextmanager
async def open_app(path: Path) -> AsyncIterator[App]:
    """Open or create the file, go on with projections and sagas where they stopped; close everything at the end."""
    async with SqliteEventStore(str(path)) as store:  # synchronous=FULL: what was acknowledged survives a power cut
        # A reservation may come between reading a flight and saving it: the loser of such a race tries again.
        bus = CommandBusImpl(middlewares=[RetryMiddleware(max_retries=10, backoff_base=0.002)])
        flights: Flights = EventSourcingRepository(Flight, store)
        FlightHandlers(flights).register(bus)
        projections = ProjectionManager(store, config=ProjectionConfig(batch_size=BATCH_SIZE))
        saga_store = SqlSagaStore(store)
        await saga_store.initialize()
        sagas = SagaManager(
            saga_store,
            event_store=store,
            services={"desk": Desk(store, projections, bus)},
            config=SagaConfig(retry_delay_seconds=0.05),
            max_concurrent=SAGAS_AT_ONCE,
        )
        sagas.register(RebookPassengers)
        for projection in (*all_projections(), sagas.follower()):
            projections.register(projection)
        try:
            async with projections:
                await sagas.resume(wait=False)
                try:
                    yield App(store, bus, flights, projections, sagas)
                finally:
                    await sagas.close(timeout=5.0)
        finally:
            await saga_store.close()
