"""Reading across streams: paging by cursor, by type, queries, subscription, replay."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.exceptions import EventStoreConnectionError, EventValidationError
from lexigram.events.stores._primitives import EventStorePrimitives, Page, ReadRequest
from lexigram.events.stores._records import StoredEvent
from lexigram.events.stores._validation import check_number, check_optional, check_partition
from lexigram.events.stores._wakeup import Wakeup
from lexigram.events.stores.condition import AppendCondition, EventQuery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from lexigram.events.messages.registry import EventTypeRegistry
    from lexigram.events.stores.outbox.store import AbstractOutboxStore

_log = logging.getLogger(__name__)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PAGE_SIZE: Final = 1000
_MIN_BACKOFF_SECONDS: Final = 0.05
_MAX_BACKOFF_SECONDS: Final = 5.0


class EventStreamMixin(EventStorePrimitives):
    """Methods that follow the global log. Positions are exclusive: "the last position I have processed"."""

    poll_interval_seconds: float = 1.0
    """Backstop of `subscribe`: how long it waits for a wake-up before it looks anyway."""

    _wakeup: Wakeup
    _is_closed: bool
    _registry: EventTypeRegistry
    _outboxes_in_use: set[AbstractOutboxStore]

    async def _before_removal(self, stream_id: str, up_to_version: int) -> None:
        """Let outboxes that deliver from the log keep what they have not delivered yet."""
        for outbox in list(self._outboxes_in_use):
            await outbox.before_removal(stream_id, up_to_version)

    async def _page(self, request: ReadRequest) -> Page:
        """Read one page from an open store, with schema evolution applied."""
        raise AssertionError  # written in AbstractEventStore

    def stream_all(
        self,
        from_position: int = 0,
        batch_size: int = 100,
        partition: int | None = None,
        total_partitions: int | None = None,
    ) -> AsyncIterator[Any]:
        """Yield all events after a position in global order, up to the head.

        Args:
            from_position: Last position processed (exclusive); 0 = from the beginning.
            batch_size: Events fetched at a time, at least 1.
            partition: Only streams of this partition, 0 to total_partitions - 1.
            total_partitions: Number of partitions; all backends and processes divide the streams alike.

        Raises:
            EventValidationError: LEX_ERR_EVT_024.
        """
        return self._stream(self._request(from_position, partition, total_partitions), batch_size)

    def stream_batches(
        self,
        from_position: int = 0,
        batch_size: int = 100,
        partition: int | None = None,
        total_partitions: int | None = None,
        event_types: Iterable[type | str] | None = None,
    ) -> AsyncIterator[list[Any]]:
        """Yield the events of `stream_all` in non-empty lists of up to `batch_size`."""
        request = self._request(from_position, partition, total_partitions, event_types)
        return self._batches(request, check_number(batch_size, "batch_size", 1))

    def stream_by_type(
        self, event_types: type | str | Iterable[type | str], from_position: int = 0, batch_size: int = 100
    ) -> AsyncIterator[Any]:
        """Yield the events of these types after a position, in global order. Cost follows the matching events.

        Args:
            event_types: Classes (subclasses included), class names, full names, aliases, or the `event_type` that
                events or their classes were given.
            from_position: Last position processed (exclusive).
            batch_size: Events fetched at a time, at least 1.

        Raises:
            EventValidationError: LEX_ERR_EVT_024; a name is ambiguous or no type.
        """
        return self._stream(self._request(from_position, event_types=event_types), batch_size)

    async def find_by_type(self, event_type: type | str, count: int = 100, start: int = 0) -> list[Any]:
        """Return up to `count` events of one type with a position above `start`, in global order."""
        limit = check_number(count, "count")
        request = replace(self._request(start, event_types=(event_type,), field="start"), limit=limit)
        return (await self._page(request)).events

    async def query(
        self,
        types: EventQuery | type | str | Iterable[type | str] | None = None,
        tags: str | Iterable[str] | None = None,
        *,
        from_position: int = 0,
        limit: int | None = None,
    ) -> list[Any]:
        """Return the events of any of `types` that carry all of `tags`, across streams, in global order.

        Args:
            types: As in `stream_by_type`; or a whole `EventQuery`, then without `tags`.
            tags: Tags that must all be there.
            from_position: Last position processed (exclusive).
            limit: At most this many events; None = all.
        """
        check_optional(limit, "limit")
        if isinstance(types, EventQuery):
            if tags is not None:
                raise EventValidationError("tags are part of the EventQuery; give one or the other", field="tags")
            query = types
        else:
            query = EventQuery(types, tags)
        request = ReadRequest(
            check_number(from_position, "from_position"), limit=limit, query=query.resolve(self._registry)
        )
        return (await self._page(request)).events

    async def query_for_append(
        self,
        types: EventQuery | type | str | Iterable[type | str] | None = None,
        tags: str | Iterable[str] | None = None,
    ) -> tuple[list[Any], AppendCondition]:
        """Return what a decision depends on, and the condition under which it may be appended: nothing of it changed.

        One read, where `head()` and `query()` are two. Arguments as for `query`.
        """
        query = types if isinstance(types, EventQuery) and tags is None else EventQuery(types, tags)  # type: ignore[arg-type]
        page = await self._page(ReadRequest(query=query.resolve(self._registry)))
        return page.events, AppendCondition(query, after=page.position)

    async def head(self) -> int:
        """Return the highest position assigned; every event at or below it is visible."""
        raise AssertionError  # written in AbstractEventStore

    async def subscribe(
        self,
        from_position: int = 0,
        batch_size: int = 100,
        event_types: Iterable[type | str] | None = None,
    ) -> AsyncIterator[Any]:
        """Yield the events after a position, then go on with new ones as they are stored; never ends by itself.

        There is no gap and no duplicate between the two. New events wake the reader; every `poll_interval_seconds` it
        looks without being woken. Stop by leaving the loop, by cancelling the task or with `aclose()`.

        While the server is away it waits, tries again after growing pauses of up to 5 s, and goes on from its position;
        the log says so once per outage. It also says so if `from_position` lies behind the end of the events.

        Args:
            from_position: Last position processed (exclusive).
            batch_size: Events fetched at a time, at least 1.
            event_types: Only these types (classes, names, aliases); None = all.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014; the store was closed meanwhile, or could not be reached at the
                first read.
        """
        limit = check_number(batch_size, "batch_size", 1)
        position = check_number(from_position, "from_position")
        types = None if event_types is None else EventQuery(event_types)
        has_read, pause = False, 0.0
        with self._wakeup.reader():
            while True:
                seen = self._wakeup.count
                # Resolved for each page: a subclass defined meanwhile belongs to its parent's subscription.
                query = None if types is None else types.resolve(self._registry)
                try:
                    page = await self._page(ReadRequest(position, limit, query=query))
                except EventStoreConnectionError as error:
                    if self._is_closed or not has_read:
                        raise
                    if not pause:
                        _log.warning("a subscription waits at position %d for its store: %s", position, error.message)
                    pause = min(pause * 2 or _MIN_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS)
                    await self._wakeup.wait(seen, pause)
                    continue
                if position and not has_read and not page.events and (head := await self.head()) < position:
                    _log.warning(
                        "a subscription begins behind position %d, but the log ends at %d and may have begun anew: it "
                        "yields nothing until the log gets there",
                        position,
                        head,
                    )
                has_read, pause = True, 0.0
                for event in page.events:
                    yield event
                position = page.position
                if len(page.events) < limit:
                    await self._wakeup.wait(seen, self.poll_interval_seconds)

    async def wait_for_events(self, position: int, timeout_seconds: float) -> bool:
        """Wait until there is an event after `position`; return whether there is.

        For readers that fetch batches themselves. Woken like `subscribe`, with the same polling backstop.
        """
        deadline = monotonic() + timeout_seconds
        with self._wakeup.reader():
            while True:
                seen = self._wakeup.count
                if await self.head() > position:
                    return True
                remaining = deadline - monotonic()
                if remaining <= 0:
                    return False
                await self._wakeup.wait(seen, min(remaining, self.poll_interval_seconds))

    async def find_events_since(self, checkpoint: int | datetime = 0, limit: int = 100) -> list[Any]:
        """Return up to `limit` events after a position, or that occurred after a time, in global order.

        Args:
            checkpoint: Last position processed (exclusive) or a time (exclusive; without zone it is UTC). With a time
                the cost is linear in the log.
            limit: At most this many events.
        """
        maximum = check_number(limit, "limit")
        if isinstance(checkpoint, datetime):
            request = ReadRequest(limit=maximum, since_us=microseconds(checkpoint))
        else:
            request = ReadRequest(check_number(checkpoint, "checkpoint"), limit=maximum)
        return (await self._page(request)).events

    async def get_stored_events_since(self, global_sequence: int = 0, *, limit: int = 1000) -> list[StoredEvent]:
        """Return up to `limit` events after a position as records with their stream and plain data."""
        maximum = check_number(limit, "limit")
        request = ReadRequest(check_number(global_sequence, "global_sequence"), maximum, with_stream_ids=True)
        page = await self._page(request)
        return [StoredEvent.of(event, stream) for event, stream in zip(page.events, page.stream_ids, strict=True)]

    async def replay_events(
        self,
        handler: Any,
        since: datetime | None = None,
        event_types: Iterable[type | str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Pass the events stored so far through an async handler, one after the other.

        Args:
            handler: Called with each event and awaited if it returns an awaitable. What it raises ends the replay.
            since: Only events that occurred later than this.
            event_types: Only these types.
            on_progress: Called with (delivered, total) after each event.

        Returns:
            Number of events delivered. Events appended meanwhile are not among them.
        """
        if not callable(handler):
            raise EventValidationError("handler must be callable", field="handler")
        request = replace(
            self._request(0, event_types=event_types),
            up_to=await self.head(),
            since_us=None if since is None else microseconds(since),
        )
        total = await self._count(request) if on_progress is not None else 0
        delivered = 0
        async for event in self._stream(request, _PAGE_SIZE):
            outcome = handler(event)
            if hasattr(outcome, "__await__"):
                await outcome
            delivered += 1
            if on_progress is not None:
                on_progress(delivered, total)
        return delivered

    def _request(
        self,
        from_position: int,
        partition: int | None = None,
        total_partitions: int | None = None,
        event_types: type | str | Iterable[type | str] | None = None,
        field: str = "from_position",
    ) -> ReadRequest:
        return ReadRequest(
            after=check_number(from_position, field),
            query=None if event_types is None else EventQuery(event_types).resolve(self._registry),
            partition=check_partition(partition, total_partitions),
        )

    def _stream(self, request: ReadRequest, batch_size: int) -> AsyncIterator[Any]:
        check_number(batch_size, "batch_size", 1)
        return self._events(request, batch_size)

    async def _events(self, request: ReadRequest, batch_size: int) -> AsyncIterator[Any]:
        async for batch in self._batches(request, batch_size):
            for event in batch:
                yield event

    async def _batches(self, request: ReadRequest, batch_size: int) -> AsyncIterator[list[Any]]:
        while True:
            page = await self._page(replace(request, limit=batch_size))
            if page.events:
                yield page.events
            if len(page.events) < batch_size:
                return
            request = replace(request, after=page.position)


def microseconds(moment: datetime) -> int:
    """Return a time as microseconds since 1970; one without a zone is taken as UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)
