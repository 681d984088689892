"""Checkpoint and idempotency stores on a SQL connection, in a table of the caller's choice.

Source: spec/reference-surface.md, `lexigram.events.stores.checkpoints` and `lexigram.events.stores.idempotency`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.stores.identifiers import validate_table_name
from lexigram.events.stores.sqlite.checkpoint_store import SqliteCheckpointStore
from lexigram.events.stores.sqlite.database import SqliteTables
from lexigram.events.stores.sqlite.idempotency_store import SqliteIdempotencyStore
from lexigram.events.stores.unit_of_work import current_unit_of_work

if TYPE_CHECKING:
    import sqlite3


class _OwnTable(SqliteTables):
    """Makes the table at the first use, or adds what one of an earlier release lacks."""

    _table: str
    _create: str
    _later: tuple[str, ...] = ()
    """Columns, each with its type, that earlier releases did not have."""

    async def _make(self) -> bool:
        await self.database.engine.run(self._make_table)
        return current_unit_of_work() is None

    def _make_table(self, connection: sqlite3.Connection) -> None:
        connection.execute(self._create)
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({self._table})")}
        for column in self._later:
            if column.split()[0] not in there:
                connection.execute(f"ALTER TABLE {self._table} ADD COLUMN {column}")


def _split(connection: Any) -> tuple[Any, Any]:
    """Return (database, None) or (None, framework provider)."""
    return (None, connection) if hasattr(connection, "execute_query") else (connection, None)


class SqlCheckpointStore(_OwnTable, SqliteCheckpointStore):
    """Checkpoints in one table of a SQL database; `save_checkpoint` joins a unit of work on the same database.

    Args:
        connection: A `SqliteEventStore` (or another SQLite store), a path, an `sqlite://` URL, a `SqliteConfig`; or a
            framework database provider for SQLite.
        table_name: Made at the first use if it does not exist.
    """

    _later = ("fault TEXT",)

    def __init__(self, connection: Any, table_name: str = "event_checkpoints") -> None:
        validate_table_name(table_name)
        super().__init__(*_split(connection))
        self._table = f'"{table_name}"'
        self._create = (
            f"CREATE TABLE IF NOT EXISTS {self._table} (name TEXT PRIMARY KEY, position INTEGER, updated_at INTEGER, "
            "owner TEXT, expires_at REAL NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0, fault TEXT) WITHOUT ROWID"
        )


class SqlIdempotencyStore(_OwnTable, SqliteIdempotencyStore):
    """Marks of processed messages in one table of a SQL database; they join a unit of work on the same database.

    Args:
        connection: As for `SqlCheckpointStore`.
        table_name: Made at the first use if it does not exist.
    """

    def __init__(self, connection: Any, table_name: str = "event_idempotency") -> None:
        validate_table_name(table_name)
        super().__init__(*_split(connection))
        self._table = f'"{table_name}"'
        self._create = (
            f"CREATE TABLE IF NOT EXISTS {self._table} (consumer_id TEXT NOT NULL, message_id TEXT NOT NULL, "
            "expires_at REAL, PRIMARY KEY (consumer_id, message_id)) WITHOUT ROWID"
        )
