"""A broker for tests that fails as real ones do: it refuses, loses its confirmations, and delivers twice."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from lexigram.events.stores.outbox.publishers import AbstractOutboxPublisher

if TYPE_CHECKING:
    from lexigram.events.stores.outbox.entry import OutboxEntry


class UnreliableBroker(AbstractOutboxPublisher):
    """Takes entries and writes down what it got, in `received`, as (key, entry id, message).

    Args:
        failure_rate: Share of entries that fail, 0 to 1; half of them are refused, of the other half only the
            confirmation is lost.
        duplicate_rate: Share of entries that are received twice.
        seed: Makes a run repeatable.
        refuses: Entry ids that are always refused.
    """

    def __init__(
        self,
        failure_rate: float = 1 / 3,
        duplicate_rate: float = 0.1,
        *,
        seed: int = 0,
        refuses: set[str] | None = None,
    ) -> None:
        super().__init__()
        self._failure_rate = failure_rate
        self._duplicate_rate = duplicate_rate
        self._random = random.Random(seed)
        self.refuses = set() if refuses is None else refuses
        self.received: list[tuple[str | None, str, Any]] = []

    async def send(self, entry: OutboxEntry) -> None:
        """Receive an entry, or fail.

        Raises:
            RuntimeError: Refused, or received and not confirmed.
        """
        if entry.entry_id in self.refuses:
            raise ValueError(f"poison: {entry.entry_id}")
        fails = self._random.random() < self._failure_rate
        loses_reply = fails and self._random.random() < 0.5
        if fails and not loses_reply:
            raise RuntimeError("refused")
        self._receive(entry)
        if self._random.random() < self._duplicate_rate:
            self._receive(entry)
        if loses_reply:
            raise RuntimeError("confirmation lost")

    def _receive(self, entry: OutboxEntry) -> None:
        self.received.append((entry.key, entry.entry_id, entry.message))

    def first_deliveries(self) -> dict[str | None, list[Any]]:
        """Return the messages by key, each at its first delivery."""
        seen: set[str] = set()
        by_key: dict[str | None, list[Any]] = {}
        for key, entry_id, message in self.received:
            if entry_id not in seen:
                seen.add(entry_id)
                by_key.setdefault(key, []).append(message)
        return by_key
