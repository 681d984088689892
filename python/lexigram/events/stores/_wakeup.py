"""Wakes readers that wait for new events, whichever thread or loop they are in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Wakeup:
    """Counts notifications; a waiter first takes the count, then reads, then waits for a higher count.

    Nothing is lost between reading and waiting, and a notification costs one comparison while nobody waits.
    """

    __slots__ = ("_lock", "_waiters", "count", "observe_batch", "on_wait", "readers")

    def __init__(self) -> None:
        self.count = 0
        self.readers = 0
        """How many readers follow the log; a store may leave out `notify` while there are none."""
        self.observe_batch: Callable[[int], object] | None = None
        """Told how many appends shared a commit, where the backend groups them; called from any thread."""
        self.on_wait: Callable[[], object] | None = None
        """Called when a reader begins to wait, by that reader."""
        self._waiters: list[asyncio.Future[None]] = []
        self._lock = threading.Lock()

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Count as a reader for the time of the block."""
        with self._lock:
            self.readers += 1
        try:
            yield
        finally:
            with self._lock:
                self.readers -= 1

    def notify(self) -> None:
        """Wake every waiter. May be called from any thread."""
        self.count += 1
        if self._waiters:
            with self._lock:
                waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                # A loop that has been closed has nobody left to wake.
                with suppress(RuntimeError):
                    waiter.get_loop().call_soon_threadsafe(_release, waiter)

    async def wait(self, seen: int, timeout_seconds: float) -> None:
        """Return once the count differs from `seen`, or after `timeout_seconds`."""
        if self.on_wait is not None:
            self.on_wait()
        if self.count != seen:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiters.append(waiter)
        try:
            if self.count == seen:
                await asyncio.wait((waiter,), timeout=timeout_seconds)
        finally:
            waiter.cancel()
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
