"""`EventsModule`: this package as a module of an application. Source: spec/api-reference.md, spec/architecture.md."""

from __future__ import annotations

from typing import Any

from lexigram.di.module import DynamicModule, Module, module
from lexigram.events.config import EventsConfig
from lexigram.events.di.arguments import as_config, as_module_names
from lexigram.events.di.exports import EXPORTS
from lexigram.events.di.provider import EventsProvider
from lexigram.events.di.scope import ScopedHandlersProvider
from lexigram.events.types import EventStoreBackend

__all__ = ["EventsModule"]


@module(providers=[EventsProvider], exports=list(EXPORTS), is_global=True)
class EventsModule(Module):
    """Commands, queries, events, event store, projections and sagas for an application.

    The class itself is a module too, the same as `configure()`. What the methods return may be booted any number of times, one after the other or at the same time: every boot makes
    stores, buses and managers of its own.
    """

    @classmethod
    def configure(
        cls, config: EventsConfig | dict[str, Any] | None = None, handler_modules: list[str] | None = None
    ) -> DynamicModule:
        """Return the module for the root of an application.

        Args:
            config: Taken as it is. None: section `events` of `application.yaml`, overridden by `LEX_EVENTS__…`.
            handler_modules: Modules and packages that are imported and searched for handlers, beside the decorated
                handlers of all modules that are imported when the application boots.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. A setting or a module name is not acceptable.
        """
        # A class, not an instance: the framework then makes a new provider for every boot.
        provider = EventsProvider.bound(config=as_config(config), handler_modules=as_module_names(handler_modules))
        return DynamicModule(module=cls, providers=[provider], exports=list(EXPORTS), is_global=True)

    @classmethod
    def scope(cls, *handlers: Any, **kwargs: Any) -> DynamicModule:
        """Return a module with the handlers of one feature; the graph must also have `configure()` or `stub()`.

        Args:
            *handlers: Handler classes and decorated functions, projections and sagas. A class is routed by its
                decorator, else by its type argument, else by the annotation of `handle`.
            **kwargs: `imports` and `exports` of the module.

        Raises:
            EventValidationError: LEX_ERR_EVT_024. Something is no handler.
        """
        token = type(f"_{cls.__name__}Scope", (cls,), {"__lexigram_scope_of__": cls})
        return DynamicModule(
            module=token,
            providers=[ScopedHandlersProvider.bound(handlers)],
            imports=list(kwargs.get("imports", [])),
            exports=list(kwargs.get("exports", [])),
        )

    @classmethod
    def stub(cls, config: EventsConfig | dict[str, Any] | None = None) -> DynamicModule:
        """Return the module for tests: everything in memory, independent of files and environment.

        Args:
            config: Settings other than the backends.
        """
        settings = as_config(config) or EventsConfig()
        memory = settings.model_copy(update={"event_store_backend": EventStoreBackend.MEMORY})
        memory.event_bus = memory.event_bus.model_copy(update={"backend": "memory"})
        memory.rabbitmq = memory.kafka = memory.azure_servicebus = None
        return cls.configure(memory)
