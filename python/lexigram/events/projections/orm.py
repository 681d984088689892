"""A SQLAlchemy session on the transaction of a projection: what it writes commits with the checkpoint, or not at all.

Source: design, section projections (read models in the user's own tables). Needs SQLAlchemy 2.1.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from lexigram.events.exceptions import ProjectionBuildError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.orm import Session

    from lexigram.events.stores.unit_of_work import UnitOfWork

T = TypeVar("T")

_connection: ContextVar[Any] = ContextVar("lexigram_events_orm_connection")


async def in_session(unit: UnitOfWork, fn: Callable[[Session], T]) -> T:
    """Return `fn(session)`, called in the unit's own transaction with a session that is flushed afterwards.

    The session is the ordinary, synchronous one on every database. On SQLite it lives on the store's writer thread, so
    the function must not wait for anything else; on PostgreSQL the driver is asyncpg, under SQLAlchemy's `run_sync`.

    Raises:
        ProjectionBuildError: LEX_ERR_EVT_015; SQLAlchemy is not installed, or the store runs over a framework provider.
    """
    try:
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise ProjectionBuildError(
            "self.db.in_session needs SQLAlchemy: pip install 'sqlalchemy>=2.1'", cause=error
        ) from error

    def on(connection: Any) -> Any:
        if isinstance(connection, sqlite3.Connection):
            return _on_sqlite(connection, fn)
        if type(connection).__module__.partition(".")[0] == "asyncpg":
            return _on_postgres(connection, fn)
        raise ProjectionBuildError(
            f"self.db.in_session needs the database's own connection, not {type(connection).__name__}; "
            "give the event store a path or DSN instead of a framework provider"
        )

    return await unit.run(on)


class _Lent:
    """A connection that SQLAlchemy may use, and neither end, close nor change."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _LentSqlite(_Lent):
    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...

    def create_function(self, *args: Any, **kwargs: Any) -> None: ...


class _LentPostgres(_Lent):
    def transaction(self, **_: Any) -> _NoTransaction:
        return _NoTransaction()

    async def set_type_codec(self, *args: Any, **kwargs: Any) -> None: ...

    async def close(self, **_: Any) -> None: ...

    def terminate(self) -> None: ...


class _NoTransaction:
    """Begun and ended by the projection's engine instead."""

    async def start(self) -> None: ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...


def _on_sqlite(connection: sqlite3.Connection, fn: Callable[[Session], T]) -> T:
    from sqlalchemy.orm import Session

    token = _connection.set(_LentSqlite(connection))
    try:
        with Session(_sqlite_engine(), expire_on_commit=False) as session:
            result = fn(session)
            session.flush()
            session.commit()
            return result
    finally:
        _connection.reset(token)


async def _on_postgres(connection: Any, fn: Callable[[Session], T]) -> T:
    from sqlalchemy.ext.asyncio import AsyncSession

    token = _connection.set(_LentPostgres(connection))
    try:
        async with AsyncSession(_postgres_engine(), expire_on_commit=False) as session:
            result = await session.run_sync(fn)
            await session.flush()
            await session.commit()
            return result
    finally:
        _connection.reset(token)


@cache
def _sqlite_engine() -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine("sqlite://", creator=_connection.get, poolclass=NullPool)


@cache
def _postgres_engine() -> AsyncEngine:
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def lend(*_: Any, **__: Any) -> Any:
        return _connection.get()

    engine = create_async_engine("postgresql+asyncpg://", async_creator=lend, poolclass=NullPool)
    # JSON is text on our connections: SQLAlchemy's types read it, instead of a codec that it would set on them.
    engine.dialect.supports_native_json_deserialization = False
    return engine
