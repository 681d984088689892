"""Group commit: one task sends the appends of all coroutines in batches, one function call and one commit each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic, thread_time
from typing import Any, Final

from lexigram.events.exceptions import EventPersistenceError, EventStoreConnectionError
from lexigram.events.stores._settled import ended
from lexigram.events.stores.postgres.batch import encode_batch, outcome
from lexigram.events.stores.postgres.errors import (
    UNIQUE_VIOLATION,
    clear_error,
    is_again,
    is_lost,
    is_one_sided,
    sqlstate,
)
from lexigram.events.stores.postgres.knowledge import Knowledge
from lexigram.events.stores.postgres.requests import AppendRequest

MAX_EVENTS: Final = 500
MIN_SHARE: Final = 32
"""From twice as many appends on, half of them may be stored while the callers of the other half go on."""
BUSY: Final = 0.3
"""Halves pay where a commit, however small, takes less than this process's work on all of them. If the server works about as
long on an append, that is where this thread is busy for a third of the time or more, in halves or not."""
MAX_BYTES: Final = 4_000_000
MAX_WAITING: Final = 16_384
"""Appends that may wait; coroutines beyond that wait before they queue, so memory stays bounded."""
_TRIES: Final = 10


_Waiting = tuple[asyncio.Future[Any], AppendRequest]


class Committer:
    """Sends batches on one connection, which it opens again when it is lost.

    Args:
        connect: Returns a fresh connection.
        disconnect: Gives `(connection, is_broken)` back; never raises.
        call: Executes `(connection, careful, arrays)` and returns the arrays of the answer.
        call_next: Executes `(connection, arguments)` of a numbered batch; returns the keys of its new streams, or None if
            it was not stored.
        binary: Payloads go into a `bytea` column.
        where: The database as shown in errors.
        reconnect_seconds: How long a batch waits for a server that went away.
        committed: Called with the number of appends after each commit that stored something.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        disconnect: Callable[[Any, bool], Awaitable[None]],
        call: Callable[[Any, bool, tuple[Sequence[Any], ...]], Awaitable[Any]],
        call_next: Callable[[Any, tuple[Any, ...]], Awaitable[Sequence[int] | None]],
        *,
        binary: bool,
        where: str,
        reconnect_seconds: float,
        committed: Callable[[int], None],
    ) -> None:
        self._connect, self._disconnect = connect, disconnect
        self._call, self._call_next = call, call_next
        self._knowledge = Knowledge(binary)
        self._binary, self._where, self._reconnect_seconds = binary, where, reconnect_seconds
        self._committed = committed
        self._queue: deque[_Waiting] = deque()
        self._unanswered = 0
        self._is_busy = False
        self._marks: deque[tuple[float, float]] = deque()
        self._loop: asyncio.AbstractEventLoop
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.commits = 0
        """How many calls have stored something; many appends share one."""

    def start(self, connection: Any) -> None:
        """Begin with a connection that is open already."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name="lexigram-events-committer")

    async def stop(self) -> None:
        """Commit what is queued, then end and give the connection back."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await ended(self._task)
        await self._end()  # it may have been cancelled before it began

    def append(self, request: AppendRequest) -> Awaitable[Any]:
        """Store one append together with its neighbours; await where. Cancelling it while it waits drops it."""
        if len(self._queue) >= MAX_WAITING:
            return self._append_later(request)
        if self._closing:
            raise EventStoreConnectionError("the PostgreSQL store is closed; connect() opens it again")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.append((future, request))
        if not self._wake.is_set():
            self._wake.set()
        return future

    async def _append_later(self, request: AppendRequest) -> Any:
        while len(self._queue) >= MAX_WAITING:
            self._room.clear()
            await self._room.wait()
        return await self.append(request)

    async def _run(self) -> None:
        try:
            while True:
                batch = self._take()
                if batch:
                    await self._commit(batch)
                elif self._closing:
                    return
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        """Answer those who wait, and give the connection back."""
        self._closing = True
        for future, _ in self._queue:
            if not future.done():
                future.set_exception(EventStoreConnectionError("the PostgreSQL store was closed"))
        self._queue.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._disconnect(connection, False)

    def _take(self) -> list[_Waiting]:
        """Return the next batch; an append is never split, and those nobody waits for any more are dropped."""
        batch: list[_Waiting] = []
        events = size = 0
        queue = self._queue
        appends = len(queue) + self._unanswered
        # Two halves cost a commit more, but client and server work at the same time.
        if appends >= 2 * MIN_SHARE and self._is_busy:
            appends //= 2
        while queue and len(batch) < appends:
            future, request = queue[0]
            if not future.done():
                events += len(request.events)
                for event in request.events:
                    size += len(event.payload)
                if batch and (events > MAX_EVENTS or size > MAX_BYTES):
                    break
                batch.append(queue[0])
            queue.popleft()
        self._room.set()
        return batch

    def _look(self) -> None:
        """Note whether this thread has worked for a good part of the time that the last two commits took."""
        now, used = monotonic(), thread_time()
        then, used_then = self._marks.popleft() if len(self._marks) == 2 else (now, used)
        self._is_busy = used - used_then > BUSY * (now - then)
        self._marks.append((now, used))

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        try:
            answers = await self._store([request for _, request in batch])
        except BaseException as error:
            failure = clear_error(error, self._where, EventPersistenceError)
            answers = [_alone(failure) for _ in batch]
            if not isinstance(error, Exception):
                self._answer_all(batch, answers)
                raise
        self._look()
        if self._queue and self._is_busy:
            # The next batch is sent first, so that the server works while the callers of this one go on.
            self._unanswered = len(batch)
            self._loop.call_soon(self._answer_all, batch, answers)
        else:
            self._answer_all(batch, answers)
            # One turn of the loop: callers that were answered queue their next append, so batches stay full.
            await asyncio.sleep(0)

    def _answer_all(self, batch: Sequence[_Waiting], answers: Sequence[Any]) -> None:
        self._unanswered = 0
        stored = False
        for (future, _), answer in zip(batch, answers, strict=True):
            if isinstance(answer, BaseException):
                if not future.done():
                    future.set_exception(answer)
            else:
                stored = True
                if not future.done():
                    future.set_result(answer)
        if stored:
            self.commits += 1
            self._committed(len(batch))

    async def _store(self, requests: list[AppendRequest]) -> list[Any]:
        """Send one batch until its outcome is known. From the second try on stored event ids are looked up first."""
        knowledge = self._knowledge
        numbered = knowledge.numbered(requests)
        careful = False
        deadline = 0.0
        tries = 0
        while True:
            try:
                if self._connection is None:
                    self._connection = await self._connect()
                if numbered is not None:
                    keys = await self._call_next(self._connection, numbered.arguments)
                    if keys is not None:
                        knowledge.took(numbered, keys)
                        return numbered.answers
                    numbered = None
                    knowledge.forget(is_alone=False)
                arrays = encode_batch(requests, self._binary)
                row = await self._call(self._connection, careful, arrays)
                knowledge.learn(requests, arrays, row)
                return [outcome(*one) for one in zip(requests, *row[:3], strict=True)]
            except Exception as error:
                numbered = None
                knowledge.forget()
                tries += 1
                if sqlstate(error) == UNIQUE_VIOLATION and not careful:
                    careful = True
                elif is_lost(error):
                    careful = True
                    await self._drop()
                    deadline = deadline or monotonic() + self._reconnect_seconds
                    if monotonic() >= deadline:
                        raise
                    await asyncio.sleep(min(0.02 * 2**tries, 1.0))
                elif is_one_sided(error) and len(requests) > 1:
                    return [await self._store_alone(request) for request in requests]
                elif not is_again(error) or tries >= _TRIES:
                    raise

    async def _store_alone(self, request: AppendRequest) -> Any:
        """Store one append of a batch that failed because of one of them."""
        try:
            (answer,) = await self._store([request])
            return answer
        except Exception as error:
            return clear_error(error, self._where, EventPersistenceError)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._disconnect(connection, True)


def _alone(failure: BaseException) -> BaseException:
    """Return an error for one caller: one object raised in many tasks would collect all their tracebacks."""
    if isinstance(failure, asyncio.CancelledError):
        return EventStoreConnectionError(
            "the PostgreSQL store was closed while it stored; append the same events again"
        )
    try:
        copy = type(failure)(str(getattr(failure, "message", failure)))
    except Exception:
        return failure
    copy.__cause__ = failure.__cause__ or failure
    return copy
