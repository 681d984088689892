"""Abstract stores. `AbstractEventStore` writes every public method once, over the primitives of a backend."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lexigram.contracts.events.protocols.store import EventStoreProtocol
from lexigram.events.exceptions import EventPersistenceError, EventValidationError
from lexigram.events.messages.registry import default_registry
from lexigram.events.messages.stamping import prepare_all, stamp_all
from lexigram.events.stores._evolution import evolve
from lexigram.events.stores._life import StoreLife
from lexigram.events.stores._primitives import Page, ReadRequest
from lexigram.events.stores._records import StoredEvent as StoredEvent
from lexigram.events.stores._settled import settled
from lexigram.events.stores._stream import EventStreamMixin
from lexigram.events.stores._validation import (
    MAX_POSITION,
    check_events,
    check_id,
    check_number,
    check_optional,
    check_stream_id,
)
from lexigram.events.stores._wakeup import Wakeup
from lexigram.events.stores.checkpoints import AbstractCheckpointStore as AbstractCheckpointStore
from lexigram.events.stores.condition import AppendCondition, ResolvedCondition
from lexigram.events.stores.idempotency import AbstractIdempotencyStore as AbstractIdempotencyStore
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork, current_unit_of_work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lexigram.contracts.core.health import HealthCheckResult
    from lexigram.contracts.core.hooks import HookRegistryProtocol
    from lexigram.events.messages.registry import EventTypeRegistry
    from lexigram.events.stores._inline import InlineAppends
    from lexigram.events.stores.outbox.store import AbstractOutboxStore
    from lexigram.events.types import StreamInfo

Archiver = Callable[[list[Any]], Awaitable[None] | None]
"""Takes the events that compaction is about to remove; if it raises, nothing is removed."""


class AbstractEventStore(StoreLife, EventStreamMixin, EventStoreProtocol, ABC):
    """Base of all event stores.

    Args:
        schema_evolution: Converts older events when they are read; None = events are returned as stored.
        registry: Resolves event types; the default registry knows every event class of the program.
    """

    def __init__(self, schema_evolution: Any | None = None, *, registry: EventTypeRegistry | None = None) -> None:
        StoreLife.__init__(self)
        self._schema_evolution = schema_evolution
        self._registry = default_registry if registry is None else registry
        self._wakeup = Wakeup()
        self._inline: InlineAppends | None = None
        self._hooks: HookRegistryProtocol | None = None
        self._outboxes_in_use = set()

    # Life cycle

    async def close(self) -> None:
        """Release all resources; a second call does nothing. Subscriptions end with `EventStoreConnectionError`."""
        for outbox in list(self._outboxes_in_use):
            await outbox.close()
        await super().close()
        self._wakeup.notify()

    async def health_check(self, timeout: float = 5.0) -> HealthCheckResult:
        """Report within `timeout` seconds whether the store answers; never raises."""
        from lexigram.contracts.core.health import HealthCheckResult, HealthStatus

        started = time.perf_counter()
        details: dict[str, Any] = {"store": type(self).__name__}
        error: str | None = None
        try:
            async with asyncio.timeout(timeout):
                details["position"] = await self.head()
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        return HealthCheckResult(
            component="event_store",
            status=HealthStatus.UNHEALTHY if error else HealthStatus.HEALTHY,
            message=f"{type(self).__name__} {'does not answer' if error else 'answers'}",
            error=error,
            duration_ms=(time.perf_counter() - started) * 1000,
            details=details,
        )

    def set_hook_registry(self, hooks: HookRegistryProtocol | None) -> None:
        """Fire `EventStoredHook` through this registry after each append; None = fire nothing."""
        self._hooks = hooks

    def unit_of_work(self) -> AbstractUnitOfWork:
        """Return an async context manager: appends inside it succeed or fail together and become visible at its end."""
        raise EventPersistenceError(f"{type(self).__name__} has no transactions")

    def checkpoint_store(self) -> AbstractCheckpointStore | None:
        """Return a checkpoint store in the same database, so that one unit of work covers both; None = there is none."""
        return None

    def outbox(self, name: str = "event_outbox") -> AbstractOutboxStore:
        """Return the outbox of this name: once it is connected, what is appended here is also delivered by relays."""
        raise EventPersistenceError(f"{type(self).__name__} has no outbox")

    # Writing

    async def append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None = None,
        *,
        condition: AppendCondition | None = None,
    ) -> int:
        """Append events to a stream, all or none.

        Fresh events are stamped in place with version and position once they are stored; events that already carry a
        position are stored as copies. Appending the same event ids again, as after a lost connection, stores nothing
        and returns what the first attempt returned or would have returned.

        Args:
            stream_id: 1 to 255 characters.
            events: Any number; none writes nothing and returns the current version.
            expected_version: None = any; 0 = the stream must be new; n = it must be at version n.
            condition: Nothing that its query selects may have been appended after its position.

        Returns:
            The version of the last event stored.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004, with both versions; nothing was written.
            EventValidationError: LEX_ERR_EVT_024.
            SerializationError: LEX_ERR_EVT_025, names the field.
            EventPersistenceError: LEX_ERR_EVT_012; nothing was written.
        """
        stream_id = check_stream_id(stream_id)
        if expected_version is not None:
            expected_version = check_number(expected_version, "expected_version")
        check_events(events)
        resolved = None if condition is None else self._resolve(condition)
        if not self._is_open:
            await self._ready()
        if not events:
            return (await self._bounds(stream_id)).version
        prepared = prepare_all(events)
        if self._inline is not None and self._inline.wants(prepared):
            return await self._inline.append(stream_id, prepared, expected_version, resolved)
        unit = self._unit_of_work()
        if unit is not None:
            return await self._append_in(unit, stream_id, prepared, expected_version, resolved)
        version, position = await self._append(stream_id, prepared, expected_version, resolved, None)
        self._stamp(prepared, version, position)
        self._wakeup.notify()
        if self._hooks is not None:
            await self._fire_stored(stream_id, prepared)
        return version

    async def compact(self, stream_id: str, up_to_version: int, archiver: Archiver | None = None) -> int:
        """Remove the events of a stream up to and including a version; versions and positions of the rest stay.

        Args:
            stream_id: The stream.
            up_to_version: Highest version to remove.
            archiver: Gets the events first, oldest first; if it raises, nothing is removed.

        Returns:
            Number of events removed.
        """
        stream_id = check_stream_id(stream_id)
        up_to = check_number(up_to_version, "up_to_version")
        await self._ready()
        if archiver is not None:
            events = await self._read(stream_id, 1, up_to, None) if up_to else []
            if not events:
                return 0
            # Only what the archiver has seen is removed.
            up_to = events[-1].version
            outcome = archiver(events)
            if outcome is not None:
                await outcome
        return await self._remove(stream_id, up_to) if up_to else 0

    async def delete_stream(self, stream_id: str) -> int:
        """Remove all events of a stream and return how many. Its version counter stays: the next append goes on."""
        stream_id = check_stream_id(stream_id)
        await self._ready()
        version = (await self._bounds(stream_id)).version
        return await self._remove(stream_id, version) if version else 0

    async def _remove(self, stream_id: str, up_to: int) -> int:
        """Remove events, inside a unit of work when that is committed."""
        unit = self._unit_of_work()
        if unit is None or unit.is_transaction:
            return await self._remove_now(stream_id, up_to)
        first, version = await self._bounds(stream_id)
        note, last = ("removed", stream_id), min(up_to, version)
        first = max(first, unit.notes.get(note, 0) + 1) if first else 0
        if not 0 < first <= last:
            return 0
        unit.notes[note] = last

        async def remove() -> None:
            await settled(asyncio.ensure_future(self._remove_now(stream_id, last)))

        unit.on_commit(remove)
        return last - first + 1

    async def _remove_now(self, stream_id: str, up_to: int) -> int:
        await self._before_removal(stream_id, up_to)
        return await self._compact(stream_id, up_to)

    # Reading

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
        """Return events of one stream in order.

        Args:
            stream_id: The stream; one that does not exist has no events.
            from_version: First version to return (inclusive).
            to_version: Last version to return (inclusive); None = up to the end.
            limit: At most this many events; None = all.
            start: The contract's spelling: last version seen (exclusive). Not together with the three above.
            count: The contract's spelling of `limit`. Not together with the three above.

        Raises:
            EventValidationError: LEX_ERR_EVT_024.
            EventLoadError: LEX_ERR_EVT_011; an event cannot be rebuilt or converted.
        """
        stream_id = check_stream_id(stream_id)
        from_version = check_number(from_version, "from_version")
        to_version = check_optional(to_version, "to_version")
        limit = check_optional(limit, "limit")
        if start is not None or count is not None:
            if from_version or to_version is not None or limit is not None:
                raise EventValidationError(
                    "give start/count or from_version/to_version/limit, not both",
                    field="start" if count is None else "count",
                )
            from_version = (check_optional(start, "start") or 0) + 1
            limit = check_optional(count, "count")
        await self._ready()
        if limit == 0 or to_version == 0 or from_version > MAX_POSITION:
            return []
        return await self._evolve(await self._read(stream_id, max(from_version, 1), to_version, limit))

    async def read_all(self, position: int = 0, count: int | None = None) -> list[Any]:
        """Return up to `count` events after a position (exclusive), in global order; None = all that are stored."""
        after = check_number(position, "position")
        return (await self._page(ReadRequest(after, check_optional(count, "count")))).events

    async def find_by_aggregate(self, aggregate_id: Any) -> list[Any]:
        """Return all events of an aggregate (UUID or string; its stream id is the same), in order."""
        return await self.read(check_id(aggregate_id, "aggregate_id"))

    async def get_stream_version(self, stream_id: str) -> int:
        """Return the version of the last event ever stored in the stream; 0 if it never existed."""
        stream_id = check_stream_id(stream_id)
        await self._ready()
        return (await self._bounds(stream_id)).version

    async def stream_exists(self, stream_id: str) -> bool:
        """Tell whether the stream holds events. Reads none of them."""
        stream_id = check_stream_id(stream_id)
        await self._ready()
        return (await self._bounds(stream_id)).first > 0

    async def get_stream_info(self, stream_id: str) -> StreamInfo | None:
        """Return version, number of stored events and times of the first and last of them; None without events."""
        stream_id = check_stream_id(stream_id)
        await self._ready()
        first_version, version = await self._bounds(stream_id)
        if not first_version:
            return None
        from lexigram.events.types import StreamInfo

        first = await self._read(stream_id, first_version, None, 1)
        last = await self._read(stream_id, version, version, 1)
        if not first or not last:  # removed between the two reads
            return await self.get_stream_info(stream_id)
        return StreamInfo(
            stream_id=stream_id,
            aggregate_type=last[0].aggregate_type,
            version=version,
            event_count=version - first_version + 1,
            created_at=first[0].occurred_at,
            updated_at=last[0].occurred_at,
        )

    async def get_stream_ids(self) -> list[str]:
        """Return the ids of all streams that hold events, sorted."""
        await self._ready()
        return await self._stream_ids()

    async def get_events_count(self, stream_id: str | None = None) -> int:
        """Return the number of events stored, in one stream or in all."""
        if stream_id is not None:
            stream_id = check_stream_id(stream_id)
        await self._ready()
        if stream_id is None:
            return await self._count(ReadRequest())
        first, version = await self._bounds(stream_id)
        return version - first + 1 if first else 0

    async def head(self) -> int:
        """Return the highest position assigned; every event at or below it is visible."""
        await self._ready()
        return await self._head()

    # For backends

    async def _page(self, request: ReadRequest) -> Page:
        if not self._is_open:
            await self._ready()
        if request.limit == 0:
            return Page([], request.after)
        page = await self._read_all(request)
        if self._schema_evolution is None:
            return page
        return page._replace(events=await self._evolve(page.events))

    async def _evolve(self, events: list[Any]) -> list[Any]:
        return events if self._schema_evolution is None else await evolve(self._schema_evolution, events)

    def _unit_of_work(self) -> AbstractUnitOfWork | None:
        """Return the open unit of work that appends to this store join. Backends that share an engine override it."""
        return current_unit_of_work(self)

    def _resolve(self, condition: AppendCondition) -> ResolvedCondition:
        if not isinstance(condition, AppendCondition):
            raise EventValidationError(f"condition must be an AppendCondition, not {condition!r}", field="condition")
        return ResolvedCondition(condition.query.resolve(self._registry), condition.after)

    async def _append_in(
        self,
        unit: AbstractUnitOfWork,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
    ) -> int:
        """Append inside a unit of work; events are stamped and readers woken once it is committed."""
        version, position = await self._append(stream_id, events, expected_version, condition, unit)
        unit.on_commit(lambda: self._stored(stream_id, events, version, position))
        return version

    async def _stored(self, stream_id: str, events: Sequence[Any], version: int, position: int) -> None:
        """Stamp what has just become durable, wake readers, fire hooks."""
        self._stamp(events, version, position)
        self._wakeup.notify()
        if self._hooks is not None:
            await self._fire_stored(stream_id, events)

    def _stamp(self, events: Sequence[Any], version: int, position: int) -> None:
        stamp_all(events, version - len(events), position - len(events))

    async def _fire_stored(self, stream_id: str, events: Sequence[Any]) -> None:
        from lexigram.events.hooks import EventStoredHook, fire

        hooks = self._hooks
        if hooks is None or not hooks.has_action(EventStoredHook.name):
            return
        for event in events:
            await fire(hooks, EventStoredHook(event_type=self._registry.type_name(type(event)), stream_id=stream_id))


class AbstractEventStoreFactory(ABC):
    """Makes event stores."""

    @abstractmethod
    async def create_event_store(self) -> AbstractEventStore:
        """Return a new store, connected."""
