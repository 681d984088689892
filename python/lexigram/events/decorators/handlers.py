"""Decorators that mark functions and classes as handlers. They return what they decorate; only `@projection` and `@saga`
change it: the name and timeout they are given become the class's own.

A decorated handler is only noted here; `HandlerRegistry.load_decorators` and `EventsModule.configure` register it with
the buses. Source: spec/api-reference.md, `command_handler` and following.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from lexigram.events.constants import HandlerType
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.callables import check_runs
from lexigram.events.messages.kinds import check_kind, check_priority

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_ATTRIBUTE = "__lexigram_events_handler__"
_known: dict[tuple[str, ...], HandlerInfo] = {}


@dataclass
class HandlerInfo:
    """What a decorator noted about a handler."""

    handler_type: str
    message_types: list[type]
    handler: Callable[..., Any]
    name: str
    module: str
    is_async: bool
    metadata: dict[str, Any] = field(default_factory=dict)


def command_handler(
    command_type: type, *, name: str | None = None, **metadata: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark the handler of a command class; there is exactly one per class.

    Args:
        command_type: The command class.
        name: Shown instead of the function's name.
        metadata: Kept with the handler.
    """
    return _marks(HandlerType.COMMAND, [command_type], name, metadata)


def query_handler(
    query_type: type,
    *,
    name: str | None = None,
    cacheable: bool = False,
    cache_ttl: int | None = None,
    **metadata: Any,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark the handler of a query class; there is exactly one per class.

    Args:
        query_type: The query class.
        name: Shown instead of the function's name.
        cacheable: Keep results per query content, user and tenant, or per `cache_key` if the query has one; `skip_cache` on
            a query asks the handler and renews what is kept. Only what comes through the query bus is cached.
        cache_ttl: Seconds a result is kept; 300 by default.
        metadata: Kept with the handler.
    """
    if cache_ttl is not None and cache_ttl <= 0:
        raise EventValidationError(f"cache_ttl must be above 0 seconds, not {cache_ttl}", field="cache_ttl")
    return _marks(HandlerType.QUERY, [query_type], name, {**metadata, "cacheable": cacheable, "cache_ttl": cache_ttl})


def event_handler(
    event_type: type, *, name: str | None = None, priority: int = 0, **metadata: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a handler of an event class and its subclasses.

    Args:
        event_type: The event class.
        name: Shown instead of the function's name.
        priority: Higher ones are started first.
        metadata: Kept with the handler.
    """
    check_priority(priority)
    return _marks(HandlerType.EVENT, [event_type], name, {**metadata, "priority": priority})


def multi_event_handler(
    *event_types: type, name: str | None = None, priority: int = 0, **metadata: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a handler of several event classes."""
    if not event_types:
        raise EventValidationError("multi_event_handler needs at least one event class", field="event_types")
    check_priority(priority)
    return _marks(HandlerType.EVENT, list(event_types), name, {**metadata, "priority": priority})


def projection(*, name: str | None = None, **metadata: Any) -> Callable[[type[T]], type[T]]:
    """Mark a projection class; `name` becomes its name, which its position is stored under."""
    return _marks(HandlerType.PROJECTION, [], name, metadata, name=name)


def saga(*, name: str | None = None, timeout: float | None = None, **metadata: Any) -> Callable[[type[T]], type[T]]:
    """Mark a saga class; `name` becomes its name, `timeout` limits the whole saga, in seconds."""
    return _marks(HandlerType.SAGA, [], name, {**metadata, "timeout": timeout}, name=name, timeout=timeout)


def get_handler_info(handler: Callable[..., Any]) -> HandlerInfo | None:
    """Return what the outermost decorator noted about `handler` itself (a subclass has no part in it), or None."""
    info = getattr(handler, "__dict__", {}).get(_ATTRIBUTE)
    return info if isinstance(info, HandlerInfo) else None


def set_handler_info(handler: Callable[..., Any], info: HandlerInfo) -> None:
    """Note `info` about `handler`; of a function or class defined again (reloaded), the later one counts."""
    if not hasattr(handler, "__dict__"):
        raise EventValidationError(f"{handler!r} cannot be decorated", field="handler")
    setattr(handler, _ATTRIBUTE, info)
    place = handler.__qualname__ if "<locals>" not in handler.__qualname__ else f"{handler.__qualname__}@{id(handler)}"
    messages = (f"{known.__module__}.{known.__qualname__}" for known in info.message_types)
    _known[info.handler_type, info.module, place, *messages] = info


def get_all_handlers(handler_type: str | None = None) -> list[HandlerInfo]:
    """Return everything decorated so far, in order, optionally of one `HandlerType`."""
    return [info for info in _known.values() if handler_type is None or info.handler_type == handler_type]


def clear_handlers(handler_type: str | None = None) -> None:
    """Forget what was decorated, optionally of one `HandlerType`; the handlers themselves stay usable."""
    for key in [key for key in _known if handler_type is None or key[0] == handler_type]:
        del _known[key]


def _marks(
    handler_type: HandlerType,
    message_types: list[type],
    shown_name: str | None,
    metadata: dict[str, Any],
    **attributes: Any,
) -> Callable[[Any], Any]:
    """Return the decorator that notes one handler and sets the attributes that are given."""
    for message_type in message_types:
        if not inspect.isclass(message_type):
            raise EventValidationError(
                f"{message_type!r} is not a message class; write @{handler_type}_handler(MessageClass)",
                field=f"{handler_type}_type",
            )
        check_kind(message_type, handler_type.value, f"{handler_type}_type")

    def decorate(handler: Any) -> Any:
        if not callable(handler) or not hasattr(handler, "__qualname__"):
            raise EventValidationError(f"{handler!r} is neither a function nor a class", field="handler")
        _refuse_method(handler)
        target = getattr(handler, "handle", handler) if inspect.isclass(handler) else handler
        if handler_type in (HandlerType.COMMAND, HandlerType.EVENT):
            check_runs(target, handler.__qualname__, "handler")
        info = HandlerInfo(
            handler_type=handler_type.value,
            message_types=message_types,
            handler=handler,
            name=shown_name or handler.__qualname__,
            module=handler.__module__,
            is_async=inspect.iscoroutinefunction(target),
            metadata=dict(metadata),
        )
        for attribute, value in attributes.items():
            if value is not None:
                setattr(handler, attribute, value)
        set_handler_info(handler, info)
        return handler

    return decorate


def _refuse_method(handler: Any) -> None:
    """Raise for a method: nobody would know which instance to call it on."""
    if inspect.isfunction(handler) and next(iter(inspect.signature(handler).parameters), "") == "self":
        raise EventValidationError(
            f"{handler.__qualname__} is a method; decorate its class (with a method handle) or a function",
            field="handler",
        )
