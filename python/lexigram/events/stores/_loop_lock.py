"""Objects that live longer than one event loop: a lock for each loop, and a clear error in the wrong one."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from weakref import WeakKeyDictionary

from lexigram.events.exceptions import EventStoreConnectionError


def check_loop(loop: asyncio.AbstractEventLoop | None, store: str) -> None:
    """Raise `EventStoreConnectionError` unless the running loop is the one in which this kind of store was connected."""
    if asyncio.get_running_loop() is not loop:
        raise EventStoreConnectionError(
            f"the {store} store was connected in another event loop; give each loop a store of its own"
        )


class LoopLock:
    """An asyncio lock of which each event loop has its own.

    `asyncio.Lock` belongs for ever to the first loop in which somebody waited for it; a store is used in one loop after
    the other by test runners and by programs that call `asyncio.run` twice.
    """

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def __aenter__(self) -> None:
        await self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()).acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self._locks[asyncio.get_running_loop()].release()


class OneLoopLock(LoopLock):
    """A lock for what one event loop at a time may open: one in another thread is refused meanwhile.

    Args:
        store: Kind of store, for the error.
    """

    def __init__(self, store: str) -> None:
        super().__init__()
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inside = 0
        self._guard = threading.Lock()

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        with self._guard:
            if self._loop is not loop:
                if self._inside and self._loop is not None and self._loop.is_running():
                    check_loop(self._loop, self._store)
                self._loop, self._inside = loop, 0
            self._inside += 1
        try:
            await super().__aenter__()
        except BaseException:
            self._leave(loop)
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc_val, exc_tb)
        self._leave(asyncio.get_running_loop())

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._guard:
            if self._loop is loop:
                self._inside -= 1
