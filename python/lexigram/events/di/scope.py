"""The provider behind `EventsModule.scope(...)`."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from lexigram.contracts.core import ProviderPriority
from lexigram.di.provider import Provider
from lexigram.events.di.sub_providers.handler_provider import HandlerSubProvider, checked_handlers

__all__ = ["ScopedHandlersProvider"]

_numbers = itertools.count(1)


class ScopedHandlersProvider(Provider):
    """Adds the handlers of one feature to the buses and managers of the application."""

    priority = ProviderPriority.APPLICATION
    dependencies = ("events",)
    handlers: ClassVar[tuple[Any, ...]] = ()

    @classmethod
    def bound(cls, handlers: tuple[Any, ...]) -> type[ScopedHandlersProvider]:
        """Return a provider class for these handlers with a name of its own.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. Something is no handler.
        """
        attributes = {"handlers": checked_handlers(handlers), "name": f"events-scope-{next(_numbers)}"}
        return type(cls.__name__, (cls,), attributes)

    async def boot(self, container: Any) -> None:
        """Register the handlers; if the events module is disabled there is nothing to register them with."""
        if container.has(HandlerSubProvider):
            await (await container.resolve(HandlerSubProvider)).add(self.handlers)
