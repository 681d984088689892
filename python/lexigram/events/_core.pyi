"""The Rust core. Each name has one Python importer, named beside it; nothing else uses this module."""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, final

# Messages: `messages/base.py`, `messages/_compile.py`, `messages/stamping.py`, `messages/context.py`

class EventBase:
    """Memory layout of events; takes no part in typing."""

class MessageBase:
    """Memory layout of commands and queries; takes no part in typing."""

def address_event(
    event: object, aggregate_id: Any, aggregate_type: str | None, correlation_id: Any, causation_id: Any
) -> bool:
    """Fill in aggregate and causal ids where the event has none, in place; False if it is not an event of ours."""

def arm(cls: type) -> None:
    """Route the first construction of `cls` through its finalization."""

def compile(
    cls: type,
    fields: Any,
    metadata: Any,
    *,
    positional: Any,
    accepts_extra: bool,
    post_init: Any,
    event_type: Any,
    schema_version: Any,
    always_tracked: bool,
    abstract: str | None,
) -> None:
    """Lay out the fields of `cls` and store its plan; once per class, under the finalizer's lock."""

def copy_message(message: object, changes: Mapping[str, Any] | None) -> Any:
    """Return a copy of a message with some fields or metadata changed."""

def event_meta(event: object, name: str) -> Any:
    """Return metadata of an event, also where its class uses the name for a field of its own."""

def field_names(cls: type) -> Any:
    """Return the names of the fields of a compiled class."""

def freeze_clock(moment: datetime | None = None) -> None:
    """Make time stand still at a moment, or run again if there is none."""

def install_context(variable: ContextVar[Any]) -> None:
    """Tell the core which context variable new messages inherit from."""

def install_finalizer(finalizer: Callable[[type], None]) -> None:
    """Tell the core which function compiles a class at its first construction."""

def is_compiled(cls: type) -> bool:
    """Tell whether a class has its plan already."""

def is_stamped(event: object) -> bool | None:
    """Return True for an event of ours that a store has numbered, False for one that none has, None for others."""

def message_state(message: object) -> Any:
    """Return (fields and metadata by name, attribute dictionary or None): what `rebuild` needs."""

def new_id() -> Any:
    """Return a new UUIDv7."""

def next_id_number() -> int | None:
    """Return the number that the next id gets, None while ids are random."""

def now() -> datetime:
    """Return the present time as new messages see it."""

def number_ids(first: int | None = None) -> None:
    """Make new ids count up from a number, or be random again if there is none."""

def rebuild(cls: type, fields: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> Any:
    """Return a message from `message_state`, without `__init__` and `__post_init__`."""

def reseed_ids() -> None:
    """Draw new entropy for ids; called in the child of a fork."""

def stamp_event(event: object, version: int, sequence_number: int) -> None:
    """Mark an event of ours as stored, in place."""

# Log: `stores/memory.py`

_Names = list[tuple[list[str] | None, list[str]]]
_Batch = tuple[str, list[Any], list[str], int | None, tuple[_Names, int] | None]

@final
class EventLog:
    """An append-only log of event objects with stream, type and tag indexes. Safe to use from several threads.

    Positions and versions are numbers given once, from 1; removing events leaves holes. A query is a list of
    alternatives (stored type names or None for all, tags that must all be there).

    Args:
        stamp: `stamp(event, version, position)`, called for events that are not ours.
        max_events_per_stream: Older events of a stream are removed; 0 = keep all.
    """

    def __new__(cls, stamp: Callable[[Any, int, int], None], max_events_per_stream: int) -> EventLog: ...
    def __len__(self) -> int:
        """Return how many events are stored."""

    def learn(self, class_: type, type_name: str) -> None:
        """Tell under which name all events of a class are stored; `append` takes only classes it was told of."""

    def append(self, stream_id: object, events: object, expected_version: object) -> int | None:
        """Append fresh events of ours and return the new version; None, with nothing done, if anything is unusual.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004, nothing written.
        """

    def store(self, batches: Sequence[_Batch]) -> list[tuple[int, int]]:
        """Append batches (stream id, events, type names, expected version, (query, position) or None), all or none.

        Returns:
            (version, position) of the last event of each batch.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004. EventPersistenceError: LEX_ERR_EVT_012. Nothing is written.
        """

    def check(self, batch: _Batch) -> tuple[int, int] | None:
        """Return where a batch is stored already, or None if it may be stored; raise as `store` if it may not."""

    def read(self, stream_id: object, from_version: object, to_version: object, limit: object) -> list[Any] | None:
        """Return a stream's events, both versions inclusive; None if an argument is unusual or wrong."""

    def page(
        self,
        after: int,
        limit: int | None,
        up_to: int | None,
        query: _Names | None,
        partition: tuple[int, int] | None,
        with_stream_ids: bool,
    ) -> tuple[list[Any], int, list[str]]:
        """Return (events, position to go on from, stream ids if asked for) of a selection from the global order."""

    def count(self, after: int, up_to: int | None, query: _Names | None, partition: tuple[int, int] | None) -> int:
        """Return how many events a selection has."""

    def bounds(self, stream_id: str) -> tuple[int, int]:
        """Return (first stored version or 0, current version) of a stream."""

    def head(self) -> int:
        """Return the highest position given."""

    def compact(self, stream_id: str, up_to_version: int) -> int:
        """Remove a stream's events up to a version and return how many."""

    def stream_ids(self) -> list[str]:
        """Return the ids of the streams that hold events, sorted."""

    def clear(self) -> None:
        """Forget everything, positions included."""
