"""Wakes readers when any process has appended: a message on a channel, sent by the appending script itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.stores._wakeup import Wakeup

if TYPE_CHECKING:
    from lexigram.events.stores.redis.connection import RedisConnection

logger = logging.getLogger(__name__)

_PING_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.5


class RedisWakeup(Wakeup):
    """Listens to the channel from the first reader on. Messages may get lost with a connection: readers also poll."""

    __slots__ = ("_channel", "_connection", "_task")

    def __init__(self, connection: RedisConnection, channel: str) -> None:
        super().__init__()
        self._connection = connection
        self._channel = channel
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Count as a reader for the time of the block."""
        if self._task is None and self._connection.has_pubsub:
            self._task = asyncio.create_task(self._listen(), name="redis-wakeup")
        with super().reader():
            yield

    async def close(self) -> None:
        """Stop listening."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            # More than once: the driver swallows a cancellation that comes while it connects.
            task.cancel()
            await asyncio.wait((task,), timeout=0.05)

    async def _listen(self) -> None:
        from lexigram.events.stores.redis.errors import FAILURES

        while True:
            channel: Any = self._connection.client.pubsub(ignore_subscribe_messages=True)
            try:
                await channel.subscribe(self._channel)
                # What came before that was not announced here.
                self.notify()
                await self._follow(channel)
            except Exception:
                # Whatever it is, readers go on by polling meanwhile.
                logger.debug("the channel of %s failed", self._connection.name, exc_info=True)
                await asyncio.sleep(_PAUSE_SECONDS)
            finally:
                with suppress(*FAILURES):
                    await channel.aclose()

    async def _follow(self, channel: Any) -> None:
        while True:
            message = await channel.get_message(timeout=_PING_SECONDS)
            if message is not None:
                self.notify()
            else:
                # Finds out about a connection that has silently gone.
                await channel.ping()
