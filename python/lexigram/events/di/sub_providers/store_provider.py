"""Stores of the chosen backend: made, bound, opened, closed. Source: spec/architecture.md, "EventsProvider"."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lexigram.events.di.backends import COMPANIONS, StoreSet
from lexigram.events.di.binding import bind_all
from lexigram.events.exceptions import EventStoreError, EventValidationError
from lexigram.events.stores.registry import EventStoreRegistry

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerRegistrarProtocol
    from lexigram.contracts.core.health import HealthCheckResult
    from lexigram.events.config import EventsConfig

__all__ = ["StoreSubProvider"]


class StoreSubProvider:
    """Makes the event, snapshot, checkpoint, idempotency, dead-letter and saga stores of one backend.

    Args:
        config: Names the backend and says where it is.
        registry: Where event stores come from; all backends of this release by default.
    """

    def __init__(self, config: EventsConfig, registry: EventStoreRegistry | None = None) -> None:
        self._config = config
        self._registry = registry or EventStoreRegistry.with_defaults()
        self._stores: StoreSet | None = None
        self._opened: list[Any] = []

    @property
    def stores(self) -> StoreSet:
        """All stores; they exist after `setup`."""
        if self._stores is None:
            raise EventStoreError("The stores are not set up yet; boot the application first")
        return self._stores

    async def setup(self, container: ContainerRegistrarProtocol | None = None) -> None:
        """Make the stores of exactly the backend that was asked for, unopened; then bind them if there is a container.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. The backend cannot boot; another one is never used instead.
        """
        backend = self._config.event_store_backend.value
        events = await self._registry.create(backend, self._config, None)
        companions = COMPANIONS.get(backend)
        if companions is None:
            raise EventValidationError(
                f"event_store_backend {backend!r} has an event store, but no snapshot, checkpoint and saga stores",
                field="event_store_backend",
            )
        self._stores = companions(events, self._config)
        if container is not None:
            self.register(container)

    def register(self, container: ContainerRegistrarProtocol) -> None:
        """Bind the stores under the framework's contracts, our base classes and their own classes."""
        from lexigram.contracts.events.protocols.store import (
            EventReplayProtocol,
            EventStoreProtocol,
            SnapshotStoreProtocol,
        )
        from lexigram.events.buses.dead_letter import DeadLetterStore
        from lexigram.events.sagas.store import SagaStore
        from lexigram.events.stores._snapshots import AbstractSnapshotStore
        from lexigram.events.stores.base import AbstractCheckpointStore, AbstractEventStore, AbstractIdempotencyStore

        stores = self.stores
        bindings: list[tuple[Any, Any]] = [
            *((contract, stores.events) for contract in (EventStoreProtocol, EventReplayProtocol, AbstractEventStore)),
            *((contract, stores.snapshots) for contract in (SnapshotStoreProtocol, AbstractSnapshotStore)),
            (AbstractCheckpointStore, stores.checkpoints),
            (AbstractIdempotencyStore, stores.idempotency),
            (DeadLetterStore, stores.dead_letters),
            (SagaStore, stores.sagas),
            *((type(store), store) for store in stores),
        ]
        bind_all(container, bindings)

    async def boot(self) -> None:
        """Open all stores: connect, create or migrate their tables. If one fails, those already open are closed."""
        try:
            for store in self.stores:
                opening = getattr(store, "connect", None) or getattr(store, "initialize", None)
                if opening is not None:
                    await opening()
                self._opened.append(store)
        except BaseException:
            await self.teardown()
            raise

    async def teardown(self) -> None:
        """Close what is open, in reverse order; every store is tried, the first error is raised at the end."""
        failure: Exception | None = None
        while self._opened:
            try:
                await self._opened.pop().close()
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def health_check(self, timeout: float = 5.0) -> list[HealthCheckResult]:
        """Return the health of every store that can tell, asked at the same time."""
        able = [store for store in self._opened if hasattr(store, "health_check")]
        return list(await asyncio.gather(*(store.health_check(timeout) for store in able)))
