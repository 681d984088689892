"""The repository of event-sourced aggregates. Source: spec/api-reference.md, "EventSourcingRepository"."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from lexigram.contracts.core.result import Err
from lexigram.contracts.events.protocols.store import AggregateFactoryProtocol
from lexigram.events.aggregates.aggregate import AggregateRoot
from lexigram.events.exceptions import AggregateNotFoundError, ConcurrencyError, EventValidationError
from lexigram.events.messages.callables import check_can
from lexigram.events.repository.base import AbstractRepository
from lexigram.events.repository.listing import list_aggregates
from lexigram.events.repository.loading import AggregateLoader
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.snapshot import DEFAULT_KEEP_COUNT, EventCountPolicy, SnapshotPolicy, keep_snapshot
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork

if TYPE_CHECKING:
    from datetime import datetime

    from lexigram.contracts.events.protocols.domain import EventBusProtocol
    from lexigram.contracts.events.protocols.store import EventStoreProtocol, SnapshotStoreProtocol

logger = logging.getLogger(__name__)

TAggregate = TypeVar("TAggregate", bound=AggregateRoot)


class OutboxWriter(Protocol):
    """Stores the rows of events to be delivered later, within the transaction of their append."""

    async def append_batch(self, events: list[Any]) -> None:
        """Write the rows of these events in the current unit of work."""
        ...


class EventSourcingRepository(AbstractRepository[TAggregate]):
    """Loads aggregates from their events (and snapshots) and saves their pending events.

    Args:
        aggregate_type: The aggregate class.
        event_store: Where the events are; the stream id is the aggregate's id as text, unprefixed.
        snapshot_store: Where the snapshots are; without one every load replays all events.
        event_bus: Gets the saved events, if given.
        snapshot_policy: When a save takes a snapshot; by default every `snapshot_every` events.
        snapshot_every: Events between snapshots, at least 1.
        outbox: Writes rows for the saved events in the transaction of the append.
        factory: Makes an empty aggregate for an id, for classes whose constructor needs more than that.
        keep_snapshots: Snapshots kept per aggregate; None keeps all.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, an argument is not acceptable.
    """

    def __init__(
        self,
        aggregate_type: type[TAggregate],
        event_store: EventStoreProtocol,
        snapshot_store: SnapshotStoreProtocol | None = None,
        event_bus: EventBusProtocol | None = None,
        snapshot_policy: SnapshotPolicy | None = None,
        snapshot_every: int = 100,
        *,
        outbox: OutboxWriter | None = None,
        factory: AggregateFactoryProtocol[TAggregate] | Callable[[UUID | str], TAggregate] | None = None,
        keep_snapshots: int | None = DEFAULT_KEEP_COUNT,
    ) -> None:
        if type(snapshot_every) is not int or snapshot_every < 1:
            raise EventValidationError("snapshot_every must be an int of at least 1", field="snapshot_every")
        self._loader: AggregateLoader[TAggregate] = AggregateLoader(
            aggregate_type, event_store, snapshot_store, factory
        )
        if event_bus is not None:
            check_can(event_bus, "event_bus", "an event bus", "publish")
        if snapshot_policy is not None:
            check_can(snapshot_policy, "snapshot_policy", "a SnapshotPolicy", "should_snapshot")
        self._store: Any = event_store
        self._snapshots: Any = snapshot_store
        self._bus: Any = event_bus
        self._outbox = outbox
        self._keep_snapshots = keep_snapshots
        self.snapshot_policy = EventCountPolicy(snapshot_every) if snapshot_policy is None else snapshot_policy

    if not TYPE_CHECKING:

        def __class_getitem__(cls, item: Any) -> Any:
            """Return a class, so that a container can build `EventSourcingRepository[Order]` where it is annotated."""
            if isinstance(item, type):
                from lexigram.events.repository.binding import bound_to

                return bound_to(cls, item)
            return super().__class_getitem__(item)

    @property
    def aggregate_type(self) -> type[TAggregate]:
        """The aggregate class."""
        return self._loader.aggregate_type

    async def get(self, aggregate_id: UUID | str) -> TAggregate | None:
        """Return the aggregate with exactly the id given (UUID or str), or None if it never had an event.

        Cost is linear in the events after the latest snapshot.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, an event cannot be replayed (with stream, version and event type), or
                events are gone that no snapshot covers. A half-replayed aggregate is never returned.
        """
        return await self._loader.load(aggregate_id)

    async def get_or_raise(self, aggregate_id: UUID | str) -> TAggregate:
        """Return the aggregate.

        Raises:
            AggregateNotFoundError: LEX_ERR_EVT_009, it never had an event.
            EventLoadError: LEX_ERR_EVT_011, see `get`.
        """
        aggregate = await self._loader.load(aggregate_id)
        if aggregate is None:
            name = self.aggregate_type.__name__
            raise AggregateNotFoundError(
                f"there is no {name} with id {str(aggregate_id)!r}",
                details={"aggregate_type": name, "aggregate_id": str(aggregate_id)},
            )
        return aggregate

    async def get_at(
        self,
        aggregate_id: UUID | str,
        *,
        version: int | None = None,
        position: int | None = None,
        at: datetime | None = None,
    ) -> TAggregate | None:
        """Return the aggregate as it was; see `TimeTravel.aggregate_at`. Snapshots are not used."""
        from lexigram.events.repository.time_travel import TimeTravel

        travel, make = TimeTravel(self._store), self._loader._make
        return await travel.aggregate_at(
            self.aggregate_type, aggregate_id, version=version, position=position, at=at, factory=make
        )

    async def save(self, aggregate: TAggregate) -> None:
        """Append the pending events, clear and publish them, snapshot by policy; without pending events do nothing.

        Once the events are committed, the save has succeeded: if taking the snapshot or publishing fails, that is
        logged. Inside a unit of work of the store both happen after its commit; if it is rolled back, load the
        aggregate again.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004, the stream changed since the aggregate was loaded; nothing was written
                and the pending events are kept.
            EventValidationError: LEX_ERR_EVT_024, another aggregate class, or no id.
        """
        events = self._pending(aggregate)
        if not events:
            return
        stream_id, expected = str(aggregate.id), aggregate.expected_version
        if self._outbox is None or getattr(self._outbox, "store", None) is getattr(self._store, "inner", self._store):
            # An outbox of this very store captures appends by itself.
            if self._outbox is not None:
                await self._outbox.connect()  # type: ignore[attr-defined]
            await self._store.append(stream_id, events, expected)
        else:
            async with self._store.unit_of_work():
                await self._store.append(stream_id, events, expected)
                await self._outbox.append_batch(events)
        aggregate.clear_events()
        unit = self._store._unit_of_work() if isinstance(self._store, AbstractEventStore) else None
        if isinstance(unit, AbstractUnitOfWork):
            unit.on_commit(partial(self._after_commit, aggregate, events))
        else:
            await self._after_commit(aggregate, events)

    def _pending(self, aggregate: TAggregate) -> list[Any]:
        if not isinstance(aggregate, self._loader.aggregate_type):
            raise EventValidationError(
                f"this repository saves {self.aggregate_type.__name__}, not {type(aggregate).__name__}",
                field="aggregate",
            )
        if aggregate.id is None:
            raise EventValidationError("the aggregate has no id", field="aggregate.id")
        loaded, expected = aggregate._committed_version, aggregate.expected_version
        if expected != loaded:
            raise ConcurrencyError(
                f"{type(aggregate).__name__} {aggregate.id} was loaded at version {loaded}, not {expected}",
                expected_version=expected,
                actual_version=loaded,
            )
        return aggregate.get_pending_events()

    async def exists(self, aggregate_id: UUID | str) -> bool:
        """Return whether there are events (or a snapshot) of this aggregate. Reads no events; constant cost."""
        return await self._loader.exists(aggregate_id)

    async def get_all(self, limit: int | None = None, offset: int | None = None) -> list[TAggregate]:
        """Return the aggregates of this class in order of their ids; see `list_aggregates` for the cost.

        Args:
            limit: At most this many; None for all.
            offset: Leave out this many first.
        """
        return [aggregate async for aggregate in list_aggregates(self._loader, limit, offset)]

    async def force_snapshot(self, aggregate: TAggregate) -> None:
        """Take a snapshot now, whatever the policy says.

        Raises:
            EventValidationError: LEX_ERR_EVT_024, there is no snapshot store, or the aggregate has unsaved events.
            SerializationError: LEX_ERR_EVT_025, a field cannot be encoded.
        """
        if self._snapshots is None:
            raise EventValidationError("the repository has no snapshot store", field="snapshot_store")
        if aggregate.has_uncommitted_events:
            raise EventValidationError("save the aggregate before taking a snapshot", field="aggregate")
        await self._take_snapshot(aggregate)

    async def _take_snapshot(self, aggregate: TAggregate) -> None:
        snapshot = aggregate.create_snapshot()
        await keep_snapshot(self._snapshots, snapshot, self._keep_snapshots)
        aggregate._snapshot_version, aggregate._snapshot_time = snapshot.version, snapshot.timestamp

    async def _after_commit(self, aggregate: TAggregate, events: list[Any]) -> None:
        """Publish, then take the snapshot that is due; neither can fail a save that is committed.

        In this order, because taking a snapshot waits for the store, and a later save of the same aggregate must not
        be published meanwhile.
        """
        if self._bus is not None:
            await self._publish(aggregate, events)
        if self._snapshots is None or aggregate.has_uncommitted_events:
            return
        try:
            version = aggregate.version
            since = version - aggregate._snapshot_version
            if self.snapshot_policy.should_snapshot(since, aggregate._snapshot_time, version):
                await self._take_snapshot(aggregate)
        except Exception as error:
            logger.warning("no snapshot of %s at version %s: %s", aggregate.id, aggregate.version, error)

    async def _publish(self, aggregate: TAggregate, events: list[Any]) -> None:
        try:
            outcome = await self._bus.publish(events)
        except Exception as error:
            logger.exception("events of %s are saved but could not be published: %s", aggregate.id, error)
            return
        if isinstance(outcome, Err):
            logger.error("events of %s are saved but were not published: %s", aggregate.id, outcome.unwrap_err())
