"""Parks events a projection cannot apply, and later events of the same aggregate behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from lexigram.events.buses.dead_letter import DeadLetterEntry, DeadLetterFilter, DeadLetterStore
from lexigram.events.stores.unit_of_work import current_unit_of_work

PREFIX = "projection:"
_PAGE = 200


class ParkedEvents:
    """The dead letters of one projection; an event without aggregate id never makes others wait."""

    def __init__(self, store: DeadLetterStore, projection: str) -> None:
        self._store = store
        self._handler = PREFIX + projection
        self._any: bool | None = None

    async def any(self) -> bool:
        """Return whether some aggregate's events have to wait."""
        if self._any is not False:
            self._any = any(handler == self._handler for handler, _ in await self._store.pending_lanes())
        return self._any

    @asynccontextmanager
    async def holding(self, event: Any) -> AsyncIterator[None]:
        """Keep a replay of the same aggregate out meanwhile."""
        lane = DeadLetterEntry.of(event, self._handler).lane
        if lane is None:
            yield
        else:
            async with self._store.holding(lane):
                yield

    async def must_wait(self, event: Any) -> bool:
        """Return whether an earlier event of the same aggregate is still parked."""
        if event.aggregate_id is None:
            return False
        return await self._store.is_parked((self._handler, str(event.aggregate_id)))

    async def park(self, event: Any, error: Exception | None) -> None:
        """Store the event: failed with `error`, or (None) waiting behind an earlier one."""
        cause = None if error is None else error.__cause__ or error
        await self._store.save(DeadLetterEntry.of(event, self._handler, cause, attempts=0 if error is None else 1))
        self._any = True

    async def settle(self, event: Any) -> None:
        """Note in the current transaction, where the letters share it, that a parked event has now been applied.

        Whoever replays it notes that too, but only afterwards: a crash in between would apply the event twice.
        """
        unit = current_unit_of_work()
        if unit is None or getattr(getattr(self._store, "database", None), "engine", None) is not unit.resource:
            return
        lane = DeadLetterEntry.of(event, self._handler)
        wanted = DeadLetterFilter(handler_name=self._handler, aggregate_id=lane.aggregate_id, replayed=False)
        after = 0
        while page := await self._store._select(wanted, after, _PAGE):
            for letter in page:
                if letter.event is not None and letter.event.event_id == event.event_id:
                    await self._store.mark_replayed(letter.entry_id)
                    return
            after = page[-1].position

    async def forget(self) -> None:
        """Remove what is parked: a rebuild applies those events again."""
        wanted = DeadLetterFilter(handler_name=self._handler, replayed=False)
        count = await self._store.count(wanted)
        if count:
            await self._store.purge(wanted, expected=count)
        self._any = None
