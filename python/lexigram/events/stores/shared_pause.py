"""A pause that holds for all workers of a group, kept beside their leases. Source: design, section projections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from lexigram.events.stores.checkpoints import AbstractCheckpointStore

_log = logging.getLogger(__name__)

_LEASE_SECONDS: Final = 10.0
_MIN_BACKOFF_SECONDS: Final = 0.05
_MAX_BACKOFF_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 5.0


class SharedPause:
    """Whether a group is paused, as every worker sees it: one that started later, too.

    It is the fault of a lock of its own. A checkpoint store that keeps no faults pauses this process only.

    Args:
        checkpoints: Where the leases are.
        group: Name of the group.
        owner: Identifies this worker.
    """

    def __init__(self, checkpoints: AbstractCheckpointStore, group: str, owner: str) -> None:
        self.is_on = False
        self.changes = 0
        """How often this worker has changed it; see `see`."""
        self._checkpoints, self._owner, self._group = checkpoints, owner, group
        self._name = f"paused:{group}"
        self._is_kept = type(checkpoints)._fail is not AbstractCheckpointStore._fail
        self._is_stored = True
        self._task: asyncio.Task[None] | None = None

    def set(self, is_on: bool) -> None:
        """Turn it on or off: here at once, for the others when it is stored, which is tried until it succeeds."""
        self.is_on, self._is_stored = is_on, not self._is_kept
        self.changes += 1
        with suppress(RuntimeError):  # no event loop runs yet; it is stored when the group starts
            self.store_soon()

    def store_soon(self) -> None:
        """Store in a task what is not stored yet."""
        if not self._is_stored and (self._task is None or self._task.done()):
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._store(), name=f"pause of {self._group}")

    async def stop(self) -> None:
        """Give the task that stores it a few seconds to end."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=_STOP_SECONDS)
            self._task.cancel()

    def see(self, faults: Mapping[str, str], changes: int) -> None:
        """Take what the database says, unless this worker has changed it since `changes` or has not stored it."""
        if self._is_kept and self._is_stored and changes == self.changes:
            self.is_on = self._name in faults

    async def _store(self) -> None:
        pause = _MIN_BACKOFF_SECONDS
        while not self._is_stored:
            is_on, changes = self.is_on, self.changes
            try:
                if await self._checkpoints.acquire_lock(self._name, self._owner, _LEASE_SECONDS):
                    await self._checkpoints.release_lock(self._name, self._owner, fault="paused" if is_on else None)
                    self._is_stored = changes == self.changes
                    self.changes += 1  # what was read meanwhile is old
                    continue
            except Exception as error:  # the database may be away
                if pause == _MIN_BACKOFF_SECONDS:
                    _log.warning("pause of %s cannot be stored yet: %s: %s", self._group, type(error).__name__, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MAX_BACKOFF_SECONDS)
