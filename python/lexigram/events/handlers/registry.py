"""Collects handlers and registers them with the buses. Source: spec/api-reference.md, `HandlerRegistry`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from lexigram.contracts.exceptions.events import DuplicateHandlerError
from lexigram.events.buses._handler import HandlerFactory, LazyHandler, as_call, handle_of, handler_name
from lexigram.events.buses.base import Bus
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.constants import HandlerType
from lexigram.events.decorators.handlers import HandlerInfo, clear_handlers, get_all_handlers, get_handler_info
from lexigram.events.exceptions import EventValidationError
from lexigram.events.handlers._modules import import_modules
from lexigram.events.handlers._routing import is_handler_class, routes_of
from lexigram.events.handlers.query_cache import CachedQueryHandler
from lexigram.events.messages.kinds import check_kind

_registries: WeakSet[HandlerRegistry] = WeakSet()
_BUS_HANDLERS = (HandlerType.COMMAND, HandlerType.QUERY, HandlerType.EVENT)


class HandlerRegistry:
    """Knows which handler handles which message; a handler found twice is registered once."""

    def __init__(self) -> None:
        self._commands: dict[type, Any] = {}
        self._queries: dict[type, Any] = {}
        self._events: dict[type, list[Any]] = {}
        self._priorities: dict[tuple[type, Any], int] = {}
        self._prepared: dict[Any, Any] = {}
        _registries.add(self)

    def register_command_handler(self, command_type: type, handler_type: Any) -> None:
        """Note the handler of a command class.

        Raises:
            DuplicateHandlerError: Another one is known (LEX_ERR_EVT_003).
        """
        _note_only(self._commands, command_type, handler_type, "command")

    def register_query_handler(self, query_type: type, handler_type: Any) -> None:
        """Note the handler of a query class.

        Raises:
            DuplicateHandlerError: Another one is known (LEX_ERR_EVT_003).
        """
        _note_only(self._queries, query_type, handler_type, "query")

    def register_event_handler(self, event_type: type, handler_type: Any, *, priority: int = 0) -> None:
        """Note a handler of an event class; higher priorities are started first."""
        check_kind(event_type, "event", "event_type")
        known = self._events.setdefault(event_type, [])
        known[:] = [other for other in known if not _is_reloaded(other, handler_type)]
        if handler_type not in known:
            known.append(handler_type)
        self._priorities[event_type, handler_type] = priority

    def register(self, handler: Any) -> None:
        """Note a handler by what it says itself: its decorator, its type argument, or the annotation of `handle`.

        Args:
            handler: A decorated function, or a handler class or instance.

        Raises:
            EventValidationError: It does not say what it handles.
            DuplicateHandlerError: Another handler is known for its command or query.
        """
        info = get_handler_info(handler)
        if info is not None and info.message_types:
            self._note(HandlerType(info.handler_type), info.message_types, handler, info)
            return
        if not inspect.isclass(handler) and not callable(getattr(handler, "handle", None)):
            raise EventValidationError(
                f"{handler!r} does not say what it handles; decorate it or give a class with handle(message)",
                field="handler",
            )
        kind, messages = routes_of(handler if inspect.isclass(handler) else type(handler))
        self._note(kind, messages, handler, info)

    def load_decorators(self) -> None:
        """Note every handler decorated in the modules imported so far; projections and sagas are not handlers."""
        for info in get_all_handlers():
            self._load(info)

    def discover(self, module_path: str, recursive: bool = True) -> int:
        """Import a module or package and note the handlers defined there, decorated ones included.

        Args:
            module_path: For example "app.handlers".
            recursive: Search the modules inside a package, too.

        Returns:
            How many handlers these modules define.

        Raises:
            EventValidationError: There is no such module.
        """
        modules = import_modules(module_path, recursive)
        found: dict[Any, None] = {}
        for module in modules:
            for candidate in list(vars(module).values()):
                if getattr(candidate, "__module__", None) == module.__name__ and is_handler_class(candidate):
                    if get_handler_info(candidate) is None:
                        self.register(candidate)
                    found[candidate] = None
        names = {module.__name__ for module in modules}
        for info in get_all_handlers():
            if info.module in names and self._load(info):
                found[info.handler] = None
        return len(found)

    def register_with_buses(
        self,
        command_bus: Any = None,
        query_bus: Any = None,
        event_bus: Any = None,
        handler_factory: Callable[[Any], Any] | None = None,
    ) -> None:
        """Register everything noted so far; doing it again adds only what is new.

        Args:
            command_bus: Gets command handlers; needs `register(type, handler)`.
            query_bus: Gets query handlers; needs `register(type, handler)`.
            event_bus: Gets event handlers; needs `subscribe(type, handler)`.
            handler_factory: Called once per handler class, and per function with more parameters than the message, at
                its first message; returns the instance, or a function of the message alone. May be asynchronous.

        Raises:
            DuplicateHandlerError: A bus has another handler for a command or query.
        """
        if command_bus is not None:
            for command_type, handler in self._commands.items():
                _register(command_bus, command_type, self._prepare(handler, handler_factory))
        if query_bus is not None:
            for query_type, handler in self._queries.items():
                _register(query_bus, query_type, self._prepare(handler, handler_factory))
        if event_bus is not None:
            for event_type, handlers in self._events.items():
                for handler in handlers:
                    prepared = self._prepare(handler, handler_factory)
                    _subscribe(event_bus, event_type, prepared, self._priorities[event_type, handler])

    def register_with_container(self, container: Any) -> None:
        """Bind every handler class noted so far as a singleton, so that the container builds it with what it needs.

        Args:
            container: Needs `singleton(service, factory=…)` and `has(service)`; what it knows already stays.
        """
        noted = [
            *self._commands.values(),
            *self._queries.values(),
            *(h for list_ in self._events.values() for h in list_),
        ]
        for handler in dict.fromkeys(handler for handler in noted if inspect.isclass(handler)):
            if not container.has(handler):
                container.singleton(handler, factory=handler)

    def get_command_handlers(self) -> dict[type, Any]:
        """Return command class → handler."""
        return dict(self._commands)

    def get_query_handlers(self) -> dict[type, Any]:
        """Return query class → handler."""
        return dict(self._queries)

    def get_event_handlers(self) -> dict[type, list[Any]]:
        """Return event class → handlers."""
        return {event_type: list(handlers) for event_type, handlers in self._events.items()}

    def clear(self) -> None:
        """Forget everything noted; what is registered with buses stays there."""
        self._commands.clear()
        self._queries.clear()
        self._events.clear()
        self._priorities.clear()
        self._prepared.clear()

    def _load(self, info: HandlerInfo) -> bool:
        """Note one decorated handler under the messages of this decorator; return whether it is for a bus."""
        kind = HandlerType(info.handler_type)
        if kind not in _BUS_HANDLERS:
            return False
        self._note(kind, info.message_types, info.handler, info)
        return True

    def _note(self, kind: HandlerType, messages: list[type], handler: Any, info: HandlerInfo | None) -> None:
        """Note a handler under all its message classes."""
        for message_type in messages:
            if kind is HandlerType.COMMAND:
                self.register_command_handler(message_type, handler)
            elif kind is HandlerType.QUERY:
                self.register_query_handler(message_type, handler)
            else:
                priority = info.metadata.get("priority", 0) if info is not None else 0
                self.register_event_handler(message_type, handler, priority=priority)

    def _prepare(self, handler: Any, factory: HandlerFactory | None) -> Any:
        """Return what to register: one lazily built instance per class, however many messages it handles."""
        prepared = self._prepared.get(handler)
        if prepared is None:
            info = get_handler_info(handler)
            call = as_call(handler, factory)
            prepared = call if isinstance(call, LazyHandler) else handler
            if info is not None and info.metadata.get("cacheable", False):
                prepared = CachedQueryHandler(call, handler, info.metadata.get("cache_ttl"))
            self._prepared[handler] = prepared
        return prepared


def clear_handler_registry() -> None:
    """Forget what every registry and all decorators noted; for tests."""
    for registry in list(_registries):
        registry.clear()
    clear_handlers()


def _note_only(known: dict[type, Any], message_type: type, handler: Any, kind: str) -> None:
    """Note the one handler of a message class."""
    check_kind(message_type, kind, f"{kind}_type")
    other = known.get(message_type)
    if other is not None and other != handler and not _is_reloaded(other, handler):
        raise DuplicateHandlerError(
            f"{message_type.__qualname__} is handled by both {handler_name(other)} and {handler_name(handler)}",
            message_type=message_type.__qualname__,
            hint=f"A {kind} has exactly one handler; remove one of them",
        )
    known[message_type] = handler


def _is_reloaded(known: Any, handler: Any) -> bool:
    """Return whether both are the same definition, of which the module was executed again."""
    name = handler_name(handler)
    if known is handler or "<locals>" in name or type(known) is not type(handler):
        return False
    return hasattr(handler, "__qualname__") and handler_name(known) == name


def _register(bus: Any, message_type: type, handler: Any) -> None:
    """Register with a command or query bus, also with one that is not ours."""
    bus.register(message_type, handler if isinstance(bus, Bus) else as_call(handler))


def _subscribe(bus: Any, event_type: type, handler: Any, priority: int) -> None:
    """Subscribe with an event bus, also with one that only knows the framework's contract."""
    if isinstance(bus, EventBusImpl):
        bus.subscribe(event_type, handler, priority=priority)
    else:
        bus.subscribe(event_type, _WithHandle(handler) if handle_of(handler) is handler else handler)


class _WithHandle:
    """A handler function in the shape of the framework's EventHandlerProtocol."""

    def __init__(self, handler: Any) -> None:
        self._call = as_call(handler)
        self._handler = handler

    async def handle(self, event: Any) -> Any:
        """Handle the event."""
        return await self._call(event)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _WithHandle) and bool(other._handler == self._handler)

    def __hash__(self) -> int:
        return hash(self._handler)
