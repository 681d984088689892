"""The compiled core: message objects and the event log. Internal; use the Python classes in front of it.

Each part has one Python importer, named with it. Nothing in here is called with a lock held that user code could want.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, final
from uuid import UUID

from typing_extensions import disjoint_base

_F = TypeVar("_F", bound=Callable[..., Coroutine[Any, Any, Any]])
"""An `async def` in a class. Before Python 3.12, or with `always`, the functions named `..._shortcut` replace it by an
object that acts as that function, but whose calls make no coroutine in the usual case; elsewhere they return it."""

# Message objects: imported by messages/base.py, messages/_compile.py and their neighbours.

@disjoint_base
class EventBase:
    """Memory and constructor of events: 104 bytes and one word per field, plus the collector's header.

    Not a class to construct or to derive from directly: `DomainEvent` is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

@disjoint_base
class MessageBase:
    """Memory and constructor of commands and queries; the same layout with `id`, `timestamp` and `metadata`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

def install_finalizer(finalizer: Any) -> None:
    """Name the function that compiles a message class at its first construction. The first call counts."""

def install_context(variable: ContextVar[Any]) -> None:
    """Name the context variable that holds the message being handled. The first call counts."""

def arm(cls: type) -> None:
    """Route the first construction of a message class through its finalizer.

    Raises:
        TypeError: Not a class derived from `EventBase` or `MessageBase`.
    """

def compile(
    cls: type,
    fields: list[tuple[str, tuple[tuple[Any, ...] | None, bool, bool, bool]]],
    metadata: list[tuple[str, tuple[Any, ...] | None]],
    *,
    positional: list[int],
    accepts_extra: bool,
    post_init: bool,
    event_type: str,
    schema_version: int,
    always_tracked: bool,
    abstract: str,
) -> None:
    """Lay out the fields of a class and keep its plan for ever. A second call does nothing.

    Args:
        cls: A message class.
        fields: Name, fallback, and whether the field is taken by the constructor, compared, and visible as attribute.
            A fallback is `()` for required, `(value,)` or `(None, factory)`; None for none.
        metadata: Metadata names that keep their meaning in this class, with a fallback where the class has its own.
        positional: Indexes of the fields that may be passed by position.
        accepts_extra: Whether unknown keywords become attributes.
        post_init: Whether `__post_init__` is called after construction.
        event_type: Default of `event_type`.
        schema_version: Default of `schema_version`, 0 to 65535.
        always_tracked: Whether the collector sees every instance.
        abstract: Names of abstract methods; not empty forbids construction.

    Raises:
        TypeError: Not a message class, an unknown metadata name, or more than 32768 fields.
    """

def is_compiled(cls: type) -> bool:
    """Return whether the class has its plan."""

def field_names(cls: type) -> tuple[str, ...]:
    """Return the names of the user's fields of a message class, compiling it if need be."""

def copy_message(message: Any, changes: Mapping[str, Any] | None) -> Any:
    """Return a copy of the same class, every field kept, with some fields or metadata changed.

    Raises:
        TypeError: Not a message, or a name that the class does not have.
        EventValidationError: (LEX_ERR_EVT_024) a metadata value is not acceptable.
    """

def message_state(message: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return fields and metadata by name, and the other attributes or None: what `rebuild` takes."""

def rebuild(cls: type, fields: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> Any:
    """Return a message from its state; runs no user code of the class and inherits nothing from the context.

    Raises:
        TypeError: A required field is missing or a name is unknown.
    """

def event_meta(event: Any, name: str) -> Any:
    """Return metadata of a message, also where its class uses the name for a field of its own."""

def is_stamped(event: Any) -> bool | None:
    """Return True for an event of ours that a store has numbered, False for a fresh one, None for anything else."""

def stamp_event(event: Any, version: int, sequence_number: int) -> None:
    """Write version (up to 2**32 - 1) and position on an event, in place."""

def address_event(event: Any, aggregate_id: Any, aggregate_type: Any, correlation_id: Any, causation_id: Any) -> bool:
    """Fill in ids where the event has none, in place; False, with nothing done, if it is not an event of ours."""

def new_id() -> UUID:
    """Return a new UUIDv7, larger than every earlier one of this process."""

def reseed_ids() -> None:
    """Draw new entropy for ids; called in the child of a fork."""

# Clock and ids for tests: imported by messages/clock.py.

def now() -> datetime:
    """Return the present time as new messages see it."""

def freeze_clock(moment: datetime | None = None) -> None:
    """Stop the clock of new messages, or let it run again."""

def number_ids(first: int | None = None) -> None:
    """Count ids of new messages up from `first`, or make them random again."""

def next_id_number() -> int | None:
    """Return the number of the next id, None while ids are random."""

# Channel: `buses/channel.py`

@disjoint_base
class ChannelBase:
    """Items on their way between tasks, and the futures of those who wait. Subclassed once, by `BoundedChannel`."""

    def __new__(cls, capacity: int) -> Self: ...
    def __len__(self) -> int:
        """Return how many items can be taken now."""

    def __bool__(self) -> bool: ...
    @property
    def capacity(self) -> int:
        """Most items held."""

    @property
    def closed(self) -> bool:
        """Whether nothing more is accepted."""

    def put_nowait(self, item: Any, /) -> bool:
        """Put an item if there is room; return whether there was.

        Raises:
            ChannelClosedError: Nothing is accepted any more.
        """

    def _take(self, default: object, /) -> Any: ...
    def _take_many(self, limit: int) -> list[Any]: ...
    def _enlist_getter(self, future: object) -> bool: ...
    def _collect(self, future: object, limit: int) -> Any: ...
    def _leave_getter(self, future: object) -> None: ...
    def _enlist_putter(self, future: object) -> None: ...
    def _enter(self, item: object) -> None: ...
    def _leave_putter(self, future: object) -> None: ...
    def _close(self) -> None: ...

def put_shortcut(function: _F, /, *, always: bool = False) -> _F:
    """Give `BoundedChannel.put` its shortcut."""

def get_shortcut(function: _F, /, *, always: bool = False) -> _F:
    """Give `BoundedChannel.get` its shortcut."""

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

    def append(self, stream_id: object, events: object, expected_version: object, /) -> int | None:
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

    def read(self, stream_id: object, from_version: object, to_version: object, limit: object, /) -> list[Any] | None:
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

    def stream(
        self,
        after: object,
        batch_size: object,
        up_to: object,
        query: _Names | None,
        partition: tuple[int, int] | None,
        /,
    ) -> EventStream[Any] | None:
        """Return a stream of a selection, read `batch_size` events at a time; None if a number is unusual or wrong."""

    def count(self, after: int, up_to: int | None, query: _Names | None, partition: tuple[int, int] | None) -> int:
        """Return how many events a selection has."""

    def bounds(self, stream_id: str) -> tuple[int, int]:
        """Return (first stored version or 0, current version) of a stream."""

    def head(self) -> int:
        """Return the highest position given."""

    def compact(self, stream_id: str, up_to_version: int) -> int:
        """Remove a stream's events up to a version and return how many."""

    def removals(self) -> list[tuple[str, int]]:
        """Return the highest removed version of each stream from which events were removed."""

    def stream_ids(self) -> list[str]:
        """Return the ids of the streams that hold events, sorted."""

    def clear(self) -> None:
        """Forget everything, positions included."""

@disjoint_base
class MemoryStoreBase:
    """What the store in memory looks at in its usual case. Subclassed once, by `InMemoryEventStore`."""

    log: EventLog
    _inline: Any
    _hooks: Any
    _schema_evolution: Any
    _wakeup: Any
    def __new__(cls, *values: object, **named: object) -> Self: ...
    def _append_now(self, stream_id: object, events: object, expected_version: object, /) -> int | None:
        """Append as `EventLog.append` does and wake readers; None, with nothing done, if that or anybody else is unusual.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004, nothing written.
        """

def append_shortcut(function: _F, /, *, always: bool = False) -> _F:
    """Give `InMemoryEventStore.append` its shortcut."""

def read_shortcut(function: _F, /, *, always: bool = False) -> _F:
    """Give `InMemoryEventStore.read` its shortcut."""

_T = TypeVar("_T")

@final
class EventStream(AsyncGenerator[_T]):
    """Events of a log, one by one, without ever suspending; made by `EventLog.stream`, read only while it is awaited.

    Behaves like an async generator, except that awaiting one `anext` again takes the next event.
    """

    def __anext__(self) -> Coroutine[Any, Any, _T]: ...
    def asend(self, value: None, /) -> Coroutine[Any, Any, _T]: ...
    def athrow(
        self, typ: type[BaseException] | BaseException, val: object = ..., tb: TracebackType | None = ..., /
    ) -> Coroutine[Any, Any, _T]: ...
    def aclose(self) -> Coroutine[Any, Any, None]: ...

# The codec: imported by messages/codec.py and messages/plain.py; `registry_changed` by messages/registry.py.

MAX_PAYLOAD_BYTES: int
"""Largest payload of the codec in bytes, written or read."""
MAX_VALUE_DEPTH: int
"""Deepest nesting of values that the codec writes or reads."""

@final
class EncodedEvent:
    """One event as a store writes it; `payload` has everything except version and position. Unpacks in this order."""

    def __new__(
        cls,
        event_id: bytes,
        type_name: str,
        event_type: str,
        occurred_at_us: int,
        tags: tuple[str, ...],
        payload: bytes,
    ) -> EncodedEvent: ...
    @property
    def event_id(self) -> bytes: ...
    @property
    def type_name(self) -> str: ...
    @property
    def event_type(self) -> str: ...
    @property
    def occurred_at_us(self) -> int: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def payload(self) -> bytes: ...
    def __iter__(self) -> Iterator[Any]: ...

@final
class TypePlan:
    """A type's node, compiled."""

@final
class RecordPlan:
    """The compiled fields of one class; kept by its `shapes.Record`."""

def compile_node(node: tuple[Any, ...]) -> TypePlan:
    """Compile a node of `messages.shapes`."""

def registry_changed() -> None:
    """Tell all codecs that a type registry has changed; what they looked up is looked up again."""

@final
class CodecCore:
    """Encoder and decoder over one `EventTypeRegistry`; both forms are read, `binary` chooses the one written."""

    def __new__(cls, registry: Any, binary: bool) -> CodecCore: ...
    def encode(self, event: Any) -> EncodedEvent:
        """Return an event as it is stored.

        Raises:
            SerializationError: A value cannot be stored; names event type and field.
            EventValidationError: Not an event.
        """
    def decode(self, type_name: str, event_type: str, payload: Any, version: int, sequence_number: int | None) -> Any:
        """Return the event of a stored row, None if its type is not registered.

        Raises:
            SerializationError: Damaged bytes, or data that does not fit the class.
        """
    def decode_rows(self, rows: Iterable[Any], unknown: Callable[..., Any]) -> list[Any]:
        """Return the events of many rows; `unknown` makes those whose type is not registered."""
    def encode_value(self, value: Any, plan: TypePlan) -> bytes:
        """Return a value as bytes, under a compiled type."""
    def decode_value(self, data: Any, plan: TypePlan) -> Any:
        """Return the value of bytes, under a compiled type."""
    @staticmethod
    def to_json(payload: Any) -> bytes:
        """Return the JSON text of a payload in either form, without looking at any class."""
