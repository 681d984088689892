"""`EventsProvider`: boots and shuts down everything of this package. Source: spec/architecture.md, "EventsProvider"."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from lexigram.contracts.core import ProviderPriority
from lexigram.di.provider import Provider
from lexigram.events.config import EventsConfig
from lexigram.events.di.arguments import as_config, as_module_names
from lexigram.events.di.injection import Injector, no_module
from lexigram.events.di.services import ContainerServices
from lexigram.events.di.sub_providers.bus_provider import BusSubProvider
from lexigram.events.di.sub_providers.handler_provider import HandlerSubProvider
from lexigram.events.di.sub_providers.manager_provider import ManagerSubProvider
from lexigram.events.di.sub_providers.outbox_provider import OutboxSubProvider
from lexigram.events.di.sub_providers.store_provider import StoreSubProvider
from lexigram.events.exceptions import EventError, EventValidationError
from lexigram.logging import get_logger

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerRegistrarProtocol, ContainerResolverProtocol
    from lexigram.contracts.core.health import HealthCheckResult
    from lexigram.events.buses.command import CommandBusImpl
    from lexigram.events.buses.event import EventBusImpl
    from lexigram.events.buses.query import QueryBusImpl
    from lexigram.events.projections.manager import ProjectionManager
    from lexigram.events.sagas.manager import SagaManager
    from lexigram.events.stores.base import AbstractEventStore
    from lexigram.events.stores.snapshot import SnapshotManager

__all__ = ["EventsProvider"]

logger = get_logger(__name__)

P = TypeVar("P")


class EventsProvider(Provider):
    """Coordinates the stores, buses, handlers and managers of one application.

    Stores open and handlers are registered when the provider boots; projections and sagas start once all providers
    of the application have booted, so that everything they inject is ready; the event bus drains before any provider
    shuts down.

    Args:
        config: Taken as it is. None: section `events` of the application's configuration.
        handler_modules: Modules and packages that are imported and searched for handlers.
    """

    name = "events"
    priority = ProviderPriority.INFRASTRUCTURE
    config_key: str | None = "events"
    config_model: type[Any] | None = EventsConfig
    bound_arguments: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, config: EventsConfig | dict[str, Any] | None = None, handler_modules: list[str] | None = None
    ) -> None:
        super().__init__()
        config = self.bound_arguments.get("config") if config is None else config
        self._config = as_config(config)
        self._handler_modules = as_module_names(handler_modules) or list(
            self.bound_arguments.get("handler_modules", ())
        )
        # The framework would bind the section without repairing precedence between spellings; see `register`.
        self._config_from_factory = True
        self._booted = False
        self._stores: StoreSubProvider | None = None
        self._buses: BusSubProvider | None = None
        self._handlers: HandlerSubProvider | None = None
        self._managers: ManagerSubProvider | None = None
        self._outbox: OutboxSubProvider | None = None

    @classmethod
    def bound(cls, **arguments: Any) -> type[EventsProvider]:
        """Return a provider class that needs no arguments: the framework makes a new instance of it per boot."""
        return type(cls.__name__, (cls,), {"bound_arguments": arguments, "__module__": cls.__module__})

    @classmethod
    def from_config(cls, config: EventsConfig, **context: Any) -> Self:
        """Return a provider with this configuration; of what the framework knows, `handler_modules` is used."""
        return cls(config, context.get("handler_modules"))

    @property
    def config(self) -> EventsConfig:
        """The configuration; defaults until `register` has read the application's."""
        return self._config or EventsConfig()

    @config.setter
    def config(self, value: EventsConfig | dict[str, Any]) -> None:
        self._config = as_config(value)

    @property
    def event_store(self) -> AbstractEventStore:
        """The event store of this application."""
        return self._part(self._stores).stores.events

    @property
    def command_bus(self) -> CommandBusImpl:
        """The command bus of this application."""
        return self._part(self._buses).command_bus

    @property
    def query_bus(self) -> QueryBusImpl:
        """The query bus of this application."""
        return self._part(self._buses).query_bus

    @property
    def event_bus(self) -> EventBusImpl:
        """The event bus of this application."""
        return self._part(self._buses).event_bus

    @property
    def projection_manager(self) -> ProjectionManager:
        """The projection manager of this application."""
        return self._part(self._managers).projection_manager

    @property
    def saga_manager(self) -> SagaManager:
        """The saga manager of this application."""
        return self._part(self._managers).saga_manager

    @property
    def snapshot_manager(self) -> SnapshotManager[Any]:
        """The snapshot manager of this application."""
        return self._part(self._managers).snapshot_manager

    def _part(self, part: P | None) -> P:
        if part is None:
            reason = "is not booted yet" if self.config.enabled else "is disabled (events.enabled is false)"
            raise EventError(f"The events provider {reason}")
        return part

    # Life cycle

    async def register(self, container: ContainerRegistrarProtocol) -> None:
        """Read and check the configuration, make all parts and bind them; nothing is opened yet.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. The configuration is wrong, or asks for what cannot boot.
        """
        # Providers that register get the whole container; the application's configuration is in it already.
        resolver = cast("ContainerResolverProtocol", container)
        if self._config is None:
            self._config = await _configured(resolver)
        config = self._config
        if problems := config.validate_backend_config():
            raise EventValidationError("The events configuration cannot boot: " + "; ".join(problems), field="events")
        container.singleton(EventsConfig, config)
        if not config.enabled:
            return
        injector = Injector(resolver)
        self._stores = StoreSubProvider(config)
        await self._stores.setup(container)
        stores = self._stores.stores
        self._outbox = OutboxSubProvider(config, stores.events, stores.dead_letters)
        self._outbox.register(container)
        self._buses = BusSubProvider(config, stores.dead_letters, stores.events.unit_of_work, injector.handler)
        await self._buses.setup()
        self._buses.register(container)
        self._managers = ManagerSubProvider(
            config,
            stores.events,
            stores=stores,
            command_bus=self.command_bus,
            event_bus=self.event_bus,
            services=ContainerServices(resolver),
            factory=injector.build,
        )
        await self._managers.setup(container)
        self._handlers = HandlerSubProvider(
            config,
            self._handler_modules,
            self.command_bus,
            self.query_bus,
            self.event_bus,
            managers=self._managers,
        )
        self._handlers.register(container)

    async def boot(self, container: ContainerResolverProtocol) -> None:
        """Open the stores, wire what the application offers (hooks, tracer, metrics) and register all handlers.

        If anything fails, what was opened is closed again.
        """
        if self._stores is None or self._buses is None or self._handlers is None or self._managers is None:
            return
        try:
            await self._stores.boot()
            await self._wire_optional(container)
            await self._boot_outbox(container)
            await self._buses.boot()
            await self._managers.boot()
            await self._handlers.setup(container)
            self._booted = True
        except BaseException:
            await self._close(drain=False)
            raise

    async def on_application_bootstrap(self) -> None:
        """Start projections and resume sagas: all providers of the application have booted.

        Raises:
            EventError: LEX_ERR_EVT_001. They cannot be started.
        """
        if self._managers is None or not self._booted:
            return
        try:
            await self._managers.start()
            if self._outbox is not None:
                await self._outbox.start()
        except (RuntimeError, OSError, AttributeError, ValueError) as error:
            # The framework only logs these types here and would go on without projections and sagas.
            raise EventError(f"Projections and sagas cannot be started: {error}", cause=error) from error

    async def on_before_shutdown(self, signal: str | None = None) -> None:
        """Let sagas, projections and the event bus finish while everything that handlers use is still there."""
        if self._managers is not None and self._buses is not None:
            await self._drain()

    async def shutdown(self) -> None:
        """Stop managers, drain the event bus within its deadline (what is left is reported), close all stores."""
        await self._close(drain=True)

    async def _drain(self) -> None:
        if self._buses is None or self._managers is None:
            return
        seconds = self.config.event_bus.shutdown_timeout_seconds
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        await self._managers.teardown(seconds)
        if self._outbox is not None:
            await self._outbox.teardown(max(1.0, deadline - clock()))
        report = await self._buses.teardown(max(0.0, deadline - clock()))
        if report is not None and not report.drained:
            logger.warning(
                "events.shutdown.unfinished",
                events=len(report.left),
                dead_letters=report.parked,
                dead_letters_not_stored=report.unsaved,
                deadline_seconds=seconds,
            )

    async def _close(self, *, drain: bool) -> None:
        self._booted = False
        try:
            if drain:
                await self._drain()
        finally:
            if self._stores is not None:
                await self._stores.teardown()

    async def _boot_outbox(self, container: ContainerResolverProtocol) -> None:
        """Capture appends from now on if the application has bound a publisher and has not switched the outbox off."""
        from lexigram.events.stores.outbox import OutboxPublisherProtocol

        if self._outbox is not None and self.config.outbox.enabled:
            with no_module():
                publisher = await container.resolve_optional(OutboxPublisherProtocol)
            await self._outbox.boot(publisher)

    async def _wire_optional(self, container: ContainerResolverProtocol) -> None:
        """Pass on the application's hook registry, tracer and metrics recorder, if it has them."""
        from lexigram.contracts.core.hooks import HookRegistryProtocol
        from lexigram.contracts.observability.metrics import MetricsRecorderProtocol
        from lexigram.contracts.observability.tracing import TracerProtocol

        buses = self._part(self._buses)
        hooks: Any = await container.resolve_optional(HookRegistryProtocol)
        buses.set_hook_registry(hooks)
        self.event_store.set_hook_registry(hooks)
        buses.set_tracer(await container.resolve_optional(TracerProtocol))
        buses.set_metrics(await container.resolve_optional(MetricsRecorderProtocol))

    async def health_check(self, timeout: float = 5.0) -> HealthCheckResult:
        """Return the worst health of stores and buses, with each one in `details`."""
        from lexigram.contracts.core.health import AggregateHealthResult, HealthCheckResult, HealthStatus

        if not self.config.enabled:
            return HealthCheckResult(self.name, HealthStatus.HEALTHY, message="disabled")
        if self._stores is None or self._buses is None:
            return HealthCheckResult(self.name, HealthStatus.UNKNOWN, message="not booted")
        parts = [*await self._stores.health_check(timeout), *await self._buses.health_check(timeout)]
        if self._outbox is not None:
            parts += await self._outbox.health_check(timeout)
        bad = [part for part in parts if part.status is not HealthStatus.HEALTHY]
        return HealthCheckResult(
            self.name,
            AggregateHealthResult(parts).status,
            error="; ".join(f"{part.component}: {part.error or part.message or part.status}" for part in bad) or None,
            duration_ms=max((part.duration_ms for part in parts), default=0.0),
            details={part.component: part.to_dict() for part in parts},
        )


async def _configured(container: ContainerResolverProtocol) -> EventsConfig:
    """Return the section `events` of the application's configuration, or defaults."""
    from lexigram.config.main import LexigramConfig

    application = await container.resolve_optional(LexigramConfig)
    section = None if application is None else application.get_section("events")
    return section if isinstance(section, EventsConfig) else EventsConfig.from_section(section)
