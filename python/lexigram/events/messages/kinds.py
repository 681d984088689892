"""Commands, queries and events are handled differently; who mixes them up is told so where it happens."""

from __future__ import annotations

import inspect
from typing import Final

from lexigram.contracts.domain.events import DomainEvent
from lexigram.contracts.events.messages import Command, Query
from lexigram.events.exceptions import EventValidationError

_KINDS: Final = {"command": Command, "query": Query, "event": DomainEvent}


def check_kind(message_type: object, kind: str, field: str) -> None:
    """Check that messages of a class may be handled as `kind`; a class outside of the three kinds may.

    Args:
        kind: "command", "query" or "event".
        field: Argument that holds the class.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, not a class, or one of another kind.
    """
    if not inspect.isclass(message_type):
        raise EventValidationError(f"{message_type!r} is not {_with_article(kind)} class", field=field)
    if issubclass(message_type, _KINDS[kind]):
        return
    for other, base in _KINDS.items():
        if issubclass(message_type, base):
            raise EventValidationError(
                f"{message_type.__qualname__} is a class of {_plural(other)}, which no {kind} handler ever gets; "
                f"use the {other} bus, @{other}_handler or {_with_article(other)} handler class",
                field=field,
            )


def check_priority(priority: object) -> None:
    """Check the priority of an event's handler.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, not a number.
    """
    if not isinstance(priority, int | float):
        raise EventValidationError(f"priority must be a number, not {priority!r}", field="priority")


def _plural(kind: str) -> str:
    return "queries" if kind == "query" else f"{kind}s"


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind == "event" else f"a {kind}"
