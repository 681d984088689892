"""Entries that could not be delivered: kept among the dead letters, in order per key, and tried again."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lexigram.events.buses.dead_letter_entry import DeadLetterFilter
from lexigram.events.messages.clock import now
from lexigram.events.stores.outbox.entry import OutboxEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lexigram.events.buses.dead_letter_entry import DeadLetterEntry
    from lexigram.events.stores.outbox.publishers import OutboxPublisherProtocol
    from lexigram.events.stores.outbox.store import AbstractOutboxStore

UNREACHABLE: Final = (ConnectionError, TimeoutError)
"""What a publisher raises if the broker is away; that says nothing about the entry and is no reason to give it up."""
_PAGE: Final = 200
_MAX_BACKOFF_SECONDS: Final = 300.0


class Aside:
    """What one relay does with entries that are set aside. One relay at a time tries them again, under a lock."""

    def __init__(
        self,
        outbox: AbstractOutboxStore,
        publisher: OutboxPublisherProtocol,
        owner: str,
        max_attempts: int,
        backoff_seconds: float,
        lease_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._letters = outbox.dead_letters
        self._publisher = publisher
        self._owner = owner
        self.max_attempts = max_attempts
        self._backoff = backoff_seconds
        self._lease = lease_seconds
        self._next_look = 0.0
        self._after = 0

    async def split(self, entries: Sequence[OutboxEntry]) -> tuple[list[OutboxEntry], list[OutboxEntry]]:
        """Return what may be delivered, and what has to wait because an earlier entry of its key is set aside."""
        if not entries or not await self._outbox.has_set_aside():
            return list(entries), []
        handler = self._outbox.handler_name
        blocked = {
            key for key in {entry.key for entry in entries} if await self._letters.is_parked((handler, key or ""))
        }
        return [e for e in entries if e.key not in blocked], [e for e in entries if e.key in blocked]

    async def retry_due(self) -> int:
        """Try what is due again, each key in order; return how many entries were delivered. Cheap if there is nothing."""
        seconds = time.monotonic()
        if seconds < self._next_look:
            return 0
        self._next_look = seconds + min(self._backoff, 1.0) / 2
        if not await self._outbox.has_set_aside() or not await self._hold():
            return 0
        try:
            return await self._retry_page()
        finally:
            await self._outbox.checkpoints.release_lock(self._lock, self._owner)

    @property
    def _lock(self) -> str:
        return f"{self._outbox.name}:aside"

    async def _hold(self) -> bool:
        return await self._outbox.checkpoints.acquire_lock(self._lock, self._owner, self._lease)

    async def _retry_page(self) -> int:
        """Look at the next page of set-aside entries, so that many hopeless ones do not hide the others."""
        wanted = DeadLetterFilter(handler_name=self._outbox.handler_name, replayed=False)
        page = await self._letters._select(wanted, self._after, _PAGE)
        self._after = page[-1].position if len(page) == _PAGE else 0
        delivered, seen = 0, set()
        for letter in page:
            if letter.lane is None or letter.lane in seen:
                continue
            seen.add(letter.lane)
            if self._is_due(letter):
                async with self._letters.holding(letter.lane):
                    delivered += await self._retry_lane(replace(wanted, aggregate_id=letter.aggregate_id))
        return delivered

    def _is_due(self, letter: DeadLetterEntry) -> bool:
        if letter.waiting:
            return True
        if letter.attempts >= self.max_attempts:
            return False
        pause = min(self._backoff * 2 ** min(letter.attempts, 20), _MAX_BACKOFF_SECONDS)
        return abs(now() - letter.failed_at) >= timedelta(seconds=pause)  # in the future: the clock was set back since

    async def _retry_lane(self, lane: DeadLetterFilter) -> int:
        """Deliver the entries of one key until one fails again or is not due."""
        delivered = 0
        while letters := await self._letters._select(lane, 0, _PAGE):
            if not self._is_due(letters[0]) or not await self._hold():
                break
            ready = letters[:1]
            for letter in letters[1:]:
                if not letter.waiting:
                    break
                ready.append(letter)
            sent, failed = await self._send(ready)
            delivered += sent
            if failed:
                break
        return delivered

    async def _send(self, letters: Sequence[DeadLetterEntry]) -> tuple[int, bool]:
        entries = [self._entry(letter) for letter in letters]
        failures = await self._publisher.publish(entries)
        moment = now()
        for number, (letter, entry) in enumerate(zip(letters, entries, strict=True)):
            error = failures.get(entry.entry_id)
            tried = replace(letter, attempts=letter.attempts + 1, waiting=False)
            if error is not None:
                if isinstance(error, UNREACHABLE):
                    tried = replace(tried, attempts=letter.attempts)
                await self._letters.save(
                    replace(tried, error=str(error), error_type=type(error).__name__, failed_at=moment)
                )
                return number, True
            await self._letters.save(replace(tried, replayed=True, replayed_at=moment))
        return len(letters), False

    def _entry(self, letter: DeadLetterEntry) -> OutboxEntry:
        assert letter.event is not None, "set_aside stores the event"
        encoded = self._outbox.codec.encode(letter.event)
        return OutboxEntry.of(
            letter.event,
            encoded.payload,
            encoded.type_name,
            key=letter.aggregate_id,
            attempts=letter.attempts,
            error=letter.error or None,
        )
