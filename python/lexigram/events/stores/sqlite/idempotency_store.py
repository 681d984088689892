"""Marks of processed messages on SQLite. Source: spec/reference-surface.md."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

from lexigram.events.stores.idempotency import AbstractIdempotencyStore
from lexigram.events.stores.sqlite.database import Database, SqliteTables

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol


class SqliteIdempotencyStore(SqliteTables, AbstractIdempotencyStore):
    """Marks in the tables of a SQLite file; inside a unit of work on that file a mark counts once it is committed.

    Args:
        config: As for `SqliteEventStore`; usually the event store itself, so that both share one transaction.
        provider: A framework database provider to run the statements instead.
        table_prefix: Put before every table name.
    """

    def __init__(
        self, config: Any = None, provider: DatabaseProviderProtocol | None = None, *, table_prefix: str = ""
    ) -> None:
        self._use(Database(config, provider, table_prefix))
        self._table = self.database.names.idempotency

    async def clear_expired(self) -> int:
        """Remove expired marks and return how many."""
        engine = await self._ready()
        return await engine.execute(f"DELETE FROM {self._table} WHERE expires_at <= ?", (time.time(),))

    async def _is_joined(self) -> bool:
        return (await self._ready()).current_unit() is not None

    async def _is_processed(self, consumer_id: str, message_id: str) -> bool:
        engine = await self._ready()
        return await engine.find(self._live, (consumer_id, message_id, time.time())) is not None

    @property
    def _live(self) -> str:
        return (
            f"SELECT 1 FROM {self._table} WHERE consumer_id = ? AND message_id = ? "
            "AND (expires_at IS NULL OR expires_at > ?)"
        )

    async def _mark(self, consumer_id: str, message_id: str, expires_in: float | None) -> None:
        engine = await self._ready()
        await engine.run(lambda connection: self._put(connection, consumer_id, message_id, expires_in))

    async def _claim(self, consumer_id: str, message_id: str, expires_in: float | None) -> bool:
        def claim(connection: sqlite3.Connection) -> bool:
            if connection.execute(self._live, (consumer_id, message_id, time.time())).fetchone() is not None:
                return False
            self._put(connection, consumer_id, message_id, expires_in)
            return True

        return await (await self._ready()).run(claim)

    def _put(self, connection: sqlite3.Connection, consumer_id: str, message_id: str, expires_in: float | None) -> None:
        connection.execute(
            f"INSERT INTO {self._table} (consumer_id, message_id, expires_at) VALUES (?, ?, ?) "
            "ON CONFLICT (consumer_id, message_id) DO UPDATE SET expires_at = excluded.expires_at",
            (consumer_id, message_id, None if expires_in is None else time.time() + expires_in),
        )
