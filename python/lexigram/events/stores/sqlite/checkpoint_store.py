"""Checkpoints on SQLite. Source: spec/reference-surface.md."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

from lexigram.events.stores.checkpoints import AbstractCheckpointStore, lost_lock, moved_elsewhere
from lexigram.events.stores.sqlite.database import Database, SqliteTables

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol


class SqliteCheckpointStore(SqliteTables, AbstractCheckpointStore):
    """Positions, leases and epochs in the tables of a SQLite file; a unit of work on that file includes them.

    Args:
        config: As for `SqliteEventStore`; usually the event store itself, so that both share one transaction.
        provider: A framework database provider to run the statements instead.
        table_prefix: Put before every table name.
    """

    def __init__(
        self, config: Any = None, provider: DatabaseProviderProtocol | None = None, *, table_prefix: str = ""
    ) -> None:
        self._use(Database(config, provider, table_prefix))
        self._table = self.database.names.checkpoints

    async def list_checkpoints(self) -> dict[str, int]:
        """Return all positions by name."""
        engine = await self._ready()
        sql = f"SELECT name, position FROM {self._table} WHERE position IS NOT NULL ORDER BY name"
        return dict(await engine.fetch_all(sql))

    async def _get(self, name: str) -> int:
        engine = await self._ready()
        row = await engine.find(f"SELECT position FROM {self._table} WHERE name = ?", (name,))
        return 0 if row is None or row[0] is None else int(row[0])

    async def _save(self, name: str, position: int, epoch: int | None) -> None:
        await (await self._ready()).run(lambda connection: self._write(connection, name, position, epoch))

    def move(self, connection: Any, name: str, before: int, after: int, epoch: int | None = None) -> None:
        """Move a position inside a transaction on `connection`: for projections that write in the database thread.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004, it is not at `before` any more, or the epoch is not current.
        """
        row = connection.execute(f"SELECT position FROM {self._table} WHERE name = ?", (name,)).fetchone()
        stored = 0 if row is None or row[0] is None else int(row[0])
        if stored != before:
            raise moved_elsewhere(name, before, stored)
        self._write(connection, name, after, epoch)

    def _write(self, connection: Any, name: str, position: int, epoch: int | None) -> None:
        if epoch is not None:
            self._check_epoch(connection, name, epoch)
        connection.execute(
            f"INSERT INTO {self._table} (name, position, updated_at) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET position = excluded.position, updated_at = excluded.updated_at",
            (name, position, time.time_ns() // 1000),
        )

    def _check_epoch(self, connection: sqlite3.Connection, name: str, epoch: int) -> None:
        row = connection.execute(f"SELECT epoch FROM {self._table} WHERE name = ?", (name,)).fetchone()
        current = row[0] if row else 0
        if current != epoch:
            raise lost_lock(name, epoch, current)

    async def _delete(self, name: str) -> None:
        engine = await self._ready()
        await engine.execute(f"UPDATE {self._table} SET position = NULL, updated_at = NULL WHERE name = ?", (name,))

    async def _acquire(self, name: str, owner: str, timeout_seconds: float) -> bool:
        def acquire(connection: sqlite3.Connection) -> bool:
            # Wall-clock time, because other processes compare it with theirs.
            now = time.time()
            row = connection.execute(
                f"SELECT owner, expires_at, epoch FROM {self._table} WHERE name = ?", (name,)
            ).fetchone()
            holder, expires_at, epoch = row or (None, 0.0, 0)
            is_live = holder is not None and expires_at > now
            if is_live and holder != owner:
                return False
            connection.execute(
                f"INSERT INTO {self._table} (name, owner, expires_at, epoch) VALUES (?, ?, ?, ?) ON CONFLICT (name) "
                "DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at, epoch = excluded.epoch, fault = NULL",
                (name, owner, now + timeout_seconds, epoch if is_live else epoch + 1),
            )
            return True

        return await (await self._ready()).run(acquire)

    async def _release(self, name: str, owner: str) -> None:
        await self._give_back(name, owner, None)

    async def _fail(self, name: str, owner: str, fault: str) -> None:
        await self._give_back(name, owner, fault)

    async def _give_back(self, name: str, owner: str, fault: str | None) -> None:
        engine = await self._ready()
        sql = f"UPDATE {self._table} SET owner = NULL, expires_at = 0, fault = ? WHERE name = ? AND owner = ?"
        await engine.execute(sql, (fault, name, owner))

    async def _faults(self) -> dict[str, str]:
        engine = await self._ready()
        return dict(await engine.fetch_all(f"SELECT name, fault FROM {self._table} WHERE fault IS NOT NULL"))

    async def _locks(self) -> dict[str, str]:
        engine = await self._ready()
        sql = f"SELECT name, owner FROM {self._table} WHERE owner IS NOT NULL AND expires_at > ?"
        return dict(await engine.fetch_all(sql, (time.time(),)))

    async def _epoch(self, name: str) -> int:
        engine = await self._ready()
        row = await engine.find(f"SELECT epoch FROM {self._table} WHERE name = ?", (name,))
        return 0 if row is None else int(row[0])
