"""Data transfer objects and enumerations shared by the whole package. Source: spec/reference-surface.md.

All of them are the framework's `DomainModel` (`model_dump`, `model_validate`, ...) with a generated constructor: no
coercion runs when one is created in code, so creating one costs about a microsecond and an identifier stays the
`UUID` or `str` that was given. `model_validate` coerces, because its input comes from outside.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID, uuid4

from lexigram.domain import DomainModel
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.clock import now
from lexigram.events.messages.event import DomainEvent


class AggregateStatus(StrEnum):
    """Life cycle of an aggregate as shown to an operator."""

    ACTIVE = "active"
    DELETED = "deleted"
    ARCHIVED = "archived"


class EventStoreBackend(StrEnum):
    """Event store backends that a configuration can ask for."""

    MEMORY = "memory"
    POSTGRES = "postgres"
    MONGODB = "mongodb"
    SQLITE = "sqlite"
    REDIS = "redis"


class MessageType(StrEnum):
    """The three kinds of message."""

    COMMAND = "command"
    QUERY = "query"
    EVENT = "event"


class ProjectionState(StrEnum):
    """What a projection is doing; paused is STOPPED with its position kept."""

    STOPPED = "stopped"
    RUNNING = "running"
    CATCHING_UP = "catching_up"
    LIVE = "live"
    FAULTED = "faulted"
    REBUILDING = "rebuilding"


class SagaState(StrEnum):
    """What a saga is doing, as the architecture document names it."""

    NOT_STARTED = "not_started"
    STARTED = "started"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    COMPENSATION_FAILED = "compensation_failed"


class SnapshotStrategy(StrEnum):
    """When snapshots are taken: after so many events, after so much time, or only when asked for."""

    EVENT_COUNT = "event_count"
    TIME_BASED = "time_based"
    ON_DEMAND = "on_demand"


class StreamPosition(StrEnum):
    """Where a subscription begins, by name."""

    START = "start"
    END = "end"
    LIVE = "live"


class _Record(DomainModel):
    """A `DomainModel` whose generated constructor takes values as they are."""

    @classmethod
    def model_validate(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Create one from outside data, coercing values to the fields' types.

        Raises:
            ValidationError: A required field is missing or a value does not fit its type.
        """
        record = object.__new__(cls)
        DomainModel.__init__(record, **data)
        return record

    @classmethod
    def model_validate_json(cls, json_str: str | bytes, **kwargs: Any) -> Self:
        """Create one from JSON text such as `model_dump_json` writes, coercing values as `model_validate` does."""
        return cls.model_validate(json.loads(json_str), **kwargs)

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values for the fields in `update`; events and other objects in it stay what they are."""
        source: Any = deepcopy(self) if deep else self
        copied: Self = replace(source, **(update or {}))
        return copied


@dataclass(eq=False)
class Checkpoint(_Record):
    """How far a projection has come: the global position of the last event it has processed."""

    projection_name: str
    stream_position: int = 0
    last_processed_event_id: UUID | None = None
    updated_at: datetime = field(default_factory=now)


@dataclass(eq=False)
class CommandResult(_Record):
    """The outcome of a command as data, for callers that want no exception."""

    success: bool
    data: dict[str, Any] | None = None
    error: str | None = None
    events: list[DomainEvent] = field(default_factory=list)


@dataclass(eq=False)
class QueryResult(_Record):
    """The outcome of a query as data, for callers that want no exception."""

    success: bool
    data: Any | None = None
    error: str | None = None
    cached: bool = False


@dataclass(eq=False)
class EventEnvelope(_Record):
    """One event with its address and metadata, as it travels outside the process."""

    stream_id: str
    event_type: str
    event_data: dict[str, Any]
    version: int
    event_id: UUID = field(default_factory=uuid4)
    metadata: dict[str, Any] = field(default_factory=dict)
    timestamp: datetime = field(default_factory=now)
    correlation_id: UUID | None = None
    causation_id: UUID | None = None


@dataclass(eq=False)
class HandlerInfo(_Record):
    """One registered handler."""

    handler_type: str
    message_type: str
    handler_class: str
    registered_at: datetime = field(default_factory=now)


@dataclass(eq=False)
class MiddlewareInfo(_Record):
    """One middleware of a bus and its place in the chain (0 is outermost)."""

    name: str
    order: int
    enabled: bool = True


@dataclass(eq=False)
class SagaData(_Record):
    """One saga instance as shown to an operator."""

    saga_id: UUID | str
    saga_type: str
    state: SagaState = SagaState.NOT_STARTED
    current_step: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    error_message: str | None = None
    completed_steps: list[str] = field(default_factory=list)
    compensated_steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = SagaState(self.state)


@dataclass(eq=False)
class Snapshot(_Record):
    """The state of one aggregate after its event number `version`.

    Args:
        aggregate_id: UUID or text, kept as given; two ids are the same if their text is.
        aggregate_type: Class name of the aggregate.
        version: Version of the last event that the state contains, at least 0.
        state: Field values by name.
        timestamp: When the snapshot was taken.
        metadata: Free keys, kept with the snapshot.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, an argument is not acceptable.
    """

    aggregate_id: UUID | str
    aggregate_type: str
    version: int
    state: dict[str, Any]
    timestamp: datetime = field(default_factory=now)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.aggregate_id, UUID | str) or not self.aggregate_id:
            raise EventValidationError("Snapshot.aggregate_id must be a UUID or a non-empty str", field="aggregate_id")
        if type(self.version) is not int or self.version < 0:
            raise EventValidationError("Snapshot.version must be an int of at least 0", field="version")

    @classmethod
    def model_validate(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Create one from outside data; the aggregate id stays as it is written there."""
        snapshot = super().model_validate(data, **kwargs)
        snapshot.aggregate_id = data["aggregate_id"]
        return snapshot

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def _key(self) -> tuple[Any, ...]:
        return (
            str(self.aggregate_id),
            self.aggregate_type,
            self.version,
            self.state,
            self.timestamp,
            self.metadata,
        )


@dataclass(eq=False)
class StreamInfo(_Record):
    """What a store knows about one stream.

    `version` counts every event ever appended, `event_count` those still there after compaction or eviction.
    """

    stream_id: str
    aggregate_type: str | None = None
    version: int = 0
    event_count: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
