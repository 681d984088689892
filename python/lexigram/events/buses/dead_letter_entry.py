"""What is kept of an event that a handler could not handle. Source: spec/reference-surface.md."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from lexigram.contracts.domain.events import DomainEvent
from lexigram.events.messages.clock import now
from lexigram.events.messages.texts import storable, storable_key, words_of

Lane = tuple[str, str]
"""Handler name and aggregate id."""


def lane_of(event: DomainEvent, handler_name: str) -> Lane | None:
    """Return the lane of an event for a handler; None for an event without aggregate id."""
    return None if event.aggregate_id is None else (handler_name, storable_key(str(event.aggregate_id)))


@dataclass
class DeadLetterEntry:
    """One event that one handler has not handled.

    Args:
        event: The event itself; durable stores keep it through the codec, so its class and types survive. None where
            they cannot: such an entry is replayed once `edit` has given it an event that can be stored.
        event_data: The event as a readable dictionary, for display.
        error: Its words; what a database could not store is escaped.
        error_type: Class name of the last error; empty while the entry only waits.
        attempts: How often the handler was called, replays included.
        aggregate_id: The lane's aggregate, or None for an event without one.
        waiting: True while the entry is parked behind an earlier one and has never been tried.
        position: Order of arrival from 1, assigned by the store; 0 before it is saved.
    """

    entry_id: str = field(default_factory=lambda: str(uuid4()))
    event_type: str = ""
    event_data: dict[str, Any] = field(default_factory=dict, repr=False)
    handler_name: str = ""
    error: str = ""
    failed_at: datetime = field(default_factory=now)
    attempts: int = 0
    replayed: bool = False
    replayed_at: datetime | None = None
    event: DomainEvent | None = field(default=None, repr=False)
    error_type: str = ""
    aggregate_id: str | None = None
    waiting: bool = False
    position: int = 0

    def __post_init__(self) -> None:
        self.error = storable(self.error)

    def without_event(self) -> DeadLetterEntry:
        """Return a copy for stores that cannot keep the event; its dictionary shows what they cannot keep as text."""
        data = {name: _plain(value) for name, value in self.event_data.items()}
        return replace(self, event=None, event_data=data)

    @property
    def lane(self) -> Lane | None:
        """Handler and aggregate whose order this entry keeps; None for an event without aggregate id."""
        return None if self.aggregate_id is None else (self.handler_name, self.aggregate_id)

    @classmethod
    def of(
        cls, event: DomainEvent, handler_name: str, error: BaseException | None = None, attempts: int = 0
    ) -> DeadLetterEntry:
        """Build the entry for `event`; without `error` it waits behind an earlier entry of its lane."""
        lane = lane_of(event, handler_name)
        return cls(
            event_type=storable_key(event.event_type or type(event).__name__),
            event_data=_displayed(event),
            handler_name=handler_name,
            error="" if error is None else words_of(error),
            error_type="" if error is None else type(error).__name__,
            attempts=attempts,
            event=event,
            aggregate_id=None if lane is None else lane[1],
            waiting=error is None,
        )


def _displayed(event: DomainEvent) -> dict[str, Any]:
    """Return an event as a dictionary for display; the event itself is kept beside it."""
    try:
        return event.to_dict()
    except Exception:  # it has a value that cannot be stored
        return {f.name: _plain(getattr(event, f.name, None)) for f in fields(event)}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else storable(repr(value))


@dataclass(frozen=True)
class DeadLetterFilter:
    """Which entries are meant; None means any. `failed_before` is exclusive, `up_to` (a position) is not."""

    entry_id: str | None = None
    event_type: str | None = None
    handler_name: str | None = None
    aggregate_id: str | None = None
    replayed: bool | None = None
    failed_before: datetime | None = None
    up_to: int | None = None

    def matches(self, entry: DeadLetterEntry) -> bool:
        """Return whether `entry` is meant."""
        return (
            self.entry_id in (None, entry.entry_id)
            and self.event_type in (None, entry.event_type)
            and self.handler_name in (None, entry.handler_name)
            and self.aggregate_id in (None, entry.aggregate_id)
            and self.replayed in (None, entry.replayed)
            and (self.failed_before is None or entry.failed_at < self.failed_before)
            and (self.up_to is None or entry.position <= self.up_to)
        )


@dataclass(frozen=True)
class ReplayReport:
    """What a bulk replay did, or in a dry run would look at.

    Args:
        matched: Pending entries that match, beyond `limit` too.
        replayed: Handled successfully by this call.
        failed: Tried again and failed again; they keep their place.
        blocked: Not tried, because an earlier entry of their lane is still pending.
        position: Position of the last entry looked at; pass it as `after` to go on behind it.
        finished: True when no matching entry lies behind `position`.
    """

    matched: int
    replayed: int = 0
    failed: int = 0
    blocked: int = 0
    position: int = 0
    finished: bool = False


@dataclass(frozen=True)
class DeadLetterGroup:
    """Entries that failed in the same way.

    Args:
        error_type: Class name of the error; empty for entries that only wait behind others.
        count: How many there are.
        first_seen: When the first of them failed last.
        last_seen: When the last of them failed.
        sample: One of them, the first by position.
    """

    error_type: str
    handler_name: str
    event_type: str
    count: int
    first_seen: datetime
    last_seen: datetime
    sample: DeadLetterEntry | None = None
