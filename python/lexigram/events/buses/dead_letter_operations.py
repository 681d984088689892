"""What an operator does with dead letters: see what failed and why, edit, retry, replay in bulk, purge."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.buses.dead_letter_entry import DeadLetterEntry, DeadLetterFilter, DeadLetterGroup
from lexigram.events.exceptions import EventValidationError

if TYPE_CHECKING:
    from lexigram.contracts.domain.events import DomainEvent
    from lexigram.events.buses.dead_letter import DeadLetterStore
    from lexigram.events.stores.checkpoints import AbstractCheckpointStore

_OUTBOX: Final = "outbox:"
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ReplayProgress:
    """How far a replay job has come.

    Args:
        job: Its name.
        total: Pending entries at or below `until` when this call began; in a dry run nothing else is filled in.
        replayed: Handled successfully by this call, or given back to the outbox's relay.
        failed: Tried and failed again; they keep their place.
        blocked: Not tried, because an earlier entry of their aggregate is still pending.
        position: Everything up to here has been looked at.
        until: The last position the job looks at: what is parked later belongs to the next job.
        finished: Whether the job has come to `until`.
    """

    job: str
    total: int
    replayed: int = 0
    failed: int = 0
    blocked: int = 0
    position: int = 0
    until: int = 0
    finished: bool = False


@dataclass(frozen=True)
class PurgePlan:
    """What a purge would remove, and the token that confirms exactly that."""

    count: int
    token: str
    sample: tuple[DeadLetterEntry, ...] = ()


class DeadLetterOperations:
    """Operations on the dead letters of one store.

    Args:
        letters: The store.
        event_bus: Retries entries; has `redeliver(event, handler_name)` as the event bus does.
        checkpoints: Where replay jobs keep their place, so that they go on after a restart.
        routes: Other objects with `redeliver`, by the prefix of the handler names that belong to them.
    """

    def __init__(
        self,
        letters: DeadLetterStore,
        event_bus: Any,
        checkpoints: AbstractCheckpointStore,
        *,
        routes: Mapping[str, Any] | None = None,
    ) -> None:
        self._letters = letters
        self._bus = event_bus
        self._checkpoints = checkpoints
        self._routes = dict(routes or {})

    async def groups(self, wanted: DeadLetterFilter | None = None) -> list[DeadLetterGroup]:
        """Return what failed, by error type, handler and event type, the largest group first; pending entries only.

        Entries that only wait behind others are a group without error type. Cost: one pass over the matching entries,
        inside the database on SQLite, PostgreSQL and MongoDB.
        """
        groups = await self._letters.groups(_pending(wanted))
        return sorted(groups, key=lambda group: (-group.count, group.handler_name, group.event_type))

    async def inspect(self, entry_id: str) -> DeadLetterEntry | None:
        """Return one entry with its event, or None."""
        return await self._letters.get(entry_id)

    async def edit(self, entry_id: str, event: DomainEvent) -> DeadLetterEntry:
        """Replace the event of a pending entry; see `DeadLetterStore.edit`."""
        return await self._letters.edit(entry_id, event)

    async def retry(self, entry_id: str) -> bool:
        """Try one entry again and, if that succeeds, what waits behind it; tell whether it was handled.

        An entry of the outbox is given back to its relay, which tries it next.
        """
        entry = await self._letters.get(entry_id)
        if entry is None or entry.replayed:
            return False
        if entry.handler_name.startswith(_OUTBOX):
            await self._give_back(entry)
            return True
        return await self._letters.replay(entry_id, self._route(entry.handler_name))

    async def replay(
        self,
        job: str,
        wanted: DeadLetterFilter | None = None,
        *,
        limit: int | None = None,
        concurrency: int = 8,
        rate_per_second: float | None = None,
        page_size: int = 200,
        dry_run: bool = False,
    ) -> ReplayProgress:
        """Replay pending entries in order of arrival, each once; call again with the same job to go on.

        The place is stored after every page. After a kill the job goes on there; entries of the page in hand that
        were handled already are not replayed again. A finished job starts anew at the next call.

        Args:
            job: Name of the job.
            wanted: Which entries; the same at every call of a job.
            limit: Look at no more than about this many entries in this call; None = all.
            concurrency: Aggregates replayed at the same time, at least 1.
            rate_per_second: At most this many entries per second; None = as fast as handlers are.
            page_size: Entries read at a time, at least 1.
            dry_run: Only count.
        """
        for name, value in (("concurrency", concurrency), ("page_size", page_size), ("limit", limit)):
            if value is not None and value < 1:
                raise EventValidationError(f"{name} must be at least 1, not {value}", field=name)
        if rate_per_second is not None and not rate_per_second > 0:
            raise EventValidationError(
                f"rate_per_second must be above 0, not {rate_per_second}", field="rate_per_second"
            )
        wanted = _pending(wanted)
        total = await self._letters.count(wanted)
        if dry_run:
            return ReplayProgress(job, total)
        place, end = f"replay:{job}", f"replay:{job}:until"
        position, until = await self._checkpoints.get_checkpoint(place), await self._checkpoints.get_checkpoint(end)
        if not until:
            until = await self._letters.last_position()
            await self._checkpoints.save_checkpoint(end, until)
        progress = ReplayProgress(job, total, position=position, until=until)
        started, looked_at = time.monotonic(), 0
        while not progress.finished and (limit is None or looked_at < limit):
            size = page_size if limit is None else min(page_size, limit - looked_at)
            page = [e for e in await self._letters._select(wanted, progress.position, size) if e.position <= until]
            progress = await self._replay_page(page, progress, concurrency)
            looked_at += len(page)
            if len(page) < size:
                progress = replace(progress, position=until, finished=True)
            await self._checkpoints.save_checkpoint(place, progress.position)
            if rate_per_second is not None and not progress.finished:
                await asyncio.sleep(max(0.0, looked_at / rate_per_second - (time.monotonic() - started)))
        if progress.finished:
            await self.cancel_replay(job)
        return progress

    async def cancel_replay(self, job: str) -> None:
        """Forget the place of a job; its next call starts anew."""
        await self._checkpoints.delete_checkpoint(f"replay:{job}")
        await self._checkpoints.delete_checkpoint(f"replay:{job}:until")

    async def plan_purge(self, wanted: DeadLetterFilter, *, sample: int = 5) -> PurgePlan:
        """Count what a purge would remove and return the token that confirms it. Removes nothing."""
        counted = _up_to(wanted, await self._letters.last_position())
        count = await self._letters.count(counted)
        shown = await self._letters._select(counted, 0, sample) if sample else []
        return PurgePlan(count, _token(wanted, count, counted.up_to), tuple(shown))

    async def purge(self, wanted: DeadLetterFilter, token: str) -> int:
        """Remove what `plan_purge` counted, not what has come since, and return how many entries that were.

        Raises:
            EventValidationError: LEX_ERR_EVT_024, the token is for another filter, or some of the entries counted do
                not match any more; nothing is removed.
        """
        last = token.split("-")[2:3]
        counted = _up_to(wanted, int(last[0]) if last and last[0].isdecimal() else 0)
        count = await self._letters.count(counted)
        if token != _token(wanted, count, counted.up_to):
            raise EventValidationError(
                f"the token does not confirm this purge: {count} of the dead letters that were there match now; "
                "plan the purge again",
                field="token",
            )
        return await self._letters.purge(counted, expected=count)

    async def _replay_page(
        self, page: list[DeadLetterEntry], progress: ReplayProgress, concurrency: int
    ) -> ReplayProgress:
        """Replay one page: aggregates at the same time, the entries of each in order."""
        turns = asyncio.Semaphore(concurrency)

        async def replay_lane(entries: list[DeadLetterEntry]) -> list[bool | None]:
            async with turns:
                return [await self._replay_one(entry) for entry in entries]

        keyed = sorted(page, key=lambda entry: (entry.lane or (entry.entry_id, ""), entry.position))
        lanes = [list(entries) for _, entries in groupby(keyed, lambda entry: entry.lane or (entry.entry_id, ""))]
        outcomes = [outcome for lane in await asyncio.gather(*map(replay_lane, lanes)) for outcome in lane]
        return replace(
            progress,
            replayed=progress.replayed + outcomes.count(True),
            failed=progress.failed + outcomes.count(False),
            blocked=progress.blocked + outcomes.count(None),
            position=page[-1].position if page else progress.position,
        )

    async def _replay_one(self, entry: DeadLetterEntry) -> bool | None:
        if entry.handler_name.startswith(_OUTBOX):
            await self._give_back(entry)
            return True
        return await self._letters._replay_in_lane(entry, self._route(entry.handler_name))

    async def _give_back(self, entry: DeadLetterEntry) -> None:
        """Let the outbox's relay try the entry at once; it keeps order per key."""
        if not entry.waiting:
            await self._letters.save(replace(entry, attempts=0, failed_at=_LONG_AGO))

    def _route(self, handler_name: str) -> Any:
        for prefix, target in self._routes.items():
            if handler_name.startswith(prefix):
                return target
        return self._bus


def _pending(wanted: DeadLetterFilter | None) -> DeadLetterFilter:
    return replace(wanted or DeadLetterFilter(), replayed=False)


def _up_to(wanted: DeadLetterFilter, position: int) -> DeadLetterFilter:
    return replace(wanted, up_to=position if wanted.up_to is None else min(position, wanted.up_to))


def _token(wanted: DeadLetterFilter, count: int, last: int | None) -> str:
    """Return what confirms the purge of `count` entries up to a position."""
    digest = hashlib.sha256(f"{wanted!r}:{count}:{last}".encode()).hexdigest()[:12]
    return f"purge-{count}-{last}-{digest}"
