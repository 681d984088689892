"""Wakes sagas that wait for events, when a timer or their deadline is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from lexigram.events.sagas.types import now

_LONGEST_SECONDS = 60.0
"""So often the clock is read again: it may have been put forward."""


class Alarms:
    """At most one alarm per saga, by the wall clock. Kept in memory: what counts is stored with the sagas.

    Args:
        ring: Called with the id of a saga that has something to do.
    """

    def __init__(self, ring: Callable[[str], None]) -> None:
        self._ring = ring
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def set(self, saga_id: str, due: datetime | None) -> None:
        """Ring at this moment, instead of any earlier setting; None never."""
        self.cancel(saga_id)
        if due is not None:
            delay = min(max(0.0, (due - now()).total_seconds()), _LONGEST_SECONDS)
            self._handles[saga_id] = asyncio.get_running_loop().call_later(delay, self._look, saga_id, due)

    def cancel(self, saga_id: str) -> None:
        """Do not ring for this saga."""
        handle = self._handles.pop(saga_id, None)
        if handle is not None:
            handle.cancel()

    def clear(self) -> None:
        """Do not ring for any saga."""
        for saga_id in list(self._handles):
            self.cancel(saga_id)

    def _look(self, saga_id: str, due: datetime) -> None:
        del self._handles[saga_id]
        if due > now():
            self.set(saga_id, due)
        else:
            self._ring(saga_id)
