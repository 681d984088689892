"""Group commit: what all coroutines write at the same time goes to Redis in one call, each answered by itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lexigram.events.exceptions import EventError, EventPersistenceError, EventStoreConnectionError
from lexigram.events.stores._settled import ended

if TYPE_CHECKING:
    from lexigram.events.stores.redis.connection import RedisConnection
    from lexigram.events.stores.redis.operations import Argument
    from lexigram.events.stores.redis.scripts import Script

_GROUPS_AT_ONCE: Final = 256
_ARGUMENTS_AT_ONCE: Final = 20_000
_CLOSING_SECONDS: Final = 5.0


class _Group(NamedTuple):
    arguments: list[Argument]
    script: Script
    future: asyncio.Future[list[Any]]


class Committer:
    """Sends groups of operations in the order they came; a failed check fails its own group only.

    What is sent in one call is executed without anything between, and with `appendfsync always` costs one sync.

    Args:
        committed: Called after each call with its script and the number of its groups.
    """

    def __init__(self, connection: RedisConnection, key: str, committed: Callable[[Script, int], None]) -> None:
        self._connection = connection
        self._key = key
        self._committed = committed
        self._queue: deque[_Group] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def submit(self, script: Script, arguments: list[Argument]) -> asyncio.Future[list[Any]]:
        """Queue one group; the future gets its answer, as the script gave it.

        If the future is cancelled before the group was sent, nothing is written; afterwards all of it is.
        """
        if self._is_closed:
            raise EventStoreConnectionError("the Redis store is closed; connect() opens it again")
        self._connection.check_loop()
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Group(arguments, script, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="redis-committer")
        return future

    async def close(self) -> None:
        """Finish what is under way within a few seconds; what is left then fails."""
        self._is_closed = True
        task = self._task
        if task is not None and not task.done():
            await asyncio.wait((task,), timeout=_CLOSING_SECONDS)
            task.cancel()
            await ended(task)
        while self._queue:
            _fail(self._queue.popleft(), EventStoreConnectionError("the Redis store was closed; nothing was written"))

    async def _run(self) -> None:
        while self._queue:
            groups = self._taken()
            if groups:
                await self._send(groups)

    def _taken(self) -> list[_Group]:
        """Take from the queue what goes together: the same script, not cancelled, not too much."""
        groups: list[_Group] = []
        size = 0
        while self._queue and len(groups) < _GROUPS_AT_ONCE and size < _ARGUMENTS_AT_ONCE:
            if groups and self._queue[0].script is not groups[0].script:
                break
            group = self._queue.popleft()
            if not group.future.done():
                groups.append(group)
                size += len(group.arguments)
        return groups

    async def _send(self, groups: Sequence[_Group]) -> None:
        arguments: list[Argument] = ["0", len(groups)]
        for group in groups:
            arguments += group.arguments
        try:
            replies = await self._connection.change(groups[0].script, self._key, arguments)
        except EventPersistenceError as error:
            if len(groups) == 1:
                _fail(groups[0], error)
                return
            # One of them cannot be executed at all. What is stored already is found by its ids or its token.
            for group in groups:
                await self._send((group,))
        except EventError as error:
            for group in groups:
                _fail(group, error)
        except BaseException as error:
            for group in groups:
                _fail(group, EventStoreConnectionError("the Redis store was closed; the outcome is unknown"))
            if not isinstance(error, Exception):
                raise
        else:
            self._committed(groups[0].script, len(groups))
            for group, reply in zip(groups, replies, strict=True):
                if not group.future.done():
                    group.future.set_result(reply)


def _fail(group: _Group, error: BaseException) -> None:
    if not group.future.done():
        group.future.set_exception(error)
        # A caller that was cancelled meanwhile does not fetch it.
        group.future.exception()
