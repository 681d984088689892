"""Replaying stored events onto an aggregate."""

from __future__ import annotations

from collections.abc import Sequence
from operator import length_hint
from typing import Any

from lexigram.events.aggregates.factory import bypasses_constructor
from lexigram.events.aggregates.handlers import resolve_handler
from lexigram.events.exceptions import EventLoadError


def replay(aggregate: Any, events: Sequence[Any]) -> int:
    """Run the handler of every event in order and return the version reached.

    Events that carry versions must continue the aggregate's without a gap; two comparisons check that, because a
    store returns a stream in order. Nothing is emitted and no invariant is checked: these things have happened.

    Raises:
        EventLoadError: LEX_ERR_EVT_011, with stream, version and event type; the aggregate is half replayed and must
            not be used.
    """
    start: int = aggregate._committed_version
    _check_versions(aggregate, events, start)
    table = aggregate._handler_table
    remaining = iter(events)
    event_type: type[Any] | None = None
    handler: Any = None
    aggregate._handling = True
    try:
        for event in remaining:
            # Events of one type come in runs; asking the table only when the type changes halves the loop's own cost.
            if type(event) is not event_type:
                event_type = type(event)
                handler = table.get(event_type) or resolve_handler(type(aggregate), event_type)
            handler(aggregate, event)
    except Exception as error:
        failed = len(events) - length_hint(remaining) - 1
        raise _load_error(aggregate, events[failed], start + failed + 1, error) from error
    finally:
        aggregate._handling = False
    return start + len(events)


def _check_versions(aggregate: Any, events: Sequence[Any], start: int) -> None:
    first = getattr(events[0], "version", 0) or 0
    last = getattr(events[-1], "version", 0) or 0
    if first and (first != start + 1 or (last and last != start + len(events))):
        stream = str(aggregate.id)
        raise EventLoadError(
            f"stream {stream!r} does not continue after version {start}: {len(events)} events with versions "
            f"{first} to {last}; the events between are gone and no snapshot covers them",
            details={"stream_id": stream, "version": start + 1, "event_type": type(events[0]).__name__},
        )


def _load_error(aggregate: Any, event: Any, version: int, error: Exception) -> EventLoadError:
    stream, event_type = str(aggregate.id), getattr(event, "event_type", None) or type(event).__name__
    name = type(aggregate).__name__
    unset = isinstance(error, AttributeError) and error.obj is aggregate and bypasses_constructor(type(aggregate))
    hint = f"; {name}.__init__ needs more than an id and did not run: give the repository a factory=" if unset else ""
    return EventLoadError(
        f"cannot replay {event_type} (version {version} of stream {stream!r}) onto {name}: "
        f"{type(error).__name__}: {error}{hint}",
        details={"stream_id": stream, "version": version, "event_type": event_type},
        cause=error,
    )
