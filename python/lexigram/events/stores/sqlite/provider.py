"""Runs the stores' statements on a framework's database provider instead of our own engine.

The stores' functions of a connection run unchanged, in a thread whose `connection.execute` hands each statement to the
task that owns the provider's transaction; so what the provider binds to the task (its transaction) stays in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from lexigram.contracts.data.sql.database import IsolationLevel
from lexigram.events.exceptions import EventPersistenceError, EventStoreConnectionError, EventStoreError
from lexigram.events.stores.sqlite.engine_base import UNIT_OF_WORK_SECONDS, AbstractEngine, F
from lexigram.events.stores.sqlite.errors import write_error
from lexigram.events.stores.sqlite.jobs import settled
from lexigram.events.stores.sqlite.unit import SqlUnitOfWork
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol
    from lexigram.events.stores.sqlite.jobs import Folder

T = TypeVar("T")

_READER_THREADS: Final = 4

_engines: dict[int, ProviderEngine] = {}


class ProviderEngine(AbstractEngine):
    """One per provider, shared by the stores on it. The provider decides about file, durability and connections.

    Appends are one transaction each and one after the other: for speed use the store's own engine.
    """

    def __init__(self, provider: DatabaseProviderProtocol) -> None:
        super().__init__()
        self.provider = provider
        self.turn = asyncio.Lock()
        self._users = 0
        # Two pools: were readers to take the last thread while a transaction holds the connection they wait for, the
        # transaction could not go on.
        self._writer = ThreadPoolExecutor(1, "provider-writer")
        self._readers = ThreadPoolExecutor(_READER_THREADS, "provider-reader")

    @classmethod
    async def connect(cls, provider: DatabaseProviderProtocol) -> ProviderEngine:
        """Return the engine of this provider; connects the provider if it is not."""
        engine = _engines.setdefault(id(provider), cls(provider))
        engine._users += 1
        try:
            if not await provider.is_connected():
                await provider.connect()
        except Exception as error:
            await engine.release()
            raise EventStoreConnectionError(f"the database provider cannot connect: {error}") from error
        return engine

    async def release(self) -> None:
        """Give the engine back; waits for what still runs. The provider belongs to the application and stays connected."""
        self._users -= 1
        if self._users == 0:
            _engines.pop(id(self.provider), None)
            # Statements of what still runs are answered on this loop, so it must not be blocked.
            await asyncio.to_thread(self._writer.shutdown)
            await asyncio.to_thread(self._readers.shutdown)

    @property
    def path(self) -> str:
        """The provider, as shown in errors."""
        return f"behind {type(self.provider).__name__}"

    async def run(self, fn: Callable[[Any], T]) -> T:
        """Call `fn(connection)` in a transaction of the provider."""
        unit = self.current_unit()
        if unit is not None:
            return await unit.run(fn)
        async with self.turn:
            return await _in_transaction(self.provider, lambda: self.call(fn))

    async def read(self, fn: Callable[[Any], T], *, snapshot: bool = False, key: str | None = None) -> T:
        """Call `fn(connection)`; with `snapshot` in a transaction of the provider."""
        unit = self.current_unit()
        if unit is not None:
            return await unit.run(fn)
        if snapshot:
            return await self.run(fn)
        return await self.call(fn, self._readers)

    async def fold(self, folder: Folder, request: Any, weight: int, unit: SqlUnitOfWork | None) -> Any:
        """Have `folder` execute `request` in a transaction of its own, or in `unit`."""
        if unit is not None:
            return await unit.fold(folder, request)
        outcome = await self.run(lambda connection: _fold(folder, connection, request))
        folder.committed()
        return outcome

    def share(self, key: object, make: Callable[[], F]) -> F:
        """Return the folder that stores on this provider share under `key`; it is reset before each use."""
        folder: F = self._shared.setdefault(key, make())
        return folder

    def unit_of_work(self, timeout_seconds: float = UNIT_OF_WORK_SECONDS) -> ProviderUnitOfWork:
        """Return one transaction of the provider, an async context manager. The provider's own timeouts apply."""
        return ProviderUnitOfWork(self)

    def current_unit(self) -> SqlUnitOfWork | None:
        """Return this task's open unit of work on this provider, or None."""
        unit: Any = current_unit_of_work(self)
        return unit  # type: ignore[no-any-return]

    async def call(self, fn: Callable[[Any], T], threads: ThreadPoolExecutor | None = None) -> T:
        """Run `fn(connection)` in a thread and its statements in this task, until it returns or raises."""
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[_Statement | None] = asyncio.Queue()
        connection = ProviderConnection(loop, inbox)
        thread = loop.run_in_executor(threads or self._writer, fn, connection)
        thread.add_done_callback(lambda _: inbox.put_nowait(None))
        try:
            while (statement := await inbox.get()) is not None:
                await self._answer(statement)
        except BaseException:
            # Cancelled: the thread's next statement fails, so it ends; wait for that.
            connection.closed = True
            while (statement := await settled(asyncio.ensure_future(inbox.get()))) is not None:
                statement.answer.set_exception(EventStoreError("the task that owned this statement was cancelled"))
            thread.exception()
            raise
        try:
            return thread.result()
        except Exception as error:
            raise _clear_error(error, self.path) from (error.__cause__ or error)

    async def _answer(self, statement: _Statement) -> None:
        """Have the provider execute one statement and give its thread the rows."""
        try:
            answer = await self._execute(statement.sql, statement.params)
        except Exception as error:
            statement.answer.set_exception(error)
        except BaseException as error:
            statement.answer.set_exception(EventStoreError(f"interrupted: {error!r}"))
            raise
        else:
            statement.answer.set_result(answer)

    async def _execute(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        is_query = sql.lstrip().upper().startswith(("SELECT", "WITH")) or (sql.startswith("PRAGMA") and "=" not in sql)
        execute = self.provider.execute_query if is_query else self.provider.execute
        result = await execute(sql, list(params))
        if not result.success:
            raise EventPersistenceError(f"the database provider refused a statement: {result.error_message}")
        return [tuple(row.values()) for row in result.rows] if is_query else []


class ProviderUnitOfWork(SqlUnitOfWork):
    """One transaction of the provider, open while the block runs, for the task that opened it.

    Providers bind a transaction to its task: the published one lets a statement of another task wait for its end.
    """

    _transaction: AbstractAsyncContextManager[Any]
    _owner: asyncio.Task[Any] | None = None

    def __init__(self, engine: ProviderEngine | Callable[[], Awaitable[AbstractEngine]]) -> None:
        super().__init__(engine)
        self._turn = asyncio.Lock()
        self._folders: set[Folder] = set()

    async def run(self, fn: Callable[[Any], T]) -> T:
        """Run `fn(connection)` inside the transaction; if it raises, its own writes are undone."""
        if not self.is_open:
            raise EventStoreError("the unit of work has ended; open a new one")
        if asyncio.current_task() is not self._owner:
            raise EventStoreError(
                "a unit of work over a database provider can only be used in the task that opened it; "
                "do without gather, create_task and wait_for inside it"
            )
        async with self._turn:
            result: T = await self._engine.call(lambda connection: _atomic(connection, fn))
            return result

    async def fold(self, folder: Folder, request: Any) -> Any:
        """Execute one request of `folder` inside the transaction."""
        self._folders.add(folder)
        return await self.run(lambda connection: _fold(folder, connection, request))

    async def _begin(self) -> None:
        await self._engine.turn.acquire()
        self._owner = asyncio.current_task()
        try:
            self._transaction = self._engine.provider.transaction(IsolationLevel.REPEATABLE_READ)
            async with _clean_if_cancelled(self._engine.provider):
                await self._transaction.__aenter__()
        except BaseException:
            self._engine.turn.release()
            raise

    async def _commit(self) -> None:
        try:
            async with _clean_if_cancelled(self._engine.provider):
                await self._transaction.__aexit__(None, None, None)
        except Exception as error:
            raise _clear_error(error, self._engine.path) from (error.__cause__ or error)
        finally:
            self._engine.turn.release()
        for folder in self._folders:
            folder.committed()

    async def _rollback(self) -> None:
        signal = _RollBackError()
        try:
            async with _clean_if_cancelled(self._engine.provider):
                await self._transaction.__aexit__(_RollBackError, signal, None)
        except _RollBackError:
            pass
        finally:
            self._engine.turn.release()


class _Statement(NamedTuple):
    sql: str
    params: Sequence[Any]
    answer: Future[list[tuple[Any, ...]]]


class ProviderConnection:
    """What the stores' functions see as their connection: statements go to the owning task and block the thread."""

    in_transaction = True

    def __init__(self, loop: asyncio.AbstractEventLoop, inbox: asyncio.Queue[_Statement | None]) -> None:
        self.closed = False
        self._loop = loop
        self._inbox = inbox

    def execute(self, sql: str, params: Sequence[Any] = ()) -> ProviderCursor:
        """Execute one statement and wait for it."""
        if self.closed:
            raise EventStoreError("the task that owned this connection was cancelled")
        answer: Future[list[tuple[Any, ...]]] = Future()
        self._loop.call_soon_threadsafe(self._inbox.put_nowait, _Statement(sql, params, answer))
        return ProviderCursor(self, answer.result())

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> ProviderCursor:
        """Execute one statement for each row of parameters."""
        changed = 0
        for row in rows:
            changed += self.execute(sql, row).rowcount
        return ProviderCursor(self, [], changed)


class ProviderCursor:
    """The rows of one statement."""

    def __init__(self, connection: ProviderConnection, rows: list[tuple[Any, ...]], changed: int | None = None) -> None:
        self._connection = connection
        self._rows = rows
        self._changed = changed

    @property
    def rowcount(self) -> int:
        """Rows changed; asked of the database, because not every provider reports it."""
        if self._changed is None:
            self._changed = int(self._connection.execute("SELECT changes() AS n").fetchall()[0][0])
        return self._changed

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row or None."""
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        """Return up to `size` of the remaining rows."""
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the remaining rows."""
        taken, self._rows = self._rows, []
        return taken

    def __iter__(self) -> Any:
        return iter(self.fetchall())


class _RollBackError(RuntimeError):
    """Makes a provider roll back: some do so only for errors they expect, and `RuntimeError` is among them."""


async def _in_transaction(provider: DatabaseProviderProtocol, work: Callable[[], Awaitable[T]]) -> T:
    """Await `work()` in a transaction that is rolled back on any exception, cancellation included."""
    failure: BaseException | None = None
    try:
        async with _clean_if_cancelled(provider), provider.transaction(IsolationLevel.REPEATABLE_READ):
            try:
                return await work()
            except BaseException as error:
                failure = error
                raise _RollBackError from error
    except _RollBackError:
        assert failure is not None
        raise failure from failure.__cause__
    except Exception as error:
        raise _clear_error(error, f"behind {type(provider).__name__}") from (error.__cause__ or error)


@asynccontextmanager
async def _clean_if_cancelled(provider: DatabaseProviderProtocol) -> AsyncIterator[None]:
    """End what a provider leaves open if it is cancelled while it begins or ends a transaction: the published one does."""
    try:
        yield
    except asyncio.CancelledError:
        with suppress(Exception):  # usually there is no transaction any more
            await provider.execute("ROLLBACK", [])
        raise


def _fold(folder: Folder, connection: Any, request: Any) -> Any:
    # Nothing tells us what others wrote since the last transaction.
    folder.reset()
    return folder.fold_one(connection, request)


def _atomic(connection: Any, fn: Callable[[Any], T]) -> T:
    connection.execute("SAVEPOINT job")
    try:
        result = fn(connection)
    except BaseException:
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        raise
    connection.execute("RELEASE job")
    return result


def _clear_error(error: BaseException, path: str) -> BaseException:
    """Return our error for what SQLite itself said behind the provider's own exception."""
    cause: BaseException | None = error
    while cause is not None:
        clear = write_error(cause, path)
        if clear is not cause:
            return clear
        cause = cause.__cause__ or getattr(cause, "cause", None)
    return error
