"""Loading an aggregate: latest usable snapshot, then the events after it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, get_origin
from uuid import UUID

from lexigram.contracts.events.protocols.store import AggregateFactoryProtocol
from lexigram.events.aggregates.aggregate import AggregateRoot
from lexigram.events.aggregates.factory import empty_aggregate
from lexigram.events.aggregates.fields import plan_of
from lexigram.events.aggregates.replay import replay
from lexigram.events.exceptions import EventLoadError, EventValidationError
from lexigram.events.messages.callables import check_event_store, check_snapshot_store
from lexigram.events.stores.snapshot import latest_snapshot
from lexigram.events.types import Snapshot

logger = logging.getLogger(__name__)

TAggregate = TypeVar("TAggregate", bound=AggregateRoot)


class AggregateLoader(Generic[TAggregate]):
    """Rebuilds aggregates of one class from an event store and, if there is one, a snapshot store.

    Args:
        aggregate_type: The aggregate class.
        event_store: Where the events are; an aggregate's stream id is its id as text.
        snapshot_store: Where the snapshots are, if any.
        factory: Makes an empty aggregate for an id; by default `empty_aggregate` does.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, not an aggregate class.
    """

    def __init__(
        self,
        aggregate_type: type[TAggregate],
        event_store: Any,
        snapshot_store: Any = None,
        factory: AggregateFactoryProtocol[TAggregate] | Callable[[UUID | str], TAggregate] | None = None,
    ) -> None:
        aggregate_type = get_origin(aggregate_type) or aggregate_type  # Box[int] is a Box
        if not isinstance(aggregate_type, type) or not issubclass(aggregate_type, AggregateRoot):
            raise EventValidationError("aggregate_type must be a subclass of AggregateRoot", field="aggregate_type")
        check_event_store(event_store)
        if snapshot_store is not None:
            check_snapshot_store(snapshot_store)
        self.aggregate_type = aggregate_type
        self.event_store = event_store
        self.snapshot_store = snapshot_store
        make: Any = factory
        self._make: Callable[[UUID | str], TAggregate] | None = getattr(make, "create", make)

    async def load(self, aggregate_id: UUID | str) -> TAggregate | None:
        """Return the aggregate with exactly the id given (UUID or str), or None if it never had an event.

        Cost is linear in the events after the latest snapshot.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, an event cannot be replayed, or events are gone that no snapshot covers.
            EventValidationError: LEX_ERR_EVT_024, no id.
        """
        _check_id(aggregate_id)
        if self.snapshot_store is not None:
            snapshot = await latest_snapshot(self.snapshot_store, aggregate_id)
            if snapshot is not None:
                aggregate = await self._continue(snapshot, aggregate_id)
                if aggregate is not None:
                    return aggregate
        events = await self.event_store.read(str(aggregate_id))
        if not events:
            version = await self._stream_version(aggregate_id)
            if not version:
                return None
            events = await self.event_store.read(str(aggregate_id))  # somebody may have begun the stream meanwhile
            if not events:
                raise EventLoadError(
                    f"all {version} events of stream {str(aggregate_id)!r} are gone and no usable snapshot covers them",
                    details={"stream_id": str(aggregate_id), "version": version},
                )
        return self.replayed(aggregate_id, events)

    def replayed(self, aggregate_id: UUID | str, events: Sequence[Any]) -> TAggregate:
        """Return the aggregate after these events, the first of its stream.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, an event cannot be replayed, or the first ones are missing.
        """
        aggregate = self._empty(aggregate_id)
        aggregate._committed_version = replay(aggregate, events)
        return aggregate

    async def exists(self, aggregate_id: UUID | str) -> bool:
        """Return whether there are events, or a snapshot that stands for them. Reads no events where the store can."""
        _check_id(aggregate_id)
        stream_exists = getattr(self.event_store, "stream_exists", None)
        if stream_exists is None:
            return bool(await self.event_store.read(str(aggregate_id), count=1))
        if await stream_exists(str(aggregate_id)):
            return True
        return self.snapshot_store is not None and await latest_snapshot(self.snapshot_store, aggregate_id) is not None

    async def _continue(self, snapshot: Snapshot, aggregate_id: UUID | str) -> TAggregate | None:
        """Return the aggregate restored from a snapshot and the events after it, or None if it cannot be used."""
        aggregate = self._restore(snapshot, aggregate_id)
        if aggregate is None or await self._is_stale(snapshot, aggregate):
            return None
        events = await self.event_store.read(str(aggregate_id), start=snapshot.version)
        if events:
            aggregate._committed_version = replay(aggregate, events)
        elif await self._stream_version(aggregate_id) < snapshot.version:
            _warn(snapshot, "it is newer than the events")
            return None
        return aggregate

    async def _is_stale(self, snapshot: Snapshot, aggregate: TAggregate) -> bool:
        """Return whether the class has got fields since, and they can be computed because all events are there."""
        missing = plan_of(self.aggregate_type).defaulted - snapshot.state.keys()
        if missing and self.aggregate_type.create_snapshot is not AggregateRoot.create_snapshot:
            missing &= aggregate.create_snapshot().state.keys()  # a snapshot of its own makes without some fields
        if not missing:
            return False
        first = await self.event_store.read(str(aggregate.id), start=0, count=1)
        if not first or getattr(first[0], "version", 1) > 1:
            return False
        _warn(snapshot, f"it was taken before {', '.join(sorted(missing))} existed")
        return True

    def _restore(self, snapshot: Snapshot, aggregate_id: UUID | str) -> TAggregate | None:
        expected, schema = self.aggregate_type.__name__, self.aggregate_type.snapshot_schema_version
        if snapshot.aggregate_type not in ("", expected):
            _warn(snapshot, f"it is of a {snapshot.aggregate_type}, not of a {expected}")
            return None
        found = snapshot.metadata.get("snapshot_schema_version", schema)
        if found != schema:
            _warn(snapshot, f"its schema version is {found}, the class has {schema}")
            return None
        aggregate = self._empty(aggregate_id)
        try:
            aggregate.load_from_snapshot(snapshot)
        except Exception as error:
            _warn(snapshot, f"it does not fit the class: {error}")
            return None
        aggregate._stand_at(snapshot)
        aggregate.id = aggregate_id
        return aggregate

    def _empty(self, aggregate_id: UUID | str) -> TAggregate:
        if self._make is None:
            return empty_aggregate(self.aggregate_type, aggregate_id)  # type: ignore[no-any-return]
        aggregate = self._make(aggregate_id)
        aggregate.id = aggregate_id
        return aggregate

    async def _stream_version(self, aggregate_id: UUID | str) -> int:
        version_of = getattr(self.event_store, "get_stream_version", None)
        if version_of is None:
            return len(await self.event_store.read(str(aggregate_id)))
        version: int = await version_of(str(aggregate_id))
        return version


def _check_id(aggregate_id: object) -> None:
    """Refuse None, whose text would be a stream id like any other."""
    if aggregate_id is None:
        raise EventValidationError("aggregate_id must be a UUID or a str, not None", field="aggregate_id")


def _warn(snapshot: Snapshot, reason: str) -> None:
    logger.warning(
        "snapshot of %s at version %s is ignored and its events are replayed: %s",
        snapshot.aggregate_id,
        snapshot.version,
        reason,
    )
