"""The smallest `DatabaseProviderProtocol` for SQLite: standard library, one connection, one statement at a time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from lexigram.contracts.data.sql.database import IsolationLevel, QueryResult


class MinimalProvider:
    """Reads and statements outside the transaction wait for its end, as with a connection pool of one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._turn = asyncio.Lock()
        self._inside: ContextVar[bool] = ContextVar("inside", default=False)

    async def connect(self) -> None:
        self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    async def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def is_connected(self) -> bool:
        return self._connection is not None

    async def execute(self, sql: str, params: Any = None) -> QueryResult:
        if self._inside.get():
            return self._run(sql, params)
        async with self._turn:
            return self._run(sql, params)

    async def execute_query(self, sql: str, params: list[Any] | None = None, **_kwargs: Any) -> QueryResult:
        return await self.execute(sql, params)

    @asynccontextmanager
    async def transaction(self, isolation_level: IsolationLevel | None = None) -> AsyncIterator[None]:
        async with self._turn:
            assert self._connection is not None
            token = self._inside.set(True)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            else:
                self._connection.execute("COMMIT")
            finally:
                self._inside.reset(token)

    def _run(self, sql: str, params: Any) -> QueryResult:
        assert self._connection is not None
        cursor = self._connection.execute(sql, params or [])
        names = [column[0] for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return QueryResult(rows=rows, row_count=max(cursor.rowcount, len(rows)), execution_time=0.0, success=True)
