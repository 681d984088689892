"""Runs sagas written as classes, and routes events to those that react to them. Source: spec/architecture.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import EventValidationError
from lexigram.events.projections.routing import EventRoutes
from lexigram.events.sagas.base import SagaBase, definition_of
from lexigram.events.sagas.engine import MAX_CONCURRENT_SAGAS
from lexigram.events.sagas.follower import SagaFollower
from lexigram.events.sagas.operations import SagaOperations
from lexigram.events.sagas.process import Place, ProcessStep
from lexigram.events.sagas.store import SagaStore

if TYPE_CHECKING:
    from lexigram.events.config import SagaConfig


class SagaManager(SagaOperations):
    """Registers saga classes, starts them by name or by event, resumes them after a crash.

    Args:
        store: Where sagas are kept; None keeps them in this process only.
        event_store: Steps run in its unit of work, so that what they append commits with the saga's state.
        command_bus: Gets the commands that `handle(event)` returns.
        services: What steps find in `ctx.services`: a mapping, an object, or a container.
        config: Retries, timeouts, compensation.
        factory: Builds a saga object from its class, for example by a container; may return an awaitable.
        on_register: Called after each registration; an application lets the new saga's unfinished ones go on.
    """

    def __init__(
        self,
        store: SagaStore | None = None,
        *,
        event_store: Any | None = None,
        command_bus: Any | None = None,
        services: Any | None = None,
        config: SagaConfig | None = None,
        factory: Callable[[type[SagaBase]], Any] | None = None,
        on_register: Callable[[], None] | None = None,
        max_concurrent: int = MAX_CONCURRENT_SAGAS,
    ) -> None:
        super().__init__(
            store, event_store=event_store, services=services, config=config, max_concurrent=max_concurrent
        )
        self._bus = command_bus
        self._on_register = on_register
        self._factory = factory or (lambda saga_class: saga_class())
        self._routes: list[tuple[type[SagaBase], EventRoutes, EventRoutes]] = []

    def register(self, saga_class: type[SagaBase]) -> None:
        """Make a class known under its name.

        Raises:
            EventValidationError: It is no saga class, has neither steps nor events, or its name is taken.
        """
        if not isinstance(saga_class, type) or not issubclass(saga_class, SagaBase):
            raise EventValidationError(f"{saga_class!r} is no subclass of SagaBase", field="saga_class")
        definition = definition_of(saga_class)
        starting, continuing = EventRoutes(saga_class.start_events), EventRoutes(saga_class.continue_events)
        if not definition.steps and not starting.types and not continuing.types:
            raise EventValidationError(
                f"{saga_class.__name__} has no @saga_step and no start_events", field="saga_class"
            )
        definition.make = lambda: self._factory(saga_class)
        self._define(definition)
        if starting.types or continuing.types:
            self._routes.append((saga_class, starting, continuing))
        if self._on_register is not None:
            self._on_register()

    async def process(self, event: Any) -> None:
        """Hand an event to every saga that it starts or continues, and run those to their end or next wait.

        An event that a saga has handled already has no further effect, so redelivery is harmless: its id is kept with the
        saga. For sagas that handle very many events use a `follower`, of which only the position is kept.

        Raises:
            Exception: What `handle` raised; that saga is unchanged and the event may be handed in again. A command that
                fails is tried again like a step, and then ends the saga as FAILED (see `SagaBase.command_failed`).
        """
        tasks = [self._spawn(saga_id) for saga_id in await self.accept(event)]
        inside = asyncio.current_task()  # a step of one of them cannot wait for its own end
        await asyncio.gather(*(asyncio.shield(task) for task in tasks if task is not inside))

    async def accept(self, event: Any, place: Place | None = None) -> list[str]:
        """Store what the event means to the sagas, in the current unit of work if there is one; run nothing.

        Args:
            place: Where a follower has found the event, if it hands in all of its log, in order.

        Returns:
            Ids of the sagas that have steps or commands to run now; give them to `run_in_background` after the commit.
        """
        to_run = []
        for saga_class, starting, continuing in self._routes:
            starts = starting.wants(type(event))
            if starts or continuing.wants(type(event)):
                saga_id = await ProcessStep(self, saga_class, self._bus).deliver(event, starts=starts, place=place)
                if saga_id is not None:
                    to_run.append(saga_id)
        return to_run

    def run_in_background(self, saga_ids: list[str]) -> None:
        """Run stored sagas, each in a task of its own."""
        for saga_id in saga_ids:
            self._spawn(saga_id)

    def wanted_events(self) -> tuple[type[Any], ...]:
        """Return the event classes that start or continue a registered saga."""
        found = [cls for _, starting, continuing in self._routes for cls in (*starting.types, *continuing.types)]
        return tuple(dict.fromkeys(found))

    def follower(self, name: str = "sagas") -> SagaFollower:
        """Return a projection that feeds this manager from the log; register it with a `ProjectionManager`.

        New sagas and the follower's checkpoint commit together, so each event takes effect exactly once where the
        sagas are kept in the event store's database.
        """
        return SagaFollower(self, name)


SagaManagerProtocol = SagaManager
"""The name that programs written for earlier releases import from this module."""
