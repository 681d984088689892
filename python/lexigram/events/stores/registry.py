"""Event stores by the name of their backend. Source: spec/reference-surface.md."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from lexigram.events.exceptions import EventValidationError

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerResolverProtocol
    from lexigram.events.config import EventsConfig
    from lexigram.events.stores.base import AbstractEventStore

    StoreFactory = Callable[
        [EventsConfig, ContainerResolverProtocol | None], AbstractEventStore | Awaitable[AbstractEventStore]
    ]

__all__ = ["EventStoreRegistry"]


class EventStoreRegistry:
    """Creates the event store of a backend. Stores come back unconnected."""

    def __init__(self) -> None:
        self._factories: dict[str, StoreFactory] = {}

    def register(self, key: str, factory: StoreFactory) -> None:
        """Add a backend, or replace one.

        Args:
            key: Name of the backend, as in `event_store_backend`.
            factory: Called with the configuration and the container (or None); may be a coroutine function.
        """
        self._factories[str(key)] = factory

    def keys(self) -> list[str]:
        """Return the names of all backends in order of registration."""
        return list(self._factories)

    async def create(
        self, key: str, config: EventsConfig, container: ContainerResolverProtocol | None = None
    ) -> AbstractEventStore:
        """Return a new store of exactly this backend, not yet connected.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. No such backend; another one is never used instead.
        """
        factory = self._factories.get(str(key))
        if factory is None:
            raise EventValidationError(
                f"event_store_backend {str(key)!r} is not available in this release; available: {', '.join(self.keys())}",
                field="event_store_backend",
            )
        store = factory(config, container)
        return await store if inspect.isawaitable(store) else store

    @classmethod
    def with_defaults(cls) -> EventStoreRegistry:
        """Return a registry of all backends of this release."""
        from lexigram.events.stores.registry_factories import FACTORIES

        registry = cls()
        for key, factory in FACTORIES.items():
            registry.register(key, factory)
        return registry
