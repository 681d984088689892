"""Reads the log once for all projections that are at the same place, and waits for its growth."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from typing import Any

from lexigram.events.exceptions import ProjectionBuildError
from lexigram.events.projections.base import Positioned
from lexigram.events.stores._primitives import Page, ReadRequest

POLL_SECONDS = 0.5
"""How often a store without wake-up is looked at, and how old the known head may be while reading."""

_LONGEST_WAIT_SECONDS = 60.0
_HEAD_PAGE = 1000
"""Events read at once from a store that cannot tell its head."""


class LogReader:
    """Shared reader of one event store.

    Projections that follow the log closely ask for the same events within a short time; each event is fetched and
    decoded once as long as they stay within `keep` events of each other.

    Args:
        store: Anything with `read_all(position, count)`; a store of ours also tells its head and wakes the reader.
        keep: Decoded events kept for the slower projections.
    """

    def __init__(self, store: Any, keep: int = 8192) -> None:
        self.store = store
        self.head = 0
        self._keep = keep
        self._after = 0
        self._events: list[Positioned] = []
        self._reading = asyncio.Lock()
        self._refreshed = 0.0

    async def read(self, after: int, limit: int) -> list[Positioned]:
        """Return up to `limit` events after a position; none if there are no more at present."""
        found = self._kept(after, limit)
        if not found:
            async with self._reading:
                found = self._kept(after, limit) or await self._fetch(after, limit)
        return found

    async def refresh(self) -> int:
        """Return the highest position of the log."""
        head = getattr(self.store, "head", None)
        self._refreshed = time.monotonic()
        if head is not None:
            now: int = await head()
            self.head = max(self.head, now)
            return now
        while found := _placed(await self.store.read_all(self.head, _HEAD_PAGE), self.head):
            self.head = found[-1][1]
        return self.head

    async def end_of_gap(self, after: int) -> int:
        """Return the position up to which nothing follows `after`, now and for ever: what was there is removed.

        Raises:
            ProjectionBuildError: LEX_ERR_EVT_015; the log ends before `after`.
        """
        head = await self.refresh()  # before reading: whatever is at or below it is visible
        if head < after and hasattr(self.store, "head"):
            raise ProjectionBuildError(
                f"The position is {after}, but the log ends at {head}: it has begun anew or is an older copy. "
                "Reset or rebuild what follows it"
            )
        return after if head <= after or await self.read(after, 1) else head

    async def wait(self, after: int) -> None:
        """Return when there may be events after a position: as soon as the store tells, or after a while."""
        wait_for_events = getattr(self.store, "wait_for_events", None)
        if wait_for_events is None:
            await asyncio.sleep(POLL_SECONDS)
        else:
            await wait_for_events(after, _LONGEST_WAIT_SECONDS)

    def _kept(self, after: int, limit: int) -> list[Positioned]:
        if not self._events or after < self._after or after >= self._events[-1][1]:
            return []
        start = bisect_right(self._events, after, key=_position)
        return self._events[start : start + limit]

    async def _fetch(self, after: int, limit: int) -> list[Positioned]:
        if time.monotonic() - self._refreshed > POLL_SECONDS:
            await self.refresh()
        events = await self.store.read_all(after, limit)
        fetched = _placed(events, after)
        if fetched:
            if self._events and self._events[-1][1] == after:
                excess = len(self._events) + len(fetched) - self._keep
                if excess > 0:
                    dropped = self._events[min(excess, len(self._events)) - 1]
                    self._after = dropped[1]
                    del self._events[:excess]
                self._events.extend(fetched)
            elif after >= self._after or not self._events:
                self._after, self._events = after, fetched
            self.head = max(self.head, fetched[-1][1])
        return fetched


class PartitionReader:
    """Reads one partition of the streams, for a projection that several workers share.

    Args:
        whole: The reader of the whole log.
        index: From 0.
        total: Number of partitions.
    """

    def __init__(self, whole: LogReader, index: int, total: int) -> None:
        self._whole = whole
        self._partition = (index, total)
        self._is_checked = False

    @property
    def head(self) -> int:
        """The last known head of the log."""
        return self._whole.head

    async def read(self, after: int, limit: int) -> list[Positioned]:
        """Return up to `limit` events of this partition after a position."""
        page = await self._page(after, limit)
        return [(event, event.sequence_number) for event in page.events]

    async def refresh(self) -> int:
        """Return the highest position of the log."""
        return await self._whole.refresh()

    async def end_of_gap(self, after: int) -> int:
        """Return the position up to which nothing of this partition follows `after`; see `LogReader.end_of_gap`."""
        if not self._is_checked:  # once: it costs a look at the whole log
            await self._whole.end_of_gap(after)
            self._is_checked = True
        page = await self._page(after, 1)
        return after if page.events else max(after, page.position)

    async def wait(self, after: int) -> None:
        """Return when there may be events after a position."""
        await self._whole.wait(after)

    async def _page(self, after: int, limit: int) -> Page:
        page: Page = await self._whole.store._page(ReadRequest(after=after, limit=limit, partition=self._partition))
        self._whole.head = max(self._whole.head, page.position)
        return page


def _placed(events: list[Any], after: int) -> list[Positioned]:
    """Return events with their positions; those of a store that does not stamp them are counted."""
    if events and events[0].sequence_number is None:
        return [(event, number) for number, event in enumerate(events, after + 1)]
    return [(event, event.sequence_number) for event in events]


def _position(item: Positioned) -> int:
    return item[1]
