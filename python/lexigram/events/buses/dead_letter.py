"""Dead letters: events that a handler could not handle, kept in order until somebody edits, replays or purges them.

A *lane* is one handler together with one aggregate. While an entry of a lane is pending, later events of that lane
are parked behind it (`waiting=True`), so the handler never sees an aggregate's events out of order. Events without
an aggregate id have no lane and are never parked. Source: spec/reference-surface.md.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from lexigram.contracts.domain.events import DomainEvent
from lexigram.events.buses.dead_letter_entry import (
    DeadLetterEntry,
    DeadLetterFilter,
    DeadLetterGroup,
    Lane,
    ReplayReport,
)
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.clock import now
from lexigram.events.messages.texts import words_of
from lexigram.events.stores._life import Closable
from lexigram.events.stores.unit_of_work import current_unit_of_work

__all__ = ["DeadLetterEntry", "DeadLetterFilter", "DeadLetterStore", "InMemoryDeadLetterStore", "Lane", "ReplayReport"]


_GROUPED_AT_ONCE = 1000


class DeadLetterStore(Closable, ABC):
    """Keeps dead letters. A backend implements the six primitives at the end; everything else is written once here."""

    def __init__(self) -> None:
        self._lane_locks: dict[Lane, tuple[asyncio.Lock, int]] = {}

    async def save(self, entry: DeadLetterEntry) -> None:
        """Insert `entry` (assigning its position), or replace the stored entry of the same id.

        Raises:
            EventValidationError: No handler name or no entry id; nothing is stored.
        """
        for name in ("entry_id", "handler_name"):
            if not getattr(entry, name):
                raise EventValidationError(f"A dead letter needs {name}; set it to a non-empty string", field=name)
        await self._put(entry)

    async def get(self, entry_id: str) -> DeadLetterEntry | None:
        """Return the entry, or None."""
        found = await self._select(DeadLetterFilter(entry_id=entry_id), 0, 1)
        return found[0] if found else None

    async def list_entries(
        self,
        event_type: str | None = None,
        handler_name: str | None = None,
        limit: int = 100,
        *,
        aggregate_id: str | None = None,
        replayed: bool | None = None,
        after: int = 0,
    ) -> list[DeadLetterEntry]:
        """Return entries in order of arrival, replayed ones included unless `replayed=False`.

        Args:
            limit: At most this many, from 1.
            after: Only entries whose position is greater; for paging.
        """
        if limit < 1:
            raise EventValidationError(f"limit must be at least 1, not {limit}", field="limit")
        wanted = DeadLetterFilter(None, event_type, handler_name, aggregate_id, replayed)
        return await self._select(wanted, after, limit)

    async def get_count(self, event_type: str | None = None, *, replayed: bool | None = None) -> int:
        """Return how many entries there are, replayed ones included unless `replayed=False`."""
        return await self._count(DeadLetterFilter(event_type=event_type, replayed=replayed))

    async def delete(self, entry_id: str) -> bool:
        """Remove one entry; what waits behind it stays parked until it is replayed. Return whether it existed."""
        return await self._delete(DeadLetterFilter(entry_id=entry_id)) > 0

    async def purge(self, wanted: DeadLetterFilter, *, expected: int) -> int:
        """Remove all entries that match, provided that there are exactly `expected` of them (see `count`).

        Raises:
            EventValidationError: The count differs; nothing is removed.
        """
        found = await self._count(wanted)
        if found != expected:
            raise EventValidationError(
                f"{found} dead letters match, not {expected}; count again and confirm that number", field="expected"
            )
        return await self._delete(wanted)

    async def count(self, wanted: DeadLetterFilter) -> int:
        """Return how many entries match."""
        return await self._count(wanted)

    async def groups(self, wanted: DeadLetterFilter) -> list[DeadLetterGroup]:
        """Return the matching entries grouped by error type, handler and event type, each with one of them."""
        groups: list[DeadLetterGroup] = []
        for group, position in await self._groups(wanted):
            first = await self._select(DeadLetterFilter(), position - 1, 1)
            groups.append(replace(group, sample=first[0] if first else None))
        return groups

    async def last_position(self) -> int:
        """Return the position of the entry that arrived last, 0 if there is none."""
        return await self._last_position()

    async def mark_replayed(self, entry_id: str) -> None:
        """Mark an entry as handled; it no longer blocks its lane. An unknown id is ignored."""
        entry = await self.get(entry_id)
        if entry is not None:
            await self._put(replace(entry, replayed=True, replayed_at=now(), waiting=False))

    async def edit(self, entry_id: str, event: DomainEvent) -> DeadLetterEntry:
        """Replace the event of a pending entry, for example by a corrected copy.

        Raises:
            EventValidationError: Unknown or already replayed entry, no event, or one of another aggregate (which would
                change the order in which that aggregate's events are handled). Nothing is changed.
        """
        if not isinstance(event, DomainEvent):
            raise EventValidationError(f"event must be an event, not {type(event).__name__}", field="event")
        entry = await self.get(entry_id)
        if entry is None or entry.replayed:
            raise EventValidationError(f"There is no pending dead letter {entry_id!r}", field="entry_id")
        fresh = DeadLetterEntry.of(event, entry.handler_name)
        if fresh.aggregate_id != entry.aggregate_id:
            raise EventValidationError(
                f"The replacement belongs to aggregate {fresh.aggregate_id!r}, the dead letter to "
                f"{entry.aggregate_id!r}; keep the aggregate_id",
                field="event",
            )
        edited = replace(entry, event=event, event_type=fresh.event_type, event_data=fresh.event_data)
        await self._put(edited)
        return edited

    async def replay(self, entry_id: str, event_bus: Any) -> bool:
        """Give a pending entry to its handler again and, if that succeeds, what waited behind it, in order.

        A bus with `redeliver(event, handler_name)` (ours) runs only the handler that failed; any other bus gets
        `publish(event)`.

        Returns:
            True if the entry was handled. False if it is unknown, already replayed, has an earlier pending entry in
            its lane, or failed again (then its error and attempts are updated).
        """
        entry = await self.get(entry_id)
        if entry is None or entry.replayed:
            return False
        if entry.lane is None:
            return await self._replay_one(entry, event_bus)
        async with self.holding(entry.lane):
            lane = DeadLetterFilter(handler_name=entry.lane[0], aggregate_id=entry.lane[1], replayed=False)
            first = await self._select(lane, 0, 1)
            if not first or first[0].entry_id != entry_id or not await self._replay_one(first[0], event_bus):
                return False
            while following := await self._select(lane, 0, 1):
                if not following[0].waiting or not await self._replay_one(following[0], event_bus):
                    break
        return True

    async def replay_all(
        self,
        event_bus: Any,
        wanted: DeadLetterFilter | None = None,
        *,
        limit: int = 100,
        after: int = 0,
        dry_run: bool = False,
    ) -> ReplayReport:
        """Replay up to `limit` pending entries in order of arrival; call again with `after=report.position` to go on.

        An entry whose lane has an earlier pending entry is not tried, so order per aggregate is kept whatever the
        filter. With `dry_run` nothing is tried and `matched` tells how many there are.
        """
        if limit < 1:
            raise EventValidationError(f"limit must be at least 1, not {limit}", field="limit")
        wanted = replace(wanted or DeadLetterFilter(), replayed=False)
        report = ReplayReport(matched=await self._count(wanted), position=after)
        if dry_run:
            return report
        entries = await self._select(wanted, after, limit)
        replayed = failed = blocked = 0
        for entry in entries:
            outcome = await self._replay_in_lane(entry, event_bus)
            replayed += outcome is True
            failed += outcome is False
            blocked += outcome is None
        position = entries[-1].position if entries else after
        finished = len(entries) < limit or not await self._select(wanted, position, 1)
        return ReplayReport(report.matched, replayed, failed, blocked, position, finished)

    async def pending_lanes(self) -> list[Lane]:
        """Return every lane that has a pending entry; a bus reads it once when it starts."""
        return await self._pending_lanes()

    async def is_parked(self, lane: Lane) -> bool:
        """Return whether later events of `lane` have to wait."""
        wanted = DeadLetterFilter(handler_name=lane[0], aggregate_id=lane[1], replayed=False)
        return bool(await self._select(wanted, 0, 1))

    @asynccontextmanager
    async def holding(self, lane: Lane) -> AsyncIterator[None]:
        """Exclude others of this process from the lane: a bus parks and a replay un-parks under it."""
        lock, users = self._lane_locks.get(lane, (None, 0))
        lock = lock or asyncio.Lock()
        self._lane_locks[lane] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            users = self._lane_locks[lane][1] - 1
            if users:
                self._lane_locks[lane] = (lock, users)
            else:
                del self._lane_locks[lane]

    async def _replay_in_lane(self, entry: DeadLetterEntry, event_bus: Any) -> bool | None:
        """Return whether the replay succeeded, or None if an earlier entry of the lane blocks it."""
        if entry.lane is None:
            return await self._replay_one(entry, event_bus)
        async with self.holding(entry.lane):
            lane = DeadLetterFilter(handler_name=entry.lane[0], aggregate_id=entry.lane[1], replayed=False)
            first = await self._select(lane, 0, 1)
            if not first or first[0].entry_id != entry.entry_id:
                return None
            return await self._replay_one(first[0], event_bus)

    async def _replay_one(self, entry: DeadLetterEntry, event_bus: Any) -> bool:
        """Run the entry's handler once more and record the outcome; cancellation leaves the entry as it was."""
        error = await self._redeliver(entry, event_bus)
        moment = now()
        tried = replace(entry, attempts=entry.attempts + 1, waiting=False)
        if error is None:
            await self._put(replace(tried, replayed=True, replayed_at=moment))
        else:
            await self._put(replace(tried, error=words_of(error), error_type=type(error).__name__, failed_at=moment))
        return error is None

    @staticmethod
    async def _redeliver(entry: DeadLetterEntry, event_bus: Any) -> BaseException | None:
        """Hand the event over and return what went wrong."""
        if entry.event is None:
            return EventValidationError(f"Dead letter {entry.entry_id} holds no event; edit it first", field="event")
        redeliver = getattr(event_bus, "redeliver", None)
        try:
            if redeliver is None:
                outcome = await event_bus.publish(entry.event)
            else:
                outcome = await redeliver(entry.event, entry.handler_name)
        except Exception as error:
            return error
        if outcome is None or outcome.is_ok():
            return None
        failure: BaseException = outcome.unwrap_err()
        return failure.__cause__ or failure

    async def _groups(self, wanted: DeadLetterFilter) -> list[tuple[DeadLetterGroup, int]]:
        """Return the groups and the position of the first entry of each. Override where the database can count."""
        groups: dict[tuple[str, str, str], tuple[DeadLetterGroup, int]] = {}
        after = 0
        while page := await self._select(wanted, after, _GROUPED_AT_ONCE):
            after = page[-1].position
            for entry in page:
                key = (entry.error_type, entry.handler_name, entry.event_type)
                known = groups.get(key)
                if known is None:
                    groups[key] = (DeadLetterGroup(*key, 1, entry.failed_at, entry.failed_at), entry.position)
                    continue
                group, position = known
                first, last = min(group.first_seen, entry.failed_at), max(group.last_seen, entry.failed_at)
                groups[key] = (replace(group, count=group.count + 1, first_seen=first, last_seen=last), position)
        return list(groups.values())

    async def _last_position(self) -> int:
        """Override where the database knows better than by paging."""
        after = 0
        while page := await self._select(DeadLetterFilter(), after, _GROUPED_AT_ONCE):
            after = page[-1].position
        return after

    @abstractmethod
    async def _put(self, entry: DeadLetterEntry) -> None:
        """Insert the entry with the next position (set on `entry`), or replace the one of the same id in its place."""

    @abstractmethod
    async def _select(self, wanted: DeadLetterFilter, after: int, limit: int) -> list[DeadLetterEntry]:
        """Return up to `limit` matching entries whose position is greater than `after`, by position, as copies."""

    @abstractmethod
    async def _count(self, wanted: DeadLetterFilter) -> int:
        """Return how many entries match."""

    @abstractmethod
    async def _delete(self, wanted: DeadLetterFilter) -> int:
        """Remove all matching entries in one transaction and return how many."""

    @abstractmethod
    async def _pending_lanes(self) -> list[Lane]:
        """Return the distinct lanes of entries not replayed; entries without aggregate id have none."""


class InMemoryDeadLetterStore(DeadLetterStore):
    """Keeps dead letters in this process; they are lost when it ends. Not limited in size: purge what was handled."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[str, DeadLetterEntry] = {}
        self._pending: dict[Lane, dict[str, DeadLetterEntry]] = {}
        self._position = 0

    def clear(self) -> None:
        """Forget every entry; positions go on."""
        self._entries.clear()
        self._pending.clear()

    async def _last_position(self) -> int:
        return self._position

    async def _put(self, entry: DeadLetterEntry) -> None:
        known = self._entries.get(entry.entry_id)
        if known is None:
            self._position += 1
        entry.position = self._position if known is None else known.position
        self._store(replace(entry))
        unit = current_unit_of_work()
        if unit is not None:
            unit.on_rollback(partial(self._forget, entry.entry_id) if known is None else partial(self._store, known))

    def _store(self, kept: DeadLetterEntry) -> None:
        self._entries[kept.entry_id] = kept
        if kept.lane is not None and not kept.replayed:
            self._pending.setdefault(kept.lane, {})[kept.entry_id] = kept
        else:
            self._unpark(kept)

    async def _select(self, wanted: DeadLetterFilter, after: int, limit: int) -> list[DeadLetterEntry]:
        found: list[DeadLetterEntry] = []
        for entry in self._candidates(wanted):
            if entry.position > after and wanted.matches(entry):
                found.append(replace(entry))
                if len(found) == limit:
                    break
        return found

    async def _count(self, wanted: DeadLetterFilter) -> int:
        return sum(wanted.matches(entry) for entry in self._candidates(wanted))

    async def _delete(self, wanted: DeadLetterFilter) -> int:
        gone = [entry.entry_id for entry in self._candidates(wanted) if wanted.matches(entry)]
        unit = current_unit_of_work()
        for entry_id in gone:
            if unit is None:
                self._forget(entry_id)
            else:
                unit.on_commit(partial(self._forget, entry_id))
        return len(gone)

    def _forget(self, entry_id: str) -> None:
        entry = self._entries.pop(entry_id, None)
        if entry is not None:
            self._unpark(entry)

    async def _pending_lanes(self) -> list[Lane]:
        return list(self._pending)

    def _candidates(self, wanted: DeadLetterFilter) -> Iterable[DeadLetterEntry]:
        """Return the entries that may match, by position: cost follows the lane where one is asked for."""
        if wanted.entry_id is not None:
            entry = self._entries.get(wanted.entry_id)
            return () if entry is None else (entry,)
        if wanted.handler_name is not None and wanted.aggregate_id is not None and wanted.replayed is False:
            return self._pending.get((wanted.handler_name, wanted.aggregate_id), {}).values()
        return self._entries.values()

    def _unpark(self, entry: DeadLetterEntry) -> None:
        """Take the entry out of its lane."""
        waiting = self._pending.get(entry.lane) if entry.lane is not None else None
        if waiting is not None:
            waiting.pop(entry.entry_id, None)
            if not waiting:
                del self._pending[entry.lane]  # type: ignore[arg-type]
