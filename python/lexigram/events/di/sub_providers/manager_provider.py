"""Projection, saga and snapshot managers. Source: spec/architecture.md, "EventsProvider"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lexigram.events.di.binding import bind_all
from lexigram.events.exceptions import EventError, EventValidationError
from lexigram.logging import get_logger

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerRegistrarProtocol
    from lexigram.events.config import EventsConfig
    from lexigram.events.di.backends import StoreSet
    from lexigram.events.projections.manager import ProjectionManager
    from lexigram.events.sagas.manager import SagaManager
    from lexigram.events.sagas.sharing import SagaSharing
    from lexigram.events.stores.base import AbstractEventStore
    from lexigram.events.stores.snapshot import SnapshotManager

__all__ = ["ManagerSubProvider"]

CLEANUP_SECONDS = 3600.0

logger = get_logger(__name__)


class ManagerSubProvider:
    """Makes, starts and stops the managers.

    Projections and sagas follow the log of the event store, so they miss nothing that was appended while they did
    not run.

    Args:
        config: Sections `projection`, `saga` and `snapshots`.
        event_store: The log to follow.
        stores: Its companions; without them managers keep their state in memory.
        command_bus: Gets the commands of event-driven sagas.
        event_bus: Retries its dead letters.
        services: What saga steps find in `ctx.services`.
        factory: Builds projection and saga objects from their classes; may return an awaitable.
    """

    def __init__(
        self,
        config: EventsConfig,
        event_store: AbstractEventStore | Any = None,
        *,
        stores: StoreSet | None = None,
        command_bus: Any = None,
        event_bus: Any = None,
        services: Any = None,
        factory: Callable[[type[Any]], Any] | None = None,
    ) -> None:
        self._config = config
        self._event_store = event_store
        self._stores = stores
        self._command_bus = command_bus
        self._event_bus = event_bus
        self._services = services
        self._factory = factory
        self._managers: tuple[ProjectionManager, SagaManager, SnapshotManager[Any]] | None = None
        self._started = False
        self._followed: tuple[type[Any], ...] = ()
        self._feed: ProjectionManager
        self._late: set[asyncio.Task[None]] = set()
        self._cleanup: asyncio.Task[None] | None = None
        self._sharing: SagaSharing | None = None

    @property
    def projection_manager(self) -> ProjectionManager:
        """The projection manager; it exists after `setup`."""
        return self._made()[0]

    @property
    def saga_manager(self) -> SagaManager:
        """The saga manager; it exists after `setup`."""
        return self._made()[1]

    @property
    def snapshot_manager(self) -> SnapshotManager[Any]:
        """The snapshot manager; it exists after `setup`."""
        return self._made()[2]

    def _made(self) -> tuple[ProjectionManager, SagaManager, SnapshotManager[Any]]:
        if self._managers is None:
            raise EventError("The managers are not set up yet; boot the application first")
        return self._managers

    async def setup(self, container: ContainerRegistrarProtocol | None = None) -> None:
        """Make the managers, without projections and sagas yet; bind them if there is a container."""
        from lexigram.events.config import ProjectionConfig
        from lexigram.events.projections.manager import ProjectionManager
        from lexigram.events.sagas.manager import SagaManager
        from lexigram.events.sagas.sharing import SagaSharing
        from lexigram.events.stores.memory import InMemorySnapshotStore
        from lexigram.events.stores.snapshot import SnapshotManager

        stores, config = self._stores, self._config

        checkpoints = None if stores is None else stores.checkpoints
        parks = config.projection.on_error == "park"
        projections = ProjectionManager(
            self._event_store,
            checkpoints,
            config=config.projection,
            dead_letters=None if stores is None else stores.dead_letters,
            on_error="park" if parks and stores is not None else "fault",
        )
        # Sagas follow the log like a projection, but also where projections are off, and they never skip an event.
        joint = config.projection.enabled and not parks and (config.projection.shared or not config.saga.shared)
        follows = ProjectionConfig(shared=config.saga.shared, lease_seconds=config.saga.lease_seconds)
        self._feed = projections if joint else ProjectionManager(self._event_store, checkpoints, config=follows)
        self._managers = (
            projections,
            SagaManager(
                stores.sagas if stores is not None and config.saga.persist_state else None,
                event_store=self._event_store,
                command_bus=self._command_bus,
                services=self._services,
                config=config.saga,
                factory=self._factory,
                on_register=self._saga_registered,
            ),
            SnapshotManager(
                self._event_store,
                InMemorySnapshotStore() if stores is None else stores.snapshots,
                config=config.snapshots,
            ),
        )
        if config.saga.shared:
            self._sharing = SagaSharing(
                self.saga_manager,
                self._lease_store(),
                partitions=config.saga.partitions,
                lease_seconds=config.saga.lease_seconds,
            )
        if container is not None:
            self.register(container)

    def _lease_store(self) -> Any:
        if self._stores is None or not self._config.saga.persist_state:
            raise EventValidationError(
                "saga.shared needs sagas that are kept in a database: choose a durable event_store_backend and leave "
                "saga.persist_state on",
                field="saga.shared",
            )
        return self._stores.checkpoints

    def register(self, container: ContainerRegistrarProtocol) -> None:
        """Bind the managers under the framework's contract and their own classes."""
        from lexigram.contracts.events.protocols.projection import ProjectionProtocol
        from lexigram.contracts.workflow.protocols import SagaManagerProtocol
        from lexigram.events.buses.dead_letter_operations import DeadLetterOperations
        from lexigram.events.projections.parking import PREFIX
        from lexigram.events.repository.time_travel import TimeTravel
        from lexigram.events.stores.snapshot import SnapshotPolicy

        bindings: list[tuple[Any, Any]] = [
            (TimeTravel, TimeTravel(self._event_store)),
            (ProjectionProtocol, self.projection_manager),
            (SagaManagerProtocol, self.saga_manager),
            (SnapshotPolicy, self.snapshot_manager.policy),
            *((type(manager), manager) for manager in self._made()),
        ]
        if self._stores is not None:
            routes = {PREFIX: self.projection_manager}
            operations = DeadLetterOperations(
                self._stores.dead_letters, self._event_bus, self._stores.checkpoints, routes=routes
            )
            bindings.append((DeadLetterOperations, operations))
        bind_all(container, bindings)

    async def add_projection(self, projection: Any) -> None:
        """Register a projection, an object or a class that is built from the container; a started manager starts it."""
        if isinstance(projection, type):
            projection = await self._factory(projection) if self._factory is not None else projection()
        self.projection_manager.register(projection)

    def add_saga(self, saga_class: type[Any]) -> None:
        """Register a saga class; if the managers run, its unfinished sagas go on at once."""
        self.saga_manager.register(saga_class)

    async def boot(self) -> None:
        """Nothing to open: the managers work on stores that are open. `start` begins the work."""

    async def start(self) -> None:
        """Start all projections and go on with all unfinished sagas; what is registered later starts at once.

        Raises:
            SagaError: LEX_ERR_EVT_026. The steps of a saga in flight have changed.
        """
        self._started = True
        if self._config.projection.enabled:
            await self.projection_manager.start()
        await self._start_sagas()
        if self._config.saga.enabled and self._config.saga.cleanup_completed_after_hours:
            self._cleanup = asyncio.get_running_loop().create_task(self._clean_up(), name="events: saga cleanup")

    async def _clean_up(self) -> None:
        """Remove sagas that ended long ago, now and every hour; a failure is logged and tried again."""
        age = timedelta(hours=self._config.saga.cleanup_completed_after_hours)
        while True:
            try:
                await self.saga_manager.purge_finished(age)
            except Exception as error:
                logger.warning("events.sagas.cleanup_failed", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(CLEANUP_SECONDS)

    async def _start_sagas(self) -> None:
        """Go on with unfinished sagas, and follow the log for those that react to events."""
        if not self._config.saga.enabled:
            return
        if self._sharing is not None:
            await self.saga_manager.check_in_flight()
            await self._sharing.start()
        else:
            await self.saga_manager.resume(wait=False)
        wanted = self.saga_manager.wanted_events()
        if wanted != self._followed:
            follower = self.saga_manager.follower()
            self._feed.unregister(follower.name)
            self._feed.register(follower)
            await self._feed.start()
            self._followed = wanted

    def _saga_registered(self) -> None:
        """Start what was registered while the managers run."""
        if self._started:
            task = asyncio.get_running_loop().create_task(self._start_sagas(), name="events: sagas registered later")
            self._late.add(task)
            task.add_done_callback(self._late_done)

    def _late_done(self, task: asyncio.Task[None]) -> None:
        self._late.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("events.sagas.not_resumed", error=str(task.exception()))

    async def teardown(self, timeout_seconds: float = 10.0) -> None:
        """Stop projections where they are and give running sagas time to end; what is left goes on at the next boot."""
        if self._managers is None or not self._started:
            return
        self._started = False
        if self._cleanup is not None:
            self._cleanup.cancel()
        await asyncio.gather(*self._late, *filter(None, (self._cleanup,)), return_exceptions=True)
        self._cleanup = None
        await self.projection_manager.stop()
        await self._feed.stop()
        if self._sharing is not None:
            await self._sharing.stop(timeout_seconds)
        await self.saga_manager.close(timeout_seconds)
