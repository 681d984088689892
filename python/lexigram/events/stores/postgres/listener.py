"""Wakes readers when another process or store commits: LISTEN on a connection of its own, opened again when lost.

It begins when the first reader waits. A process that only writes needs no such connection, and its server nobody to notify.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final

from lexigram.events.stores._wakeup import Wakeup

_MIN_BACKOFF_SECONDS: Final = 0.05
_MAX_BACKOFF_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 2.0


class Listener:
    """Listens on one channel; while it has no connection, readers poll.

    Args:
        connect: Returns a fresh connection.
        disconnect: Gives `(connection, is_broken)` back; never raises.
    """

    def __init__(
        self,
        channel: str,
        wakeup: Wakeup,
        connect: Callable[[], Awaitable[Any]],
        disconnect: Callable[[Any, bool], Awaitable[None]],
    ) -> None:
        self._channel, self._wakeup = channel, wakeup
        self._connect, self._disconnect = connect, disconnect
        self._lost = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.is_listening = False

    def start(self) -> None:
        """Connect and listen in a task, from the first call to `stop`."""
        if self._task is None and not self._stopping.is_set():
            self._task = asyncio.create_task(self._run(), name="lexigram-events-listener", context=Context())

    async def stop(self) -> None:
        """Stop listening and give the connection back."""
        self._stopping.set()
        self._lost.set()
        if self._task is not None:
            # Cancelling a connection that is being made would leave its socket to the garbage collector.
            _, running = await asyncio.wait((self._task,), timeout=_STOP_SECONDS)
            for task in running:
                task.cancel()
                await asyncio.wait((task,))

    async def _run(self) -> None:
        pause = _MIN_BACKOFF_SECONDS
        while not self._stopping.is_set():
            try:
                await self._listen()
                pause = _MIN_BACKOFF_SECONDS
            except Exception:
                pause = min(pause * 2, _MAX_BACKOFF_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _listen(self) -> None:
        """Listen on one connection until it is lost or `stop` is called."""
        self._lost.clear()
        connection = await self._connect()
        try:
            connection.add_termination_listener(self._on_lost)
            await connection.add_listener(self._channel, self._on_notify)
            self.is_listening = True
            # Whatever was committed while nobody listened.
            self._wakeup.notify()
            if not self._stopping.is_set():
                await self._lost.wait()
        finally:
            self.is_listening = False
            is_broken = connection.is_closed()
            if not is_broken:
                connection.remove_termination_listener(self._on_lost)
                with suppress(Exception):
                    await connection.remove_listener(self._channel, self._on_notify)
            await self._disconnect(connection, is_broken)

    def _on_lost(self, _connection: Any) -> None:
        self._lost.set()

    def _on_notify(self, *_: Any) -> None:
        self._wakeup.notify()
