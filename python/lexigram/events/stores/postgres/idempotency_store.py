"""Marks of processed messages on PostgreSQL. Source: spec/reference-surface.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.stores.idempotency import AbstractIdempotencyStore
from lexigram.events.stores.postgres.database import Database, PostgresTables

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol


class PostgresIdempotencyStore(PostgresTables, AbstractIdempotencyStore):
    """Marks in PostgreSQL; inside a unit of work on the same database a mark counts once it is committed.

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
        table = self._table = self.database.names.idempotency
        self._put = (
            f"INSERT INTO {table} AS m (consumer_id, message_id, expires_at) "
            "VALUES ($1, $2, clock_timestamp() + $3::float8 * interval '1 second') "
            "ON CONFLICT (consumer_id, message_id) DO UPDATE SET expires_at = excluded.expires_at"
        )

    async def clear_expired(self) -> int:
        """Remove expired marks and return how many."""
        return await (await self._ready()).execute(f"DELETE FROM {self._table} WHERE expires_at <= clock_timestamp()")

    async def _is_joined(self) -> bool:
        return (await self._ready()).current_unit() is not None

    async def _is_processed(self, consumer_id: str, message_id: str) -> bool:
        engine = await self._ready()
        row = await engine.fetch_one(
            f"SELECT 1 FROM {self._table} WHERE consumer_id = $1 AND message_id = $2 "
            "AND (expires_at IS NULL OR expires_at > clock_timestamp())",
            (consumer_id, message_id),
        )
        return row is not None

    async def _mark(self, consumer_id: str, message_id: str, expires_in: float | None) -> None:
        await (await self._ready()).execute(self._put, (consumer_id, message_id, expires_in))

    async def _claim(self, consumer_id: str, message_id: str, expires_in: float | None) -> bool:
        engine = await self._ready()
        # A mark that somebody else has not committed yet is waited for.
        claim = f"{self._put} WHERE m.expires_at <= clock_timestamp()"
        return await engine.execute(claim, (consumer_id, message_id, expires_in)) > 0
