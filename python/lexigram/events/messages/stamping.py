"""How a store marks events as its own: once, in place, on success. Source: semantics of event stores, section 2."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import _core
from lexigram.events.exceptions import EventValidationError

E = TypeVar("E", bound=ContractEvent)


def prepare(event: E) -> E:
    """Return the event a store may stamp: a fresh event of ours itself, everything else as a copy.

    Args:
        event: Any instance of the framework's `DomainEvent`.

    Raises:
        EventValidationError: (LEX_ERR_EVT_024) not an event.
    """
    stamped = _core.is_stamped(event)
    if stamped is False:
        return event
    if stamped:
        return _core.copy_message(event, {"sequence_number": None})  # type: ignore[no-any-return]
    if not isinstance(event, ContractEvent):
        raise EventValidationError(f"events must be domain events, not {type(event).__qualname__}", field="events")
    fresh = copy.copy(event)
    object.__setattr__(fresh, "sequence_number", None)
    return fresh


def prepare_all(events: Iterable[E]) -> list[E]:
    """Return events that a store may stamp, as `prepare` does, in order."""
    is_stamped = _core.is_stamped
    return [event if is_stamped(event) is False else prepare(event) for event in events]


def stamp(event: ContractEvent, version: int, sequence_number: int) -> None:
    """Mark an event that `prepare` returned as stored.

    Args:
        event: The event; changed in place.
        version: Version within its stream, from 1.
        sequence_number: Global position, from 1.
    """
    stamp_all((event,), version - 1, sequence_number - 1)


def stamp_all(events: Iterable[ContractEvent], version: int, sequence_number: int) -> None:
    """Mark events that `prepare` returned as stored one after the other.

    Args:
        events: The events; changed in place.
        version: Version of the event before the first of them.
        sequence_number: Global position of the event before the first of them.
    """
    stamp_event = _core.stamp_event
    for event in events:
        version += 1
        sequence_number += 1
        try:
            stamp_event(event, version, sequence_number)
        except TypeError:  # an event of the framework's own class
            object.__setattr__(event, "version", version)
            object.__setattr__(event, "sequence_number", sequence_number)


rebuild: Callable[[type[E], dict[str, Any], Mapping[str, Any] | None], E] = _core.rebuild
"""Return an event of a class of ours from field and metadata values by name, and attributes that are not fields.

Runs neither `__init__` nor `__post_init__`, and inherits nothing from the message being handled.
"""
