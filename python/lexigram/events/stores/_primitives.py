"""What a backend implements: the primitives behind the public methods of `AbstractEventStore`.

Arguments arrive checked, type names resolved, events unstamped. Backends never stamp, upcast or validate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lexigram.events.exceptions import EventPersistenceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from lexigram.events.stores.condition import ResolvedCondition, ResolvedQuery
    from lexigram.events.stores.unit_of_work import AbstractUnitOfWork


class Appended(NamedTuple):
    """Where a batch was stored: version and global position of its last event. Both are contiguous in a batch."""

    version: int
    position: int


class StreamBounds(NamedTuple):
    """First version still stored (0: no events are stored) and current version (survives every removal)."""

    first: int
    version: int


class Page(NamedTuple):
    """Events in global order; `position` is where to go on: everything at or below it has been looked at."""

    events: list[Any]
    position: int
    stream_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A selection from the global log.

    Attributes:
        after: Only events with a higher position.
        limit: At most this many events (None: all).
        up_to: Only events at or below this position (None: up to the head).
        query: Alternatives by stored type name and tags (None: every event; empty: no event).
        partition: (index, total): only streams whose `partition_of(stream_id, total)` is index.
        since_us: Only events that occurred later than this, in microseconds since 1970 (UTC).
        with_stream_ids: Fill `Page.stream_ids`, one for each event.
    """

    after: int = 0
    limit: int | None = None
    up_to: int | None = None
    query: ResolvedQuery | None = None
    partition: tuple[int, int] | None = None
    since_us: int | None = None
    with_stream_ids: bool = False


class EventStorePrimitives(ABC):
    """The few operations that differ between backends."""

    @abstractmethod
    async def _open(self) -> None:
        """Connect; create or migrate tables. Called once at a time, again only after `_close`."""

    @abstractmethod
    async def _close(self) -> None:
        """Release everything. Called once for each `_open`."""

    @abstractmethod
    def _append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
        unit_of_work: AbstractUnitOfWork | None,
    ) -> Awaitable[Appended]:
        """Store all events or none.

        In this order: (1) if every event id is already stored in this stream, in this order and without others between
        them, return where (a retry after an unknown outcome); if some are stored, raise `EventPersistenceError`
        (`already_stored()` makes it); (2) check `expected_version`; (3) check `condition`; (4) store.
        Inside `unit_of_work` (one on this backend's resource) it becomes visible at commit; the base then stamps the
        events with what is returned here.

        Raises:
            ConcurrencyError: (2) or (3) failed.
            SerializationError: An event cannot be encoded.
            EventPersistenceError: Anything else; nothing is stored.
        """

    @abstractmethod
    async def _read(self, stream_id: str, from_version: int, to_version: int | None, limit: int | None) -> list[Any]:
        """Return the stream's events with from_version <= version <= to_version (from_version >= 1), in order."""

    @abstractmethod
    async def _read_all(self, request: ReadRequest) -> Page:
        """Return the selected events in global order. With fewer than `limit`, `Page.position` is the head (or `up_to`)
        as it was before reading, so that nothing between is skipped; otherwise the position of the last event."""

    @abstractmethod
    async def _count(self, request: ReadRequest) -> int:
        """Return how many events the request selects, ignoring `limit`."""

    @abstractmethod
    async def _bounds(self, stream_id: str) -> StreamBounds:
        """Return (0, 0) for a stream that never existed, (0, n) for one whose events have all been removed."""

    @abstractmethod
    async def _head(self) -> int:
        """Return the highest position ever assigned; 0 for an empty store."""

    @abstractmethod
    async def _compact(self, stream_id: str, up_to_version: int) -> int:
        """Remove the events with version <= up_to_version; return how many. The version counter stays."""

    async def _removals(self) -> dict[str, int]:
        """Return the highest removed version by stream. Backends that know streams without events add those."""
        bounds = {stream_id: await self._bounds(stream_id) for stream_id in await self._stream_ids()}
        return {stream_id: found.first - 1 for stream_id, found in bounds.items() if found.first}

    @abstractmethod
    async def _stream_ids(self) -> list[str]:
        """Return the ids of the streams that hold events, sorted."""


def already_stored(stream_id: str) -> EventPersistenceError:
    """Return the error for a batch of which some event ids are stored already, elsewhere or in another order."""
    return EventPersistenceError(
        f"some of these event ids are already stored and do not match a retry of one append to {stream_id!r}; "
        "nothing was written",
        details={"stream_id": stream_id},
    )
