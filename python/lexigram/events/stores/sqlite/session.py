"""The unit of work on SQLite: a conversation with the writer thread inside one transaction."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lexigram.events.exceptions import EventStoreError
from lexigram.events.stores.sqlite.jobs import Folder, answer, outlasted, settled
from lexigram.events.stores.sqlite.unit import SqlUnitOfWork

if TYPE_CHECKING:
    import sqlite3

    from lexigram.events.stores.sqlite.engine import SqliteEngine
    from lexigram.events.stores.sqlite.engine_base import AbstractEngine

T = TypeVar("T")

COMMIT = "commit"
ROLLBACK = "rollback"


class Command(NamedTuple):
    """One thing to do inside the session's transaction.

    Args:
        call: A function of the connection, a request of `folder`, or COMMIT or ROLLBACK.
    """

    future: asyncio.Future[Any]
    call: Any
    folder: Folder | None = None


class Session:
    """Commands from the event loop to the writer thread, until the session is over; safe from both sides."""

    __slots__ = ("_commands", "_lock", "_over", "timeout_seconds")

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._over: BaseException | None = None
        self._lock = threading.Lock()

    def submit(self, command: Command) -> None:
        """Queue a command; once the session is over, it is answered at once."""
        with self._lock:
            if self._over is None:
                self._commands.put(command)
                return
        _answer_late(command, self._over)

    def next(self, deadline: float) -> Command:
        """Return the next command that is still wanted; raises when time is up or the session was aborted."""
        while True:
            try:
                command = self._commands.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise EventStoreError(
                    f"the unit of work took longer than {self.timeout_seconds:g} s and was rolled back; "
                    "do slow work outside of it, or pass a larger timeout_seconds"
                ) from None
            if command is None:
                assert self._over is not None
                raise self._over
            if isinstance(command.call, str) or not command.future.cancelled():
                return command

    def abort(self, reason: BaseException) -> None:
        """End the session from outside, while the writer thread may be waiting in `next`."""
        self.finish(reason)
        self._commands.put(None)

    def finish(self, reason: BaseException) -> None:
        """End the session: what is queued and what comes later fails with `reason`, except a rollback."""
        with self._lock:
            self._over = reason
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            if command is not None:
                _answer_late(command, reason)


def _answer_late(command: Command, reason: BaseException) -> None:
    if command.call == ROLLBACK:
        answer(command.future, None)
    else:
        answer(command.future, None, reason)


class SqliteUnitOfWork(SqlUnitOfWork):
    """A unit of work that the writer thread serves. It begins with the first statement: an empty block costs nothing.

    Args:
        engine: The file's engine, or how to connect to it.
        timeout_seconds: The writer is given back and everything undone when the transaction takes longer.
    """

    def __init__(self, engine: SqliteEngine | Callable[[], Awaitable[AbstractEngine]], timeout_seconds: float) -> None:
        super().__init__(engine)
        self._session = Session(timeout_seconds)
        self._started = False

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn(connection)` in the writer thread inside the transaction; if it raises, its own writes are undone."""
        result: T = await self._call(fn)
        return result

    async def fold(self, folder: Folder, request: Any) -> Any:
        """Execute one request of `folder` inside the transaction."""
        return await self._call(request, folder)

    async def _begin(self) -> None:
        self._engine.check_open()

    async def _commit(self) -> asyncio.CancelledError | None:
        return await outlasted(self._submit(COMMIT)) if self._started else None

    async def _rollback(self) -> None:
        if self._started:
            await settled(self._submit(ROLLBACK))

    async def _call(self, call: Any, folder: Folder | None = None) -> Any:
        if not self.is_open:
            raise EventStoreError("the unit of work has ended; open a new one")
        if not self._started:
            self._engine.submit_session(self._session)
            self._started = True
        return await self._submit(call, folder)

    def _submit(self, call: Any, folder: Folder | None = None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._session.submit(Command(future, call, folder))
        return future
