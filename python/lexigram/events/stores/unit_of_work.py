"""One transaction over several appends, read-model rows, checkpoints and saga states."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

from lexigram.events.exceptions import EventStoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from contextvars import Token
    from types import TracebackType

T = TypeVar("T")


@runtime_checkable
class UnitOfWork(Protocol):
    """What a `store.unit_of_work()` block offers."""

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement in the transaction; returns the number of rows changed."""
        ...

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run one statement for each row of parameters; returns the number of rows changed."""
        ...

    async def fetch_all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows; the transaction's own writes are visible."""
        ...

    async def fetch_one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row or None."""
        ...

    async def run(self, fn: Callable[[Any], T]) -> T:
        """Run `fn(connection)` inside the transaction and return its value."""
        ...

    def on_commit(self, callback: Callable[[], Awaitable[None] | None]) -> None:
        """Call (and await) `callback` once the transaction is durable, in order; never after a rollback."""
        ...


_current: ContextVar[AbstractUnitOfWork | None] = ContextVar("lexigram_events_unit_of_work", default=None)

innermost_unit_of_work = _current.get
"""Return the innermost unit of work entered here, open or not; None in the usual case, at the cost of one call."""


def current_unit_of_work(resource: object | None = None) -> AbstractUnitOfWork | None:
    """Return the innermost open unit of work, or None.

    Args:
        resource: If given, only a unit of work on this resource (store or engine, compared by identity) counts.
    """
    unit = _current.get()
    while unit is not None and not (unit.is_open and (resource is None or unit.resource is resource)):
        unit = unit.outer
    return unit


class AbstractUnitOfWork(ABC):
    """Async context manager that sets the current unit of work; commits on leaving, rolls back on any exception.

    A block inside a block on the same resource joins the outer one: its work is committed by the outer block.
    Tasks started inside the block belong to it and must be finished before it ends.

    Args:
        resource: The store or engine whose transaction this is; stores that share it join.
    """

    is_transaction = True
    """Whether the database undoes what was done inside; otherwise everything is kept in hand up to the commit."""

    def __init__(self, resource: object) -> None:
        self.resource = resource
        self.is_open = False
        self.outer: AbstractUnitOfWork | None = None
        self._token: Token[AbstractUnitOfWork | None] | None = None
        self._joined: AbstractUnitOfWork | None = None
        self._checks: list[Callable[[], None]] = []
        self._callbacks: list[Callable[[], Awaitable[None] | None]] = []
        self._undo: list[Callable[[], object]] = []
        self.notes: dict[Any, Any] = {}
        """What stores remember about their operations in this unit."""

    async def __aenter__(self) -> Self:
        if self.is_open or self._token is not None:
            raise EventStoreError("a unit of work is entered once; call store.unit_of_work() again")
        joined = current_unit_of_work(self.resource)
        if joined is not None:
            self._joined = joined
            return joined  # type: ignore[return-value]
        await self._begin()
        self.outer, self.is_open = _current.get(), True
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        if self._joined is not None:
            self._joined = None
            return
        assert self._token is not None
        self.is_open = False
        # Left in another context than it was entered in (a fixture, say): closed units of work are passed over there.
        with suppress(ValueError):
            _current.reset(self._token)
        try:
            if exc_type is None:
                for check in self._checks:
                    check()
        except BaseException:
            await self._roll_back_all()
            raise
        if exc_type is not None:
            await self._roll_back_all()
            return
        try:
            cancelled = await self._commit()
        except BaseException:
            self._run_undo()
            raise
        await self._run_callbacks(cancelled)

    def on_commit(self, callback: Callable[[], Awaitable[None] | None]) -> None:
        """Call (and await) `callback` once the transaction is durable, in order; never after a rollback."""
        self._callbacks.append(callback)

    async def lock_schema(self) -> None:  # noqa: B027 - most databases do that themselves
        """Wait for other processes that create tables, and keep them waiting to the end of the transaction.

        Only PostgreSQL needs it: there `CREATE TABLE IF NOT EXISTS` fails in one of two processes that do it at once.
        """

    def before_commit(self, check: Callable[[], None]) -> None:
        """Call `check` just before the commit; if it raises, everything is rolled back."""
        self._checks.append(check)

    def on_rollback(self, undo: Callable[[], object]) -> None:
        """Call `undo` if the transaction is rolled back or fails to commit, last registered first."""
        self._undo.append(undo)

    async def _run_callbacks(self, failure: BaseException | None) -> None:
        """Run every callback: the transaction is durable. Then raise a cancellation that came, or the first failure."""
        for callback in self._callbacks:
            try:
                outcome = callback()
                if outcome is not None:
                    await outcome
            except asyncio.CancelledError as error:
                failure = error
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def _roll_back_all(self) -> None:
        try:
            await self._rollback()
        finally:
            self._run_undo()

    def _run_undo(self) -> None:
        for undo in reversed(self._undo):
            undo()

    @abstractmethod
    async def _begin(self) -> None:
        """Start the transaction."""

    @abstractmethod
    async def _commit(self) -> asyncio.CancelledError | None:
        """Make everything visible and durable, or raise with nothing changed.

        A cancellation that comes when it can no longer be stopped is returned: it is raised once the callbacks have run.
        """

    @abstractmethod
    async def _rollback(self) -> None:
        """Undo everything."""

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement in the transaction; returns the number of rows changed."""
        raise self._no_sql()

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run one statement for each row of parameters; returns the number of rows changed."""
        raise self._no_sql()

    async def fetch_all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows; the transaction's own writes are visible."""
        raise self._no_sql()

    async def fetch_one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row or None."""
        raise self._no_sql()

    async def run(self, fn: Callable[[Any], T]) -> T:
        """Run `fn(connection)` inside the transaction and return its value."""
        raise self._no_sql()

    def _no_sql(self) -> EventStoreError:
        return EventStoreError(f"{type(self.resource).__name__} has no SQL connection; use a SQL store for this")
