"""Which method handles which event: `_handle_<snake_case of the event class>`, resolved once per aggregate class."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events.exceptions import EventValidationError, HandlerNotFoundError
from lexigram.events.messages.callables import check_runs
from lexigram.events.messages.event import DomainEvent, Event
from lexigram.events.messages.unknown import UnknownEvent

Handler = Callable[[Any, Any], Any]

_WORD_AFTER_ACRONYM = re.compile(r"([A-Z]+)([A-Z][a-z])")
_WORD_START = re.compile(r"([a-z0-9])([A-Z])")
_BASES = frozenset({ContractEvent, DomainEvent, Event, object})


def snake_case(name: str) -> str:
    """Return `ItemAdded` as `item_added` and `HTTPCallFailed` as `http_call_failed`."""
    name = _WORD_AFTER_ACRONYM.sub(r"\1_\2", name)
    return _WORD_START.sub(r"\1_\2", name).replace("-", "_").lower()


def handler_names(event_name: str) -> tuple[str, ...]:
    """Return the method names that handle an event of this name, the preferred one first."""
    word = snake_case(event_name.rpartition(".")[2])
    short = word.removesuffix("_event")
    names = (f"_handle_{short}",) if short else ()
    return names if short == word else (*names, f"_handle_{word}")


def resolve_handler(aggregate: type[Any], event_type: type[Any]) -> Handler:
    """Find the handler of `event_type` and remember it in the class's table.

    An event without a handler of its own is handled by the handler of the nearest base class that has one.
    Ad-hoc `Event(event_type="...")` objects are told apart by their `event_type`.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, not an event class, or the handler waits or yields.
        HandlerNotFoundError: LEX_ERR_EVT_002, no handler, and `allow_unhandled_events` is not set.
    """
    if not issubclass(event_type, ContractEvent):
        raise EventValidationError(
            f"{aggregate.__name__} can apply events only, not {event_type.__name__}; derive it from DomainEvent",
            field="event",
        )
    if issubclass(event_type, UnknownEvent):
        raise HandlerNotFoundError(
            "the event's class is not registered: import the module that defines it, or give it its former name "
            "with @event_type",
            handler_type="aggregate",
            message_type=event_type.__name__,
        )
    handler: Handler | None = _handle_by_event_type if event_type is Event else None
    for base in event_type.__mro__:
        if handler is None and base not in _BASES and isinstance(base, type):
            handler = _find(aggregate, base.__name__)
    if handler is None:
        handler = _no_handler(aggregate, event_type.__name__)
    aggregate._handler_table[event_type] = handler
    return handler


def _find(aggregate: type[Any], event_name: str) -> Handler | None:
    for name in handler_names(event_name):
        found = getattr(aggregate, name, None)
        if found is None:
            continue
        if inspect.iscoroutinefunction(found):
            raise EventValidationError(
                f"{aggregate.__name__}.{name} is a coroutine function; event handlers change state and never wait",
                field=name,
            )
        check_runs(found, f"{aggregate.__name__}.{name}", name)
        if inspect.isfunction(inspect.getattr_static(aggregate, name)):
            return found  # type: ignore[no-any-return]
        return partial(_call_by_name, name)
    return None


def _call_by_name(name: str, self: Any, event: Any) -> Any:
    return getattr(self, name)(event)


def _no_handler(aggregate: type[Any], event_name: str) -> Handler:
    if aggregate.allow_unhandled_events:
        return _ignore
    raise HandlerNotFoundError(
        f"{aggregate.__name__} does not handle {event_name}: define {handler_names(event_name)[0]}(self, event), "
        "or set allow_unhandled_events = True on the class",
        handler_type="aggregate",
        message_type=event_name,
    )


def _handle_by_event_type(self: Any, event: Any) -> None:
    aggregate = type(self)
    key = event.event_type
    handler = aggregate._handler_table.get(key)
    if handler is None:
        handler = _find(aggregate, key) or _no_handler(aggregate, key)
        aggregate._handler_table[key] = handler
    handler(self, event)


def _ignore(self: Any, event: Any) -> None:
    """Handle an event of a class that opted out of handling it."""
