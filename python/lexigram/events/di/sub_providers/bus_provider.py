"""The three buses with their middleware. Source: spec/architecture.md, "EventsProvider"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from lexigram.events.di.binding import bind_all
from lexigram.events.exceptions import EventError
from lexigram.events.middleware.pipeline import BusKind, build_pipeline

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerRegistrarProtocol
    from lexigram.contracts.core.health import HealthCheckResult
    from lexigram.contracts.core.hooks import HookRegistryProtocol
    from lexigram.contracts.observability.metrics import MetricsRecorderProtocol
    from lexigram.contracts.observability.tracing import TracerProtocol
    from lexigram.events.buses._results import CloseReport
    from lexigram.events.buses.command import CommandBusImpl
    from lexigram.events.buses.dead_letter import DeadLetterStore
    from lexigram.events.buses.event import EventBusImpl
    from lexigram.events.buses.query import QueryBusImpl
    from lexigram.events.config import EventsConfig

__all__ = ["BusSubProvider"]


class BusSubProvider:
    """Makes the command, query and event bus of a configuration.

    Args:
        config: Timeouts, retries, middleware.
        dead_letters: Where events go whose handlers failed for good; in memory if None.
        unit_of_work: Makes the transaction that a command runs in, if the configuration asks for one.
        handler_factory: Builds handler classes and injects what handler functions annotate.
    """

    def __init__(
        self,
        config: EventsConfig,
        dead_letters: DeadLetterStore | None = None,
        unit_of_work: Callable[[], Any] | None = None,
        handler_factory: Callable[[Any], Any] | None = None,
    ) -> None:
        self._config = config
        self._dead_letters = dead_letters
        self._unit_of_work = unit_of_work if config.transaction_middleware.use_store_transaction else None
        self._factory = handler_factory
        self._recorder: MetricsRecorderProtocol | None = None
        self._buses: tuple[CommandBusImpl, QueryBusImpl, EventBusImpl] | None = None

    @property
    def command_bus(self) -> CommandBusImpl:
        """The command bus; it exists after `setup`."""
        return self._made()[0]

    @property
    def query_bus(self) -> QueryBusImpl:
        """The query bus; it exists after `setup`."""
        return self._made()[1]

    @property
    def event_bus(self) -> EventBusImpl:
        """The event bus; it exists after `setup`."""
        return self._made()[2]

    def _made(self) -> tuple[CommandBusImpl, QueryBusImpl, EventBusImpl]:
        if self._buses is None:
            raise EventError("The buses are not set up yet; boot the application first")
        return self._buses

    async def setup(self) -> None:
        """Make the buses, without handlers and middleware yet."""
        from lexigram.events.buses.command import CommandBusImpl
        from lexigram.events.buses.event import EventBusImpl
        from lexigram.events.buses.query import QueryBusImpl

        dead_letters = self._dead_letters if self._config.event_bus.enable_dead_letter else None
        self._buses = (
            CommandBusImpl(config=self._config.command_bus, handler_factory=self._factory),
            QueryBusImpl(config=self._config.query_bus, handler_factory=self._factory),
            EventBusImpl(config=self._config.event_bus, dead_letters=dead_letters, handler_factory=self._factory),
        )

    def register(self, container: ContainerRegistrarProtocol) -> None:
        """Bind the buses under the framework's contracts and their own classes."""
        from lexigram.contracts.events.protocols.cqrs import CommandBusProtocol, QueryBusProtocol
        from lexigram.contracts.events.protocols.domain import (
            DomainEventPublisherProtocol,
            EventBusDiagnosticsProtocol,
            EventBusProtocol,
        )

        bindings: list[tuple[Any, Any]] = [
            (CommandBusProtocol, self.command_bus),
            (QueryBusProtocol, self.query_bus),
            (EventBusProtocol, self.event_bus),
            (DomainEventPublisherProtocol, self.event_bus),
            (EventBusDiagnosticsProtocol, self.event_bus),
            *((type(bus), bus) for bus in self._made()),
        ]
        bind_all(container, bindings)

    def set_tracer(self, tracer: object | None) -> None:
        """Let the event bus trace its handlers; None traces nothing."""
        self.event_bus.set_tracer(cast("TracerProtocol | None", tracer))

    def set_hook_registry(self, hooks: object | None) -> None:
        """Let the event bus fire `EventPublishedHook` and `EventHandledHook`; None fires nothing."""
        self.event_bus.set_hook_registry(cast("HookRegistryProtocol | None", hooks))

    def set_metrics(self, recorder: object | None) -> None:
        """Send the metrics of all buses to the application's recorder; call it before `boot`."""
        self._recorder = cast("MetricsRecorderProtocol | None", recorder)

    async def boot(self) -> None:
        """Put the configured middleware around all handlers: those registered so far and those to come.

        Metrics need a recorder of the application: numbers that nobody can read are not worth their time.
        """
        config = self._config
        if self._recorder is None:
            config = config.model_copy(update={"metrics_middleware": {"enabled": False}})
        kinds: tuple[BusKind, ...] = ("command", "query", "event")
        for kind, bus in zip(kinds, self._made(), strict=True):
            factory = self._unit_of_work if kind == "command" else None
            for layer in build_pipeline(config, kind, transaction_factory=factory, recorder=self._recorder):
                bus.use(layer)

    async def teardown(self, timeout_seconds: float | None = None) -> CloseReport | None:
        """Let the event bus finish what it has accepted; return what is left.

        Args:
            timeout_seconds: Deadline; the configured one if None.
        """
        return None if self._buses is None else await self.event_bus.close(timeout_seconds)

    async def health_check(self, timeout: float = 5.0) -> list[HealthCheckResult]:
        """Return the health of the three buses."""
        return list(await asyncio.gather(*(bus.health_check(timeout) for bus in self._made())))
