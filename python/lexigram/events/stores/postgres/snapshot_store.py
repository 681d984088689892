"""Snapshots on PostgreSQL. Source: spec/api-reference.md."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._snapshots import AbstractSnapshotStore
from lexigram.events.stores.postgres.database import Database, PostgresTables
from lexigram.events.types import Snapshot

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol


class PostgresSnapshotStore(PostgresTables, AbstractSnapshotStore):
    """Snapshots in PostgreSQL; a unit of work on the same database includes them.

    Args:
        config: As for `PostgresEventStore`; usually the event store itself.
        provider: A framework database provider; says where the database is.
        pool: An asyncpg pool to use.
        registry: Resolves the classes of values in states.
        table_prefix: Put before every table name.
    """

    def __init__(
        self,
        config: Any = None,
        provider: DatabaseProviderProtocol | None = None,
        *,
        pool: Any = None,
        registry: Any = None,
        table_prefix: str = "",
    ) -> None:
        self._use(Database(config, provider, pool=pool, table_prefix=table_prefix))
        self._table = self.database.names.snapshots
        # Always JSON, whatever the events are: readable to people and to SQL.
        self._codec = EventCodec() if registry is None else EventCodec(registry)

    async def _save(self, aggregate_id: str, snapshot: Snapshot) -> None:
        encode = self._codec.encode_value
        # The id is also kept with its type: a UUID comes back as one.
        about = encode({"aggregate_id": snapshot.aggregate_id, "metadata": snapshot.metadata})
        taken = snapshot.timestamp if snapshot.timestamp.tzinfo else snapshot.timestamp.replace(tzinfo=UTC)
        await self.database.engine.execute(
            f"INSERT INTO {self._table} (aggregate_id, version, aggregate_type, taken_at, state, metadata) "
            "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (aggregate_id, version) DO UPDATE SET "
            "aggregate_type = excluded.aggregate_type, taken_at = excluded.taken_at, state = excluded.state, "
            "metadata = excluded.metadata",
            (
                aggregate_id,
                snapshot.version,
                snapshot.aggregate_type,
                taken,
                encode(snapshot.state).decode(),
                about.decode(),
            ),
        )

    async def _load(self, aggregate_id: str, version: int | None) -> Snapshot | None:
        sql = (
            "SELECT version, aggregate_type, taken_at, state::text, metadata::text "
            f"FROM {self._table} WHERE aggregate_id = $1"
        )
        if version is None:
            row = await self.database.engine.fetch_one(f"{sql} ORDER BY version DESC LIMIT 1", (aggregate_id,))
        else:
            row = await self.database.engine.fetch_one(f"{sql} AND version = $2", (aggregate_id, version))
        if row is None:
            return None
        about = self._codec.decode_value(row[4].encode())
        return Snapshot(
            aggregate_id=about["aggregate_id"],
            aggregate_type=row[1],
            version=row[0],
            state=self._codec.decode_value(row[3].encode()),
            timestamp=row[2],
            metadata=about["metadata"],
        )

    async def _delete_old(self, aggregate_id: str, keep_count: int) -> int:
        return await self.database.engine.execute(
            f"DELETE FROM {self._table} WHERE aggregate_id = $1 AND version <= (SELECT version FROM {self._table} "
            "WHERE aggregate_id = $1 ORDER BY version DESC LIMIT 1 OFFSET $2)",
            (aggregate_id, keep_count),
        )
