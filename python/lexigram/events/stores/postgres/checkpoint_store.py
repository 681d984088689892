"""Checkpoints on PostgreSQL. Source: spec/reference-surface.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.stores.checkpoints import AbstractCheckpointStore, lost_lock
from lexigram.events.stores.postgres.database import Database, PostgresTables

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol


class PostgresCheckpointStore(PostgresTables, AbstractCheckpointStore):
    """Positions, leases and epochs in PostgreSQL; a unit of work on the same database includes them.

    Args:
        config: As for `PostgresEventStore`; usually the event store itself, so that both share one transaction.
        provider: A framework database provider; says where the database is.
        pool: An asyncpg pool to use.
        table_prefix: Put before every table name.
    """

    def __init__(
        self,
        config: Any = None,
        provider: DatabaseProviderProtocol | None = None,
        *,
        pool: Any = None,
        table_prefix: str = "",
    ) -> None:
        self._use(Database(config, provider, pool=pool, table_prefix=table_prefix))
        self._table = self.database.names.checkpoints

    async def list_checkpoints(self) -> dict[str, int]:
        """Return all positions by name."""
        engine = await self._ready()
        rows = await engine.fetch_all(
            f"SELECT name, position FROM {self._table} WHERE position IS NOT NULL ORDER BY name"
        )
        return dict(rows)

    async def _get(self, name: str) -> int:
        engine = await self._ready()
        row = await engine.fetch_one(f"SELECT position FROM {self._table} WHERE name = $1", (name,))
        return 0 if row is None or row[0] is None else int(row[0])

    async def _save(self, name: str, position: int, epoch: int | None) -> None:
        engine = await self._ready()
        # One statement checks and writes: a lock that changes hands meanwhile waits for the row, or is waited for.
        changed = await engine.execute(
            f"INSERT INTO {self._table} AS c (name, position, updated_at) "
            "SELECT $1, $2::bigint, clock_timestamp() WHERE coalesce($3::bigint, 0) = 0 "
            f"OR EXISTS (SELECT FROM {self._table} WHERE name = $1) "
            "ON CONFLICT (name) DO UPDATE SET position = excluded.position, updated_at = excluded.updated_at "
            "WHERE $3::bigint IS NULL OR c.epoch = $3",
            (name, position, epoch),
        )
        if not changed and epoch is not None:
            raise lost_lock(name, epoch, await self._epoch(name))

    async def _delete(self, name: str) -> None:
        engine = await self._ready()
        await engine.execute(f"UPDATE {self._table} SET position = NULL, updated_at = NULL WHERE name = $1", (name,))

    async def _acquire(self, name: str, owner: str, timeout_seconds: float) -> bool:
        engine = await self._ready()
        # The server's clock, because all owners share it.
        acquire = (
            f"INSERT INTO {self._table} AS c (name, owner, expires_at, epoch) "
            "VALUES ($1, $2, clock_timestamp() + $3::float8 * interval '1 second', 1) ON CONFLICT (name) DO UPDATE SET "
            "owner = excluded.owner, expires_at = excluded.expires_at, fault = NULL, "
            "epoch = c.epoch + CASE WHEN c.owner = excluded.owner AND c.expires_at > clock_timestamp() THEN 0 ELSE 1 END "
            "WHERE c.owner IS NULL OR c.owner = excluded.owner OR c.expires_at <= clock_timestamp()"
        )
        return await engine.execute(acquire, (name, owner, timeout_seconds)) > 0

    async def _release(self, name: str, owner: str) -> None:
        await self._give_back(name, owner, None)

    async def _fail(self, name: str, owner: str, fault: str) -> None:
        await self._give_back(name, owner, fault)

    async def _give_back(self, name: str, owner: str, fault: str | None) -> None:
        engine = await self._ready()
        await engine.execute(
            f"UPDATE {self._table} SET owner = NULL, expires_at = '-infinity', fault = $3 "
            "WHERE name = $1 AND owner = $2",
            (name, owner, fault),
        )

    async def _faults(self) -> dict[str, str]:
        engine = await self._ready()
        return dict(await engine.fetch_all(f"SELECT name, fault FROM {self._table} WHERE fault IS NOT NULL"))

    async def _locks(self) -> dict[str, str]:
        engine = await self._ready()
        sql = f"SELECT name, owner FROM {self._table} WHERE owner IS NOT NULL AND expires_at > clock_timestamp()"
        return {row[0]: row[1] for row in await engine.fetch_all(sql)}

    async def _epoch(self, name: str) -> int:
        engine = await self._ready()
        row = await engine.fetch_one(f"SELECT epoch FROM {self._table} WHERE name = $1", (name,))
        return 0 if row is None else int(row[0])
