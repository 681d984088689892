"""How a store marks events as its own: once, in place, on success. Source: semantics of event stores, section 2."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
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


def stamp(event: ContractEvent, version: int, sequence_number: int) -> None:
    """Mark an event that `prepare` returned as stored.

    Args:
        event: The event; changed in place.
        version: Version within its stream, from 1.
        sequence_number: Global position, from 1.
    """
    if _core.is_stamped(event) is not None:
        _core.stamp_event(event, version, sequence_number)
        return
    object.__setattr__(event, "version", version)
    object.__setattr__(event, "sequence_number", sequence_number)


rebuild: Callable[[type[E], dict[str, Any], Mapping[str, Any] | None], E] = _core.rebuild
"""Return an event of a class of ours from field and metadata values by name, and attributes that are not fields.

Runs neither `__init__` nor `__post_init__`, and inherits nothing from the message being handled.
"""
