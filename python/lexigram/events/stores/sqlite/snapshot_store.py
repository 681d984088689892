"""Snapshots on SQLite. Source: spec/api-reference.md."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._snapshots import AbstractSnapshotStore
from lexigram.events.stores.sqlite.database import Database, SqliteTables
from lexigram.events.types import Snapshot

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SqliteSnapshotStore(SqliteTables, AbstractSnapshotStore):
    """Snapshots in the tables of a SQLite file; a unit of work on that file includes them.

    Args:
        config: As for `SqliteEventStore`; usually the event store itself, so that both share one file and writer.
        provider: A framework database provider to run the statements instead.
        codec: Encodes the states; values of every type that events can hold survive.
        table_prefix: Put before every table name.
    """

    def __init__(
        self,
        config: Any = None,
        provider: DatabaseProviderProtocol | None = None,
        *,
        codec: EventCodec | None = None,
        table_prefix: str = "",
    ) -> None:
        self._use(Database(config, provider, table_prefix))
        self._table = self.database.names.snapshots
        self._codec = EventCodec() if codec is None else codec

    async def _save(self, aggregate_id: str, snapshot: Snapshot) -> None:
        encode = self._codec.encode_value
        # The id is also kept with its type: a UUID comes back as one.
        about = encode({"aggregate_id": snapshot.aggregate_id, "metadata": snapshot.metadata})
        taken = snapshot.timestamp if snapshot.timestamp.tzinfo else snapshot.timestamp.replace(tzinfo=UTC)
        params = (
            aggregate_id,
            snapshot.version,
            snapshot.aggregate_type,
            (taken - _EPOCH) // timedelta(microseconds=1),
            _stored(encode(snapshot.state)),
            _stored(about),
        )
        await self.database.engine.execute(
            f"INSERT INTO {self._table} (aggregate_id, version, aggregate_type, taken_at, state, metadata) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (aggregate_id, version) DO UPDATE SET "
            "aggregate_type = excluded.aggregate_type, taken_at = excluded.taken_at, state = excluded.state, "
            "metadata = excluded.metadata",
            params,
        )

    async def _load(self, aggregate_id: str, version: int | None) -> Snapshot | None:
        sql = (
            "SELECT version, aggregate_type, taken_at, CAST(state AS BLOB), CAST(metadata AS BLOB) "
            f"FROM {self._table} WHERE aggregate_id = ?"
        )
        if version is None:
            row = await self.database.engine.find(f"{sql} ORDER BY version DESC LIMIT 1", (aggregate_id,))
        else:
            row = await self.database.engine.find(f"{sql} AND version = ?", (aggregate_id, version))
        if row is None:
            return None
        about = self._codec.decode_value(row[4])
        return Snapshot(
            aggregate_id=about["aggregate_id"],
            aggregate_type=row[1],
            version=row[0],
            state=self._codec.decode_value(row[3]),
            timestamp=_EPOCH + timedelta(microseconds=row[2]),
            metadata=about["metadata"],
        )

    async def _delete_old(self, aggregate_id: str, keep_count: int) -> int:
        def delete(connection: sqlite3.Connection) -> int:
            kept = connection.execute(
                f"SELECT version FROM {self._table} WHERE aggregate_id = ? ORDER BY version DESC LIMIT 1 OFFSET ?",
                (aggregate_id, keep_count),
            ).fetchone()
            if kept is None:
                return 0
            return connection.execute(
                f"DELETE FROM {self._table} WHERE aggregate_id = ? AND version <= ?", (aggregate_id, kept[0])
            ).rowcount

        return await self.database.engine.run(delete)


def _stored(data: bytes) -> str | bytes:
    """Return JSON as text, readable to people and SQL functions, and anything else as it is."""
    try:
        return data.decode() if data[:1] in b'{["' else data
    except UnicodeDecodeError:
        return data
