"""The unit of work of SQL databases: statements of the application and of the stores in one transaction."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lexigram.events.stores.unit_of_work import AbstractUnitOfWork

if TYPE_CHECKING:
    from lexigram.events.stores.sqlite.engine_base import AbstractEngine
    from lexigram.events.stores.sqlite.jobs import Folder

T = TypeVar("T")


class SqlUnitOfWork(AbstractUnitOfWork):
    """One write transaction of one task; other writers queue behind it, readers do not see it before the commit.

    Args:
        engine: The engine, or how to connect to it.
    """

    def __init__(self, engine: AbstractEngine | Callable[[], Awaitable[AbstractEngine]]) -> None:
        super().__init__(engine)
        self._connect = engine if callable(engine) else None
        self._engine: Any = engine
        self._owner: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        if self._connect is not None:
            self.resource = self._engine = await self._connect()
        self._owner = asyncio.current_task()
        return await super().__aenter__()

    @property
    def is_owner(self) -> bool:
        """Whether the running task entered the block, rather than one that was started inside it."""
        return asyncio.current_task() is self._owner

    @abstractmethod
    async def run(self, fn: Callable[[Any], T]) -> T:
        """Run `fn(connection)` inside the transaction, in another thread; if it raises, its own writes are undone.

        Raises:
            EventStoreError: LEX_ERR_EVT_013, the unit of work has ended or took longer than its timeout.
        """

    def covers(self, key: str | None = None) -> bool:
        """Return whether reads (of only this stream or other key, or of anything) have to take place inside it."""
        return True

    @abstractmethod
    async def fold(self, folder: Folder, request: Any) -> Any:
        """Execute one request of `folder` inside the transaction."""

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one statement in the transaction; returns the number of rows changed."""
        return int(await self.run(lambda connection: connection.execute(sql, params).rowcount))

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run one statement for each row of parameters; returns the number of rows changed."""
        listed = rows if isinstance(rows, list | tuple) else list(rows)
        return int(await self.run(lambda connection: connection.executemany(sql, listed).rowcount))

    async def fetch_all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows; the transaction's own writes are visible."""
        rows: list[tuple[Any, ...]] = await self.run(lambda connection: connection.execute(sql, params).fetchall())
        return rows

    async def fetch_one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row or None."""
        rows: list[tuple[Any, ...]] = await self.run(lambda connection: connection.execute(sql, params).fetchmany(1))
        return rows[0] if rows else None
