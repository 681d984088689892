"""Everything that the stores of one log share: connections, the committer, the listener, units of work.

It belongs to the event loop in which it was connected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final, TypeVar
from uuid import UUID

from lexigram.events.exceptions import (
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventStoreError,
)
from lexigram.events.stores._loop_lock import check_loop
from lexigram.events.stores._settled import settled
from lexigram.events.stores._wakeup import Wakeup
from lexigram.events.stores.postgres.batch import CALL, NEXT, encode_batch, outcome
from lexigram.events.stores.postgres.committer import Committer
from lexigram.events.stores.postgres.errors import clear_error, is_lost
from lexigram.events.stores.postgres.listener import Listener
from lexigram.events.stores.postgres.placeholders import numbered
from lexigram.events.stores.postgres.pool import Connections
from lexigram.events.stores.postgres.requests import AppendRequest
from lexigram.events.stores.postgres.schema import migrate
from lexigram.events.stores.postgres.settings import PostgresSettings
from lexigram.events.stores.postgres.unit import PostgresUnitOfWork, changed, check_timeout
from lexigram.events.stores.unit_of_work import current_unit_of_work

T = TypeVar("T")

UNIT_OF_WORK_SECONDS: Final = 30.0


class PostgresEngine:
    """Runs the statements of the stores on one log. Get one with `await PostgresEngine.connect(settings)`."""

    def __init__(self, settings: PostgresSettings, pool: Any = None) -> None:
        self.settings = settings
        self.names = settings.names
        self.wakeup = Wakeup()
        self.payload = settings.payload
        self.committer: Committer
        self._connections = Connections(settings, pool)
        self._listener: Listener | None = None
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._call = self._next = ""
        self._log_oid = 0
        self._lock_timeout: str | None = None
        if settings.transaction_pooling or pool is not None:
            self._lock_timeout = f"{round(settings.lock_timeout_seconds * 1000)}ms"

    @classmethod
    async def connect(cls, settings: PostgresSettings, pool: Any = None) -> PostgresEngine:
        """Connect, create or migrate the tables, start the committer and the listener.

        Args:
            pool: An asyncpg pool of the application to use instead of connections of our own; it stays open.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014, the server or its tables cannot be used.
        """
        engine = cls(settings, pool)
        try:
            await engine._connections.open()
            await engine._start()
        except BaseException as error:
            await engine._connections.close()
            raise clear_error(error, settings.where, EventStoreConnectionError) from error.__cause__
        return engine

    async def _start(self) -> None:
        settings, connections = self.settings, self._connections
        connection = await self.begin()
        try:
            self.payload = await migrate(connection, self.names, settings.payload, create=settings.create)
            (row,) = await connection.fetch("SELECT $1::text::regclass::oid::bigint", self.names.events)
            await connection.execute("COMMIT")
        except BaseException:
            await self.give_back(connection, True)
            raise
        await self.give_back(connection)
        if (self.payload == "bytea") != (settings.payload == "bytea"):
            raise EventStoreConnectionError(
                f"the log {self.names.events} stores payloads as {self.payload}, not as {settings.payload}; "
                "use the codec and payload_format it was made with"
            )
        given = "bytea" if self.payload == "bytea" else "text"
        self._call = CALL.replace("{append}", self.names.append).replace("{given}", given)
        self._next = NEXT.replace("{append_next}", self.names.append_next).replace("{given}", given)
        self._log_oid = row[0]
        self.committer = Committer(
            connections.connect,
            connections.disconnect,
            self._send,
            self._send_next,
            binary=self.payload == "bytea",
            where=settings.where,
            reconnect_seconds=settings.reconnect_seconds,
            committed=self.committed,
        )
        self.committer.start(await connections.connect())
        if settings.listen and not settings.transaction_pooling:
            self._listener = Listener(self.channel, self.wakeup, connections.connect, connections.disconnect)
            self.wakeup.on_wait = self._listener.start

    async def release(self) -> None:
        """Commit what is queued and close everything that is ours."""
        self._is_closed = True
        self.wakeup.on_wait = None
        try:
            await self.committer.stop()
        finally:
            try:
                if self._listener is not None:
                    await self._listener.stop()
            finally:
                await self._connections.close()

    @property
    def channel(self) -> str:
        """The channel on which each commit is notified."""
        return f"lexigram_events_{self._log_oid}"

    @property
    def is_listening(self) -> bool:
        """Whether other processes' commits wake readers; otherwise they poll."""
        return self._listener is not None and self._listener.is_listening

    def committed(self, appends: int) -> None:
        """Wake readers of this process after a commit of so many appends."""
        self.wakeup.notify()
        if self.wakeup.observe_batch is not None:
            self.wakeup.observe_batch(appends)

    def check_open(self) -> None:
        """Raise `EventStoreConnectionError` if the engine cannot be used (any more, or here)."""
        if self._is_closed:
            raise EventStoreConnectionError("the PostgreSQL store is closed; connect() opens it again")
        check_loop(self._loop, "PostgreSQL")

    # Appending

    async def append_in(self, connection: Any, request: AppendRequest) -> Any:
        """Store one append in the open transaction of `connection`."""
        (answer,) = await self.append_all_in(connection, (request,))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def append_all_in(self, connection: Any, requests: Sequence[AppendRequest]) -> list[Any]:
        """Store appends in the open transaction of `connection`; return what became of each."""
        arrays = encode_batch(requests, self.payload == "bytea")
        row = await self._row(connection, True, arrays)
        return [outcome(*one) for one in zip(requests, *row[:3], strict=True)]

    async def _send(self, connection: Any, careful: bool, arrays: tuple[Sequence[Any], ...]) -> Any:
        """Execute one batch in a transaction of its own."""
        if not self.settings.transaction_pooling:
            return await self._row(connection, careful, arrays)
        async with connection.transaction(isolation="read_committed"):
            return await self._row(connection, careful, arrays)

    async def _row(self, connection: Any, careful: bool, arrays: tuple[Sequence[Any], ...]) -> Any:
        return await connection.fetchrow(self._call, careful, self._lock_timeout, *arrays)

    async def _send_next(self, connection: Any, arguments: tuple[Any, ...]) -> Any:
        """Execute one numbered batch in a transaction of its own; return its new streams' keys, None = not stored."""
        call = self._next, self._lock_timeout, self._log_oid, *arguments
        if not self.settings.transaction_pooling:
            return await connection.fetchval(*call)
        async with connection.transaction(isolation="read_committed"):
            return await connection.fetchval(*call)

    async def is_stored(self, request: AppendRequest) -> bool:
        """Tell whether an append whose commit got no answer is stored; waits until its transaction has ended.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014, the server did not come back in time.
        """
        deadline, pause = monotonic() + self.settings.reconnect_seconds, 0.05
        while True:
            try:
                return await self._look_up(UUID(bytes=request.events[0].event_id))
            except EventStoreConnectionError:
                if monotonic() >= deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def _look_up(self, event_id: UUID) -> bool:
        lock = f"(1280853334::bigint << 32) | '{self.names.events}'::regclass::oid::bigint"
        async with self.transaction() as connection:
            await connection.fetch(f"SELECT pg_advisory_xact_lock({lock})")
            return bool(await connection.fetch(f"SELECT 1 FROM {self.names.events} WHERE event_id = $1", event_id))

    # Statements

    def unit_of_work(self, timeout_seconds: float = UNIT_OF_WORK_SECONDS) -> PostgresUnitOfWork:
        """Return one transaction for this task, an async context manager; inside another one it joins that."""
        return PostgresUnitOfWork(self, check_timeout(timeout_seconds))

    def current_unit(self) -> PostgresUnitOfWork | None:
        """Return this task's open unit of work on this log, or None. Raises if the engine is closed."""
        self.check_open()
        unit: Any = current_unit_of_work(self)
        return unit  # type: ignore[no-any-return]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Hold a connection in a transaction: the current unit of work's, or one that commits at the end."""
        unit = self.current_unit()
        if unit is not None:
            async with unit.connection() as connection:
                yield connection
            return
        try:
            connection = await self.begin()
        except Exception as error:
            raise self.write_error(error) from error
        is_done = False
        try:
            yield connection
            await connection.execute("COMMIT")
            is_done = True
        except Exception as error:
            raise self.write_error(error) from error.__cause__
        finally:
            await settled(asyncio.ensure_future(self._end(connection, is_done)))

    async def run(self, fn: Callable[[Any], Awaitable[T]]) -> T:
        """Await `fn(connection)` in a transaction of its own, or inside the current unit of work."""
        async with self.transaction() as connection:
            return await fn(connection)

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one writing statement; returns the number of rows changed."""
        unit = self.current_unit()
        if unit is not None:
            return await unit.execute(sql, params)
        try:
            return changed(await self._call_pool("execute", numbered(sql), params))
        except Exception as error:
            raise self.write_error(error) from error.__cause__

    async def write_all(self, sql: str, params: Sequence[Any] = ()) -> list[Any]:
        """Run one writing statement and return the rows of its RETURNING clause."""
        async with self.transaction() as connection:
            return list(await connection.fetch(numbered(sql), *params))

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run one statement for each row of parameters, all or none; returns the number of rows of parameters."""
        listed = [tuple(row) for row in rows]
        async with self.transaction() as connection:
            await connection.executemany(numbered(sql), listed)
        return len(listed)

    async def fetch_all(self, sql: str, params: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query; tried once more on another connection if the first one turns out to be lost."""
        statement = numbered(sql)
        unit = self.current_unit()
        if unit is not None and unit.is_owner:
            async with unit.connection() as connection:
                return list(await connection.fetch(statement, *params))
        try:
            return await self._call_pool("fetch", statement, params)  # type: ignore[no-any-return]
        except Exception as error:
            if not is_lost(error) or isinstance(error, TimeoutError):
                raise self.read_error(error) from error
        try:
            return await self._call_pool("fetch", statement, params)  # type: ignore[no-any-return]
        except Exception as error:
            raise self.read_error(error) from error.__cause__

    async def fetch_one(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """Return the first row of a query or None."""
        rows = await self.fetch_all(sql, params)
        return rows[0] if rows else None

    async def _call_pool(self, method: str, sql: str, params: Sequence[Any]) -> Any:
        """Run a statement by this method of a connection of the pool."""
        connection = await self._connections.acquire()
        is_broken, is_idle = False, False
        try:
            if self.settings.transaction_pooling:
                # Preparing and executing must meet the same server connection.
                async with connection.transaction():
                    answer = await getattr(connection, method)(sql, *params)
            else:
                answer = await getattr(connection, method)(sql, *params)
            is_idle = True
            return answer
        except BaseException as error:
            is_broken = is_lost(error)
            raise
        finally:
            await self._connections.release(connection, is_broken, is_idle=is_idle)

    async def begin(self, timeout_seconds: float = UNIT_OF_WORK_SECONDS) -> Any:
        """Return a connection with an open transaction; `give_back` returns it.

        Args:
            timeout_seconds: How long it may wait for its next statement.
        """
        try:
            connection = await self._connections.acquire()
            try:
                await connection.execute(self._connections.begin(timeout_seconds))
            except BaseException:
                await self._connections.release(connection, True)
                raise
        except Exception as error:
            raise clear_error(error, self.settings.where, EventStoreError) from error.__cause__
        return connection

    async def give_back(self, connection: Any, is_broken: bool = False, reset: bool = False) -> None:
        """Return a connection whose transaction has ended, or cut it."""
        await self._connections.release(connection, is_broken, reset)

    async def _end(self, connection: Any, is_done: bool) -> None:
        if not is_done:
            try:
                await connection.execute("ROLLBACK")
            except Exception:
                await self._connections.release(connection, True)
                return
        await self._connections.release(connection, is_idle=is_done)

    def application_error(self, error: BaseException) -> BaseException:
        """Return what a failed statement of the application raises: its own error, unless the connection is lost."""
        return clear_error(error, self.settings.where, EventStoreError) if is_lost(error) else error

    def write_error(self, error: BaseException) -> BaseException:
        """Return what a failed write raises."""
        return clear_error(error, self.settings.where, EventPersistenceError)

    def read_error(self, error: BaseException) -> BaseException:
        """Return what a failed read raises."""
        return clear_error(error, self.settings.where, EventLoadError)
