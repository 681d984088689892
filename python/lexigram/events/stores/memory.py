"""Stores that keep everything in memory: for tests, development and data that may be lost."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

from lexigram.events._core import EventLog, MemoryStoreBase, append_shortcut, read_shortcut
from lexigram.events.messages.codec import EventCodec
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.stamping import stamp
from lexigram.events.messages.unknown import UnknownEvent
from lexigram.events.stores._memory_kinds import EventKinds, is_common, may_hold_anything
from lexigram.events.stores._memory_unit import Batch, Condition, MemoryUnitOfWork, Query
from lexigram.events.stores._primitives import Appended, Page, ReadRequest, StreamBounds
from lexigram.events.stores._snapshots import AbstractSnapshotStore
from lexigram.events.stores._stream import microseconds
from lexigram.events.stores._validation import check_number
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.condition import AppendCondition, EventQuery, ResolvedCondition, ResolvedQuery
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork, current_unit_of_work
from lexigram.events.types import Snapshot

if TYPE_CHECKING:
    from lexigram.events.messages.registry import EventTypeRegistry
    from lexigram.events.stores.outbox.log import LogOutboxStore

_PAGE_SIZE = 1000


class InMemoryEventStore(MemoryStoreBase, AbstractEventStore):
    """Events in a Rust log inside this process. Safe to use from several threads.

    Args:
        schema_evolution: Converts older events when they are read.
        max_events_per_stream: Oldest events beyond this number are removed from the stream, the global order and the
            type index; versions and positions go on. 0 = keep all.
        registry: Resolves event types.
    """

    def __init__(
        self,
        schema_evolution: Any | None = None,
        max_events_per_stream: int = 10000,
        *,
        registry: EventTypeRegistry | None = None,
    ) -> None:
        super().__init__(schema_evolution, registry=registry)
        self.log = EventLog(stamp, check_number(max_events_per_stream, "max_events_per_stream"))
        self._known: set[type] = set()
        self._kinds = EventKinds(self._registry)
        self._codec = EventCodec(self._registry)
        self._encode = EventCodec(self._registry, format="binary").encode
        self._outboxes: dict[str, LogOutboxStore] = {}

    @append_shortcut
    async def append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None = None,
        *,
        condition: AppendCondition | None = None,
    ) -> int:
        """Append events to a stream, all or none; see `AbstractEventStore.append`. Cost: linear in the events."""
        if condition is None:
            # The usual case in one call; it answers None where anything is unusual or wrong.
            version = self._append_now(stream_id, events, expected_version)
            if version is None and self._learn(events):
                version = self._append_now(stream_id, events, expected_version)
            if version is not None:
                if self._hooks is not None:
                    await self._fire_stored(stream_id, events)
                return version
        return await super().append(stream_id, events, expected_version, condition=condition)

    @read_shortcut
    async def read(  # type: ignore[override]  # the contract's second parameter is `start`, ours by keyword only
        self,
        stream_id: str,
        from_version: int = 0,
        to_version: int | None = None,
        limit: int | None = None,
        *,
        start: int | None = None,
        count: int | None = None,
    ) -> list[Any]:
        """Return events of one stream in order; see `AbstractEventStore.read`. Cost: linear in what is returned."""
        if start is None and count is None and self._schema_evolution is None:
            events = self.log.read(stream_id, from_version, to_version, limit)
            if events is not None:
                return events
        return await super().read(stream_id, from_version, to_version, limit, start=start, count=count)

    def stream_all(
        self,
        from_position: int = 0,
        batch_size: int = 100,
        partition: int | None = None,
        total_partitions: int | None = None,
    ) -> AsyncIterator[Any]:
        """Yield all events after a position in global order; see `EventStreamMixin.stream_all`."""
        if partition is None and total_partitions is None and self._schema_evolution is None:
            # The usual case in one call; it answers None where a number is unusual or wrong.
            stream = self.log.stream(from_position, batch_size, None, None, None)
            if stream is not None:
                return stream
        return super().stream_all(from_position, batch_size, partition, total_partitions)

    def stream_by_type(
        self, event_types: type | str | Iterable[type | str], from_position: int = 0, batch_size: int = 100
    ) -> AsyncIterator[Any]:
        """Yield the events of these types in global order; see `EventStreamMixin.stream_by_type`."""
        if self._schema_evolution is None and isinstance(event_types, (list, tuple, str, type)):
            query = self._plain_query(EventQuery(event_types).resolve(self._registry))
            stream = self.log.stream(from_position, batch_size, None, query, None)
            if stream is not None:
                return stream
        return super().stream_by_type(event_types, from_position, batch_size)

    async def connect(self) -> None:
        """Do nothing: it is always open."""

    async def close(self) -> None:
        """Do nothing: events are kept as long as the store object lives."""

    def clear(self) -> None:
        """Forget all events, streams and positions. For tests; readers must start again."""
        self.log.clear()
        self._known.clear()
        self._kinds.clear()

    def get_all_streams(self) -> list[str]:
        """Return the ids of all streams that hold events, sorted."""
        return self.log.stream_ids()

    def get_global_position(self) -> int:
        """Return the highest position assigned."""
        return self.log.head()

    def outbox(self, name: str = "event_outbox") -> LogOutboxStore:
        """Return the outbox of this name, always the same object."""
        from lexigram.events.buses.dead_letter import InMemoryDeadLetterStore
        from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
        from lexigram.events.stores.outbox.log import LogOutboxStore

        if name not in self._outboxes:
            box = LogOutboxStore(self, InMemoryCheckpointStore(), InMemoryDeadLetterStore(), name)
            self._outboxes[name] = box
        return self._outboxes[name]

    def unit_of_work(self) -> AbstractUnitOfWork:
        """Return a block whose appends are checked and stored together at its end, or not at all."""
        return MemoryUnitOfWork(self)

    def store_batches(self, batches: list[Batch]) -> list[tuple[int, int]]:
        """Store prepared appends, all or none; return version and position of the last event of each."""
        stored = self.log.store(batches)
        for batch in batches:
            self._learn(batch.events)
        return stored

    def _learn(self, events: Sequence[Any]) -> bool:
        """Tell the log the stored names of classes it has not seen; return whether there were any."""
        if type(events) is not list:
            return False
        learned = False
        for event in dict(zip(map(type, events), events, strict=False)).values():
            cls = type(event)
            if cls not in self._known and isinstance(event, DomainEvent) and cls is not UnknownEvent:
                name = self._kinds.name(event)
                if is_common(name) and not may_hold_anything(cls):
                    if gc.is_tracked(event):
                        self._encode(event)  # raises for a class that no durable backend could store
                    self.log.learn(cls, name)
                    self._known.add(cls)
                    learned = True
        return learned

    def _batch(
        self, stream_id: str, events: Sequence[Any], expected: int | None, condition: ResolvedCondition | None
    ) -> Batch:
        names = [self._kinds.name(event) for event in events]
        for event in events:
            if gc.is_tracked(event) or type(event) not in self._known:
                self._encode(event)  # raises for what no durable backend could store either
        return Batch(stream_id, list(events), names, expected, self._plain_condition(condition))

    def _plain_query(self, query: ResolvedQuery | None) -> Query | None:
        """Return a query in the log's form."""
        if query is None:
            return None
        return [(None if item.types is None else self._kinds.selected(item.types), list(item.tags)) for item in query]

    def _plain_condition(self, condition: ResolvedCondition | None) -> Condition | None:
        """Return a condition in the log's form."""
        return None if condition is None else (self._plain_query(condition.query) or [], condition.after)

    async def _ready(self) -> None:
        """Do nothing: it is always open."""

    async def _open(self) -> None:
        """Do nothing."""

    async def _close(self) -> None:
        """Do nothing."""

    async def _append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
        unit_of_work: AbstractUnitOfWork | None,
    ) -> Appended:
        return Appended(*self.store_batches([self._batch(stream_id, events, expected_version, condition)])[0])

    async def _append_in(
        self,
        unit: AbstractUnitOfWork,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
    ) -> int:
        assert isinstance(unit, MemoryUnitOfWork)
        version = unit.add(self._batch(stream_id, events, expected_version, condition), condition)
        unit.on_commit(lambda: self._stored(stream_id, events, 0, 0))
        return version

    def _stamp(self, events: Sequence[Any], version: int, position: int) -> None:
        """Do nothing: the log stamps under its lock, so that no thread ever sees an unstamped event."""

    async def _read(self, stream_id: str, from_version: int, to_version: int | None, limit: int | None) -> list[Any]:
        events = self.log.read(stream_id, from_version, to_version, limit)
        assert events is not None, "the arguments were checked"
        return events

    async def _read_all(self, request: ReadRequest) -> Page:
        if request.since_us is not None:
            return self._read_since(request, request.since_us)
        return self._log_page(request, request.after, request.limit)

    def _events(self, request: ReadRequest, batch_size: int) -> AsyncIterator[Any]:
        if self._schema_evolution is not None or request.since_us is not None:
            return super()._events(request, batch_size)
        # Nothing is waited for, so that an async generator would only cost time.
        stream = self.log.stream(
            request.after, batch_size, request.up_to, self._plain_query(request.query), request.partition
        )
        assert stream is not None, "the arguments were checked"
        return stream

    async def _batches(self, request: ReadRequest, batch_size: int) -> AsyncIterator[list[Any]]:
        if self._schema_evolution is not None or request.since_us is not None:
            async for batch in super()._batches(request, batch_size):
                yield batch
            return
        for batch in self._log_batches(request, batch_size):
            yield batch

    def _log_batches(self, request: ReadRequest, batch_size: int) -> Iterator[list[Any]]:
        after, query = request.after, self._plain_query(request.query)
        while True:
            events, after, _ = self.log.page(after, batch_size, request.up_to, query, request.partition, False)
            if events:
                yield events
            if len(events) < batch_size:
                return

    def _log_page(self, request: ReadRequest, after: int, limit: int | None) -> Page:
        query = self._plain_query(request.query)
        return Page(*self.log.page(after, limit, request.up_to, query, request.partition, request.with_stream_ids))

    def _read_since(self, request: ReadRequest, since_us: int) -> Page:
        events: list[Any] = []
        streams: list[str] = []
        after = request.after
        while True:
            page = self._log_page(request, after, _PAGE_SIZE)
            for number, event in enumerate(page.events):
                if microseconds(event.occurred_at) <= since_us:
                    continue
                events.append(event)
                streams.extend(page.stream_ids[number : number + 1])
                if len(events) == request.limit:
                    return Page(events, event.sequence_number, streams)
            if len(page.events) < _PAGE_SIZE:
                return Page(events, page.position, streams)
            after = page.position

    async def _count(self, request: ReadRequest) -> int:
        if request.since_us is not None:
            return len(self._read_since(replace(request, limit=None), request.since_us).events)
        return self.log.count(request.after, request.up_to, self._plain_query(request.query), request.partition)

    async def _bounds(self, stream_id: str) -> StreamBounds:
        return StreamBounds(*self.log.bounds(stream_id))

    async def _head(self) -> int:
        return self.log.head()

    async def _compact(self, stream_id: str, up_to_version: int) -> int:
        return self.log.compact(stream_id, up_to_version)

    async def _removals(self) -> dict[str, int]:
        return dict(self.log.removals())

    async def _stream_ids(self) -> list[str]:
        return self.log.stream_ids()


class InMemorySnapshotStore(AbstractSnapshotStore):
    """Snapshots inside this process. States are copied in and out, through the codec as on every backend.

    Args:
        max_snapshots_per_aggregate: Older ones beyond this number are removed; at least 1.
    """

    def __init__(self, max_snapshots_per_aggregate: int = 5) -> None:
        super().__init__()
        self._max = check_number(max_snapshots_per_aggregate, "max_snapshots_per_aggregate", 1)
        self._codec = EventCodec(format="binary")
        self._snapshots: dict[str, dict[int, tuple[Snapshot, tuple[bytes, bytes]]]] = {}

    def clear(self) -> None:
        """Remove all snapshots."""
        self._snapshots.clear()

    async def close(self) -> None:
        """Do nothing: snapshots are kept as long as the store object lives."""

    async def _open(self) -> None:
        """Do nothing."""

    async def _close(self) -> None:
        """Do nothing."""

    async def _save(self, aggregate_id: str, snapshot: Snapshot) -> None:
        # Encoded, so that what no durable backend can store is refused here too.
        values = self._codec.encode_value(snapshot.state), self._codec.encode_value(snapshot.metadata)
        taken = snapshot.timestamp if snapshot.timestamp.tzinfo else snapshot.timestamp.replace(tzinfo=UTC)
        bare, unit = replace(snapshot, state={}, metadata={}, timestamp=taken), current_unit_of_work()
        if unit is None:
            self._keep(aggregate_id, bare, values)
        else:
            unit.on_commit(lambda: self._keep(aggregate_id, bare, values))

    def _keep(self, aggregate_id: str, bare: Snapshot, values: tuple[bytes, bytes]) -> None:
        kept = {**self._snapshots.get(aggregate_id, {}), bare.version: (bare, values)}
        # One assignment of a finished dictionary: a reader in another thread sees the old one or the new one.
        self._snapshots[aggregate_id] = {version: kept[version] for version in sorted(kept)[-self._max :]}

    async def _load(self, aggregate_id: str, version: int | None) -> Snapshot | None:
        snapshots = self._snapshots.get(aggregate_id)
        if not snapshots:
            return None
        found = snapshots.get(max(snapshots) if version is None else version)
        if found is None:
            return None
        state, metadata = map(self._codec.decode_value, found[1])
        return replace(found[0], state=state, metadata=metadata)

    async def _delete_old(self, aggregate_id: str, keep_count: int) -> int:
        unit = current_unit_of_work()
        removed = max(0, len(self._snapshots.get(aggregate_id, {})) - keep_count)
        if unit is None:
            self._forget(aggregate_id, keep_count)
        else:
            unit.on_commit(lambda: self._forget(aggregate_id, keep_count))
        return removed

    def _forget(self, aggregate_id: str, keep_count: int) -> None:
        snapshots = self._snapshots.get(aggregate_id, {})
        kept = sorted(snapshots)[-keep_count:] if keep_count else []
        if kept:
            self._snapshots[aggregate_id] = {version: snapshots[version] for version in kept}
        else:
            self._snapshots.pop(aggregate_id, None)
