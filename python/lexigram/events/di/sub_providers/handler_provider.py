"""Finds handlers, projections and sagas and registers them. Source: spec/architecture.md, "EventsProvider"."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lexigram.events.decorators.handlers import get_all_handlers, get_handler_info
from lexigram.events.di.injection import Injector
from lexigram.events.exceptions import EventValidationError
from lexigram.events.handlers._routing import routes_of
from lexigram.events.handlers.registry import HandlerRegistry

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerRegistrarProtocol, ContainerResolverProtocol
    from lexigram.events.config import EventsConfig
    from lexigram.events.di.sub_providers.manager_provider import ManagerSubProvider

__all__ = ["HandlerSubProvider", "checked_handlers"]


class HandlerSubProvider:
    """Registers decorated handlers of all imported modules, and what the given modules define.

    Args:
        config: Whether projections and sagas are switched on.
        handler_modules: Modules and packages to import and search.
        command_bus: Gets the command handlers.
        query_bus: Gets the query handlers.
        event_bus: Gets the event handlers.
        managers: Gets the projections and sagas.
    """

    def __init__(
        self,
        config: EventsConfig,
        handler_modules: list[str],
        command_bus: Any = None,
        query_bus: Any = None,
        event_bus: Any = None,
        *,
        managers: ManagerSubProvider | None = None,
    ) -> None:
        self._config = config
        self._modules = list(handler_modules)
        self._buses = {"command_bus": command_bus, "query_bus": query_bus, "event_bus": event_bus}
        self._managers = managers
        self._injector: Injector | None = None
        self._known: set[Any] = set()
        self.registry = HandlerRegistry()

    def register(self, container: ContainerRegistrarProtocol) -> None:
        """Bind the registry, and this object so that feature modules can add their handlers."""
        container.singleton(HandlerRegistry, self.registry)
        container.singleton(HandlerSubProvider, self)

    async def setup(self, container: ContainerResolverProtocol) -> None:
        """Import the modules, collect all handlers, register each one once.

        Raises:
            DuplicateHandlerError: LEX_ERR_EVT_003. Two handlers for one command or query.
            EventValidationError: LEX_ERR_EVT_024. A module cannot be found, or a handler cannot be used.
        """
        self._injector = Injector(container)
        for module in self._modules:
            self.registry.discover(module)
        self.registry.load_decorators()
        self._register_with_buses()
        for kind in ("projection", "saga"):
            for info in get_all_handlers(kind):
                await self._add_to_managers(info.handler, kind)

    async def add(self, handlers: Iterable[Any]) -> None:
        """Register further handlers, projections and sagas; those known already are left alone."""
        for handler in handlers:
            kind = _managed_kind(handler)
            if kind is None:
                self.registry.register(handler)
            else:
                await self._add_to_managers(handler, kind)
        self._register_with_buses()

    def _register_with_buses(self) -> None:
        factory = None if self._injector is None else self._injector.handler
        self.registry.register_with_buses(**self._buses, handler_factory=factory)

    async def _add_to_managers(self, target: Any, kind: str) -> None:
        """Hand a projection or saga to its manager, once."""
        if self._managers is None or target in self._known:
            return
        self._known.add(target)
        if kind == "saga" and self._config.saga.enabled:
            self._managers.add_saga(target)
        elif kind == "projection" and self._config.projection.enabled:
            await self._managers.add_projection(target)


def checked_handlers(handlers: Iterable[Any]) -> tuple[Any, ...]:
    """Return the handlers if each of them says what it handles.

    Raises:
        EventValidationError: LEX_ERR_EVT_024. Names what does not, and what to do about it.
    """
    found = tuple(handlers)
    for handler in found:
        if _managed_kind(handler) is not None or get_handler_info(handler) is not None:
            continue
        if not inspect.isclass(handler):
            raise EventValidationError(
                f"{handler!r} is no handler; give a handler class or a function decorated with @command_handler, "
                "@query_handler or @event_handler",
                field="handlers",
            )
        if inspect.isabstract(handler):
            missing = ", ".join(sorted(getattr(handler, "__abstractmethods__", ())))
            raise EventValidationError(
                f"{handler.__module__}.{handler.__qualname__} cannot be built; it does not implement {missing}",
                field="handlers",
            )
        routes_of(handler)
    return found


def _managed_kind(handler: Any) -> str | None:
    """Return "projection" or "saga" for what the managers run, None for a handler of a bus."""
    from lexigram.events.projections.base import InlineProjection, ProjectionProtocol
    from lexigram.events.sagas.base import SagaBase

    info = get_handler_info(handler)
    if info is not None:
        kind = str(info.handler_type)
        return kind if kind in ("projection", "saga") else None
    if isinstance(handler, type) and issubclass(handler, SagaBase):
        return "saga"
    if isinstance(handler, type) and (
        issubclass(handler, ProjectionProtocol | InlineProjection) or not hasattr(handler, "handle")
    ):
        return "projection" if hasattr(handler, "apply") or hasattr(handler, "handle_event") else None
    return None
