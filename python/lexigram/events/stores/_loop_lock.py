"""Objects that live longer than one event loop: a lock for each loop, and a clear error in the wrong one."""

from __future__ import annotations

import asyncio
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

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def __aenter__(self) -> None:
        await self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()).acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self._locks[asyncio.get_running_loop()].release()
