"""The unit of work on PostgreSQL: one transaction on one connection of the pool."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from lexigram.events.exceptions import EventStoreError, EventValidationError
from lexigram.events.stores._settled import outlasted, settled
from lexigram.events.stores.postgres.errors import ABORTED, is_lost, sqlstate
from lexigram.events.stores.postgres.placeholders import numbered
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork

if TYPE_CHECKING:
    from lexigram.events.stores.postgres.engine import PostgresEngine
    from lexigram.events.stores.postgres.requests import AppendRequest

T = TypeVar("T")

_CREATE_IN: Final = """SELECT set_config('search_path', quote_ident($1) || ', ' || current_setting('search_path'), true)
    WHERE NOT EXISTS (SELECT FROM unnest($2::text[]) AS given (name)
    JOIN pg_class AS c ON c.oid = to_regclass(quote_ident(given.name)) WHERE c.relnamespace <> to_regnamespace(quote_ident($1)))"""
_SCHEMA_LOCK: Final = "SELECT pg_advisory_xact_lock(1280853334, hashtext('read models'))"


class PostgresUnitOfWork(AbstractUnitOfWork):
    """One transaction, begun by the first statement: an empty block costs nothing.

    Other writers go on until the first append inside, which takes the log's lock to the end of the block. A statement
    that fails ends the transaction, as always on PostgreSQL: let its error leave the block, or execute `SAVEPOINT name` before
    it and `ROLLBACK TO SAVEPOINT name` after it.

    Args:
        engine: The engine, or how to connect to it.
        timeout_seconds: From the first statement; then it is rolled back, so that it cannot block others for ever.
    """

    numbered_parameters = True
    """Statements may have `$1` parameters; `?` works too."""

    def __init__(
        self, engine: PostgresEngine | Callable[[], Awaitable[PostgresEngine]], timeout_seconds: float
    ) -> None:
        super().__init__(engine)
        self._connecting = engine if callable(engine) else None
        self._engine: Any = engine
        self._timeout_seconds = timeout_seconds
        self._owner: asyncio.Task[Any] | None = None
        self._turn = asyncio.Lock()
        self._connection: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._timed_out = False
        self._is_dirty = False
        self._failure: Exception | None = None
        self._appended: list[AppendRequest] = []

    async def __aenter__(self) -> Self:
        if self._connecting is not None:
            self.resource = self._engine = await self._connecting()
        self._owner = asyncio.current_task()
        return await super().__aenter__()

    @property
    def is_owner(self) -> bool:
        """Whether the running task entered the block, rather than one that was started inside it."""
        return asyncio.current_task() is self._owner

    @asynccontextmanager
    async def connection(self, failed: Callable[[BaseException], BaseException] | None = None) -> AsyncIterator[Any]:
        """Hold the transaction's connection; tasks of one unit of work take turns.

        Args:
            failed: Returns what a failed statement raises; None = it is one of the application, which gets its own error.

        Raises:
            EventStoreError: LEX_ERR_EVT_013, the unit of work has ended, took longer than its timeout, the block has ended the
                transaction, or an earlier statement failed, which is the cause.
        """
        async with self._turn:
            if not self.is_open:
                raise EventStoreError("the unit of work has ended; open a new one")
            if self._connection is None:
                self._connection = await self._engine.begin(self._timeout_seconds)
                self._timer = asyncio.get_running_loop().call_later(self._timeout_seconds, self._expire)
            try:
                yield self._connection
            except Exception as error:
                if self._timed_out:
                    raise self._too_long() from error
                if sqlstate(error) == ABORTED:
                    raise self._aborted() from self._failure or error
                self._failure = error
                raised = (failed or self._engine.application_error)(error)
                raise raised from (error.__cause__ if raised is error else error)
            if not self._connection.is_in_transaction():
                raise EventStoreError("the store's transaction was ended from within; do not commit or roll back in it")

    async def run(self, fn: Callable[[Any], Awaitable[T] | T]) -> T:
        """Call `fn(connection)` with the asyncpg connection, await what it returns if that can be awaited.

        It must neither commit nor keep the connection.
        """
        async with self.connection() as connection:
            self._is_dirty = True
            result: Any = fn(connection)
            return await result if inspect.isawaitable(result) else result  # type: ignore[no-any-return]

    async def append(self, request: AppendRequest) -> Any:
        """Store one append inside the transaction; the log's lock is held from the first one on."""
        async with self.connection(self._engine.write_error) as connection:
            self._appended.append(request)
            return await self._engine.append_in(connection, request)

    async def append_all(self, requests: Sequence[AppendRequest]) -> list[Any]:
        """Store several appends in one call; each outcome says where it was stored, or why it was not."""
        async with self.connection(self._engine.write_error) as connection:
            self._appended.extend(requests)
            return await self._engine.append_all_in(connection, requests)  # type: ignore[no-any-return]

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement in the transaction; returns the number of rows changed."""
        async with self.connection() as connection:
            return changed(await connection.execute(numbered(sql), *params))

    async def lock_schema(self) -> None:
        """Let one process at a time create tables."""
        await self.execute(_SCHEMA_LOCK)

    async def create_beside_events(self, tables: Sequence[str]) -> None:
        """Create tables in the log's schema from now on, unless one of `tables` is in another one already."""
        schema = self._engine.names.schema
        if schema is not None:
            await self.fetch_all(_CREATE_IN, (schema, list(tables)))

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run one statement for each row of parameters; returns the number of rows of parameters."""
        listed = [tuple(row) for row in rows]
        async with self.connection() as connection:
            await connection.executemany(numbered(sql), listed)
        return len(listed)

    async def fetch_all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows; the transaction's own writes are visible."""
        async with self.connection() as connection:
            return [tuple(row) for row in await connection.fetch(numbered(sql), *params)]

    async def fetch_one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row or None."""
        async with self.connection() as connection:
            row = await connection.fetchrow(numbered(sql), *params)
            return None if row is None else tuple(row)

    async def _begin(self) -> None:
        self._engine.check_open()

    async def _commit(self) -> asyncio.CancelledError | None:
        async with self._turn:
            connection = self._done()
            if connection is None:
                return None
            if self._timed_out:
                await self._engine.give_back(connection, True, False)
                raise self._too_long()
            return await outlasted(asyncio.ensure_future(self._finish(connection)))

    async def _finish(self, connection: Any) -> None:
        try:
            answer = await connection.execute("COMMIT")
        except Exception as error:
            await self._engine.give_back(connection, True, False)
            if self._appended and is_lost(error) and await self._engine.is_stored(self._appended[0]):
                return
            raise self._engine.write_error(error) from error
        await self._engine.give_back(connection, False, self._is_dirty)
        if answer == "ROLLBACK":
            # PostgreSQL answers so after a statement has failed and its error was not let out of the block.
            raise self._aborted() from self._failure
        if self._appended:
            self._engine.committed(1)

    async def _rollback(self) -> None:
        async with self._turn:
            connection = self._done()
            if connection is not None:
                await settled(asyncio.ensure_future(self._undo_all(connection)))

    async def _undo_all(self, connection: Any) -> None:
        is_broken = self._timed_out
        if not is_broken:
            try:
                await connection.execute("ROLLBACK")
            except Exception:
                is_broken = True
        await self._engine.give_back(connection, is_broken, self._is_dirty)

    def _done(self) -> Any:
        if self._timer is not None:
            self._timer.cancel()
        connection, self._connection = self._connection, None
        return connection

    def _expire(self) -> None:
        """Cut the connection: the server then rolls back, whatever the block is doing."""
        self._timed_out = True
        self._connection.terminate()

    def _aborted(self) -> EventStoreError:
        failure = "" if self._failure is None else f" ({type(self._failure).__name__}: {self._failure})"
        return EventStoreError(
            f"a statement of the unit of work had failed{failure} and everything is rolled back: PostgreSQL goes on after a "
            "failed statement only from a savepoint; execute SAVEPOINT before it and ROLLBACK TO SAVEPOINT after it"
        )

    def _too_long(self) -> EventStoreError:
        return EventStoreError(
            f"the unit of work took longer than {self._timeout_seconds:g} s and was rolled back; "
            "do slow work outside of it, or pass a larger timeout_seconds"
        )


class PostgresDeferredUnitOfWork(PostgresUnitOfWork):
    """Keeps its first small write to the end, where it shares a statement and a commit with those of others.

    Meant for many short units at the same time, such as the steps of sagas. As soon as anything else is done in the unit,
    it is an ordinary transaction, in which the kept write comes first.
    """

    def __init__(self, engine: Any, timeout_seconds: float) -> None:
        super().__init__(engine, timeout_seconds)
        self._alone: Callable[[], Awaitable[None]] | None = None
        self._inside: Callable[[Any], Awaitable[None]] | None = None

    @property
    def defers(self) -> bool:
        """Whether a write can be kept: nothing has been done or kept so far."""
        return self.is_open and self._connection is None and self._alone is None

    def defer(self, alone: Callable[[], Awaitable[None]], inside: Callable[[Any], Awaitable[None]]) -> None:
        """Keep a write for the end.

        Args:
            alone: Carries it out if the unit ends without anything else; what it raises, the end of the block raises.
            inside: Carries it out on the transaction's connection, before anything else.
        """
        self._alone, self._inside = alone, inside

    @asynccontextmanager
    async def connection(self, failed: Callable[[BaseException], BaseException] | None = None) -> AsyncIterator[Any]:
        """Hold the transaction's connection, on which the kept write has been carried out."""
        async with super().connection(failed) as connection:
            inside, self._inside, self._alone = self._inside, None, None
            if inside is not None:
                await inside(connection)
            yield connection

    async def _commit(self) -> asyncio.CancelledError | None:
        if self._alone is not None:
            return await outlasted(asyncio.ensure_future(self._alone()))
        return await super()._commit()


def changed(status: str) -> int:
    """Return the number of rows in a command's answer, such as `UPDATE 3`."""
    number = status.rpartition(" ")[2]
    return int(number) if number.isdecimal() else 0


def check_timeout(timeout_seconds: float) -> float:
    """Return a unit of work's timeout if it is a number of seconds above 0."""
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int | float) or not timeout_seconds > 0:
        raise EventValidationError(
            f"timeout_seconds must be a number above 0, got {timeout_seconds!r}", field="timeout_seconds"
        )
    return float(timeout_seconds)
