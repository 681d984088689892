"""Idempotency: which consumer has processed which message."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores._life import Closable
from lexigram.events.stores._validation import FOREVER_SECONDS, check_id, check_text
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    from uuid import UUID

    from lexigram.events.stores._sql import SqlIdempotencyStore as SqlIdempotencyStore


class AbstractIdempotencyStore(Closable, ABC):
    """Remembers messages by consumer and message id, for ever or until they expire."""

    async def is_processed(self, consumer_id: str, message_id: str | UUID) -> bool:
        """Tell whether this consumer has marked this message and the mark has not expired."""
        return await self._is_processed(check_text(consumer_id, "consumer_id"), check_id(message_id, "message_id"))

    async def mark_processed(self, consumer_id: str, message_id: str | UUID, expires_in: float | None = None) -> None:
        """Mark a message; inside a unit of work it counts once that is committed. Marking again renews the expiry.

        Args:
            consumer_id: 1 to 255 characters.
            message_id: UUID or string, compared as string.
            expires_in: Seconds after which the mark is forgotten, above 0; None = never.
        """
        check_text(consumer_id, "consumer_id")
        await self._mark(consumer_id, check_id(message_id, "message_id"), check_expiry(expires_in))

    async def claim(self, consumer_id: str, message_id: str | UUID, expires_in: float | None = None) -> bool:
        """Mark a message and tell whether this call was the first: of N concurrent claims exactly one gets True."""
        check_text(consumer_id, "consumer_id")
        return await self._claim(consumer_id, check_id(message_id, "message_id"), check_expiry(expires_in))

    async def is_settled(self, consumer_id: str, message_id: str | UUID) -> bool:
        """Tell whether the message is marked for good, not just claimed by a unit of work that has not ended yet."""
        return await self._is_settled(check_text(consumer_id, "consumer_id"), check_id(message_id, "message_id"))

    @abstractmethod
    async def clear_expired(self) -> int:
        """Remove expired marks and return how many."""

    async def _is_settled(self, consumer_id: str, message_id: str) -> bool:
        """Override where a claim can be seen before the unit of work that made it is committed."""
        return await self._is_processed(consumer_id, message_id)

    async def _is_joined(self) -> bool:
        """Override where marks are written elsewhere, and at once, if the current unit of work is of another database."""
        return True

    @abstractmethod
    async def _is_processed(self, consumer_id: str, message_id: str) -> bool: ...

    @abstractmethod
    async def _mark(self, consumer_id: str, message_id: str, expires_in: float | None) -> None: ...

    @abstractmethod
    async def _claim(self, consumer_id: str, message_id: str, expires_in: float | None) -> bool:
        """Mark if unmarked or expired, atomically; tell whether it was."""


def check_expiry(expires_in: float | None) -> float | None:
    """Return `expires_in` if it is None or a number of seconds above 0; more than the calendar has is never (None)."""
    if expires_in is None:
        return None
    if not isinstance(expires_in, int | float) or isinstance(expires_in, bool) or not expires_in > 0:
        raise EventValidationError(
            f"expires_in must be a number of seconds above 0, got {expires_in!r}", field="expires_in"
        )
    return None if expires_in > FOREVER_SECONDS else float(expires_in)


class InMemoryIdempotencyStore(AbstractIdempotencyStore):
    """Marks of one process."""

    def __init__(self) -> None:
        self._marks: dict[tuple[str, str], float | None] = {}
        self._lock = threading.Lock()
        self._unsettled: set[tuple[str, str]] = set()

    async def _is_settled(self, consumer_id: str, message_id: str) -> bool:
        key = (consumer_id, message_id)
        return key not in self._unsettled and self._is_marked(key)

    async def clear_expired(self) -> int:
        """Remove expired marks and return how many."""
        now = time.monotonic()
        with self._lock:
            expired = [key for key, until in self._marks.items() if until is not None and until <= now]
            for key in expired:
                del self._marks[key]
        return len(expired)

    async def _is_processed(self, consumer_id: str, message_id: str) -> bool:
        return self._is_marked((consumer_id, message_id))

    def _is_marked(self, key: tuple[str, str]) -> bool:
        until = self._marks.get(key, 0.0)
        return until is None or until > time.monotonic()

    async def _mark(self, consumer_id: str, message_id: str, expires_in: float | None) -> None:
        until = None if expires_in is None else time.monotonic() + expires_in
        unit = current_unit_of_work()
        if unit is None:
            self._marks[consumer_id, message_id] = until
        else:
            unit.on_commit(lambda: self._marks.__setitem__((consumer_id, message_id), until))

    async def _claim(self, consumer_id: str, message_id: str, expires_in: float | None) -> bool:
        key = (consumer_id, message_id)
        with self._lock:
            if self._is_marked(key):
                return False
            self._marks[key] = None if expires_in is None else time.monotonic() + expires_in
        unit = current_unit_of_work()
        if unit is not None:
            # Claimed at once, so that nobody else gets it meanwhile; given back if the work is rolled back.
            self._unsettled.add(key)
            unit.on_rollback(lambda: self._give_back(key))
            unit.on_commit(lambda: self._unsettled.discard(key))
        return True

    def _give_back(self, key: tuple[str, str]) -> None:
        self._unsettled.discard(key)
        self._marks.pop(key, None)


def __getattr__(name: str) -> object:
    # Imports sqlite3, so only for those who use it.
    if name == "SqlIdempotencyStore":
        from lexigram.events.stores._sql import SqlIdempotencyStore

        return SqlIdempotencyStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
