"""Aggregate roots: state that changes by events only. Source: spec/architecture.md, spec/api-reference.md."""

from __future__ import annotations

import dataclasses as dc
from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from copy import copy as shallow_copy
from datetime import datetime
from typing import Any, ClassVar, Self, dataclass_transform
from uuid import UUID

import pydantic

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.domain import AggregateRoot as FrameworkAggregateRoot
from lexigram.events import _core
from lexigram.events.aggregates.factory import empty_aggregate
from lexigram.events.aggregates.fields import construct, copied, declare_fields
from lexigram.events.aggregates.handlers import Handler, resolve_handler
from lexigram.events.aggregates.pending import PendingEvents
from lexigram.events.aggregates.replay import replay
from lexigram.events.aggregates.state import NOT_STATE, read_state, write_state
from lexigram.events.exceptions import EventLoadError, EventValidationError
from lexigram.events.messages.annotations import own_annotations
from lexigram.events.messages.event import new_id
from lexigram.events.types import Snapshot

address_event = _core.address_event


@dataclass_transform(kw_only_default=True, field_specifiers=(dc.field, dc.Field, pydantic.Field))
class AggregateRoot(PendingEvents, FrameworkAggregateRoot, ABC):
    """A consistency boundary whose state is the result of its events.

    Declare fields by annotation, with defaults or `Field(default_factory=list)`; change them only in handlers named
    `_handle_<snake_case of the event class>` (`ItemAdded` and `ItemAddedEvent` are both `_handle_item_added`), which
    run when an event is applied and again when it is replayed. Fields are given by keyword; positions (`id` first)
    work too, but type checkers see the id only there, so that a field without default may follow it.

    Args:
        id: Identity, kept as given (UUID or str); a new UUID (version 7) if none is given.

    Raises:
        TypeError: A required field is missing or an argument is unknown.

    Source: spec/architecture.md, "AggregateRoot".
    """

    allow_unhandled_events: ClassVar[bool] = False
    """Set to True to let events pass that no handler is defined for; otherwise they raise."""

    snapshot_schema_version: ClassVar[int] = 1
    """Increase it when fields change their type or meaning: snapshots of another number are never used."""

    _handler_table: ClassVar[dict[Any, Handler]] = {}

    # Not fields: every instance starts from these class attributes.
    _handling: bool = False
    _correlation_id: UUID | None = None
    _causation_id: UUID | None = None
    _snapshot_version: int = 0
    _snapshot_time: datetime | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("version", "expected_version"):
            if name in own_annotations(cls):
                raise EventValidationError(
                    f"{cls.__name__}.{name} cannot be a field: the aggregate counts its events itself; rename it",
                    field=name,
                )
        declare_fields(cls)
        cls._handler_table = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        construct(self, args, kwargs)

    def __post_init__(self) -> None:
        if self.id is None:
            self.id = new_id()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return bool(self.id == other.id)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!s}, version={self.version})"

    def _apply(self, event: ContractEvent) -> None:
        """Run the handler of a new event and buffer the event for `save`.

        Aggregate id and type, and the ids of `_set_context`, are filled in where the event has none. If the handler
        or an invariant check fails, version and pending events are unchanged; discard the aggregate then, because
        the handler may have changed fields before it failed. Constant cost.

        Raises:
            HandlerNotFoundError: LEX_ERR_EVT_002, no handler, and the class does not allow that.
            EventValidationError: LEX_ERR_EVT_024, not an event, or called from within a handler.
        """
        if self._handling:
            raise EventValidationError(
                f"a handler of {type(self).__name__} must not apply {type(event).__name__}: "
                "it runs again on replay; apply both events from the command method",
                field="event",
            )
        cls = type(self)
        handler = self._handler_table.get(type(event)) or resolve_handler(cls, type(event))
        if not address_event(event, self.id, cls.__name__, self._correlation_id, self._causation_id):
            event = self._addressed(event)
        self._handling = True
        try:
            handler(self, event)
        finally:
            self._handling = False
        self._check_invariants()
        self._pending_events.append(event)

    def _addressed(self, event: ContractEvent) -> ContractEvent:
        """Return an event of the framework's own class as a copy that says whose it is, if it does not."""
        return event if event.aggregate_id else event.for_aggregate(self.id, type(self).__name__)

    def _check_invariants(self) -> None:
        """Raise if the state is not allowed; called after every handler and before an event is buffered."""

    def _set_context(self, correlation_id: UUID | None = None, causation_id: UUID | None = None) -> None:
        """Give the events applied from now on these ids, where they have none of their own."""
        self._correlation_id = correlation_id
        self._causation_id = causation_id

    def add_event(self, event: Any) -> None:
        """Buffer an event without running a handler, after checking the invariants.

        Raises:
            EventValidationError: LEX_ERR_EVT_024, not an event.
        """
        if not isinstance(event, ContractEvent):
            raise EventValidationError(
                f"not an event: {type(event).__name__}; derive it from DomainEvent", field="event"
            )
        self._check_invariants()
        if not address_event(event, self.id, type(self).__name__, self._correlation_id, self._causation_id):
            event = self._addressed(event)
        self._pending_events.append(event)

    def load_from_history(self, events: Iterable[ContractEvent]) -> None:
        """Replay events that continue this aggregate's history; their number is added to the version.

        An aggregate without history takes its id from the first event. Cost is linear in the events. If an event
        cannot be replayed, the aggregate is left empty rather than half replayed.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, with stream, version and event type; the cause is chained.
        """
        events = events if isinstance(events, Sequence) else list(events)
        if not events:
            return
        if not self._committed_version and events[0].aggregate_id is not None:
            self.id = events[0].aggregate_id
        try:
            self._committed_version = replay(self, events)
        except EventLoadError:
            empty = empty_aggregate(type(self), self.id)
            self.__dict__.clear()
            self.__dict__.update(empty.__dict__)
            raise

    def create_snapshot(self) -> Snapshot:
        """Return the state after the last applied event, as plain data that any store can keep.

        Cost is linear in the state. `load_from_snapshot` restores the types that the annotations name.

        Raises:
            SerializationError: LEX_ERR_EVT_025, a field holds a value that cannot be encoded.
        """
        return Snapshot(
            aggregate_id=self.id,
            aggregate_type=type(self).__name__,
            version=self.version,
            state=read_state(self),
            metadata={"snapshot_schema_version": self.snapshot_schema_version},
        )

    def load_from_snapshot(self, snapshot: Snapshot) -> None:
        """Replace the state by that of a snapshot; the id is the snapshot's, nothing is pending.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, the snapshot is of another aggregate class.
            SerializationError: LEX_ERR_EVT_025, the state does not fit the class; the aggregate is unchanged.
        """
        if snapshot.aggregate_type not in ("", type(self).__name__):
            raise EventLoadError(
                f"the snapshot of {snapshot.aggregate_id} is of a {snapshot.aggregate_type}, "
                f"not of a {type(self).__name__}",
                details={"stream_id": str(snapshot.aggregate_id), "aggregate_type": snapshot.aggregate_type},
            )
        # `to_dict` puts id and version into the state; here the snapshot's own count.
        write_state(self, {name: value for name, value in snapshot.state.items() if name != "version"})
        self._stand_at(snapshot)

    def _stand_at(self, snapshot: Snapshot) -> None:
        """Take id and version of a snapshot whose state has been loaded, also where the class did that its own way."""
        self.id = snapshot.aggregate_id
        self._pending_events.clear()
        self._committed_version = self._snapshot_version = snapshot.version
        self._snapshot_time = snapshot.timestamp

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy at the same version, with pending events of its own and other values for the fields in `update`.

        Raises:
            TypeError: `update` names what is no field.
        """
        copy: Self = copied(self, update, deep)
        copy._pending_events = shallow_copy(copy._pending_events)
        return copy

    def model_dump(self, *, exclude: set[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return id and state as plain data, without version and pending events; `model_validate` takes it."""
        return super().model_dump(exclude={*(NOT_STATE - {"id"}), *(exclude or ())}, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return id (as text), version and state as plain data; `from_snapshot` reads it.

        Raises:
            SerializationError: LEX_ERR_EVT_025, a field holds a value that cannot be encoded.
        """
        return {"id": str(self.id), "version": self.version, **read_state(self)}

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot | Mapping[str, Any]) -> Self:
        """Return a new aggregate from a snapshot, or from what `to_dict` returned; nothing is pending.

        Args:
            snapshot: A `Snapshot`, or its `state`. Without `id` in it the aggregate gets a new one, without `version`
                it is at version 0.

        Raises:
            SerializationError: LEX_ERR_EVT_025, the state does not fit the class.
        """
        if not isinstance(snapshot, Snapshot):
            state = dict(snapshot)
            version, own_id = state.pop("version", 0), state.pop("id", None)
            snapshot = Snapshot(own_id or new_id(), cls.__name__, version, state)
        aggregate: Self = empty_aggregate(cls, snapshot.aggregate_id)
        aggregate.load_from_snapshot(snapshot)
        aggregate._stand_at(snapshot)
        return aggregate


class VersionedAggregateRoot(AggregateRoot):
    """An aggregate whose caller says which version it decided upon, for example from an HTTP `If-Match` header."""

    _asked_version: int | None = None

    @property
    def expected_version(self) -> int:
        """The version given to `set_expected_version`, else the loaded one."""
        return self._committed_version if self._asked_version is None else self._asked_version

    def set_expected_version(self, version: int) -> None:
        """Make the next save fail with `ConcurrencyError` unless the aggregate was loaded at this version.

        Args:
            version: Version the caller has seen, at least 0.

        Raises:
            EventValidationError: LEX_ERR_EVT_024, not a version.
        """
        if type(version) is not int or version < 0:
            raise EventValidationError("version must be an int of at least 0", field="version")
        self._asked_version = version

    def clear_events(self) -> None:
        """Treat the pending events as saved; the next save expects the version reached."""
        super().clear_events()
        self._asked_version = None
