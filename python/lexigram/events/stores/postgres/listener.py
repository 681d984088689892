"""Wakes readers when another process or store commits: LISTEN on a connection of its own, opened again when lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from lexigram.events.stores._wakeup import Wakeup

_MAX_BACKOFF_SECONDS: Final = 5.0


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
        self._task: asyncio.Task[None] | None = None
        self.is_listening = False

    def start(self) -> None:
        """Connect and listen in a task."""
        self._task = asyncio.create_task(self._run(), name="lexigram-events-listener")

    async def stop(self) -> None:
        """Stop listening and give the connection back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        pause = 0.05
        while True:
            connection = None
            is_broken = True
            try:
                connection = await self._connect()
                self._lost.clear()
                connection.add_termination_listener(self._on_lost)
                await connection.add_listener(self._channel, self._on_notify)
                self.is_listening, pause = True, 0.05
                # Whatever was committed while nobody listened.
                self._wakeup.notify()
                await self._lost.wait()
            except asyncio.CancelledError:
                is_broken = connection is None
                raise
            except Exception:
                pause = min(pause * 2, _MAX_BACKOFF_SECONDS)
            finally:
                self.is_listening = False
                if connection is not None:
                    if not is_broken:
                        connection.remove_termination_listener(self._on_lost)
                        await connection.remove_listener(self._channel, self._on_notify)
                    await self._disconnect(connection, is_broken)
            await asyncio.sleep(pause)

    def _on_lost(self, _connection: Any) -> None:
        self._lost.set()

    def _on_notify(self, *_: Any) -> None:
        self._wakeup.notify()
