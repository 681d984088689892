"""Dead letters on PostgreSQL: they survive restarts with their typed event. Source: spec/reference-surface.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.buses.dead_letter import DeadLetterStore
from lexigram.events.buses.dead_letter_entry import DeadLetterEntry, DeadLetterFilter, DeadLetterGroup, Lane
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._dead_letter_rows import COLUMNS, GROUPS, conditions, from_groups, from_row, to_row
from lexigram.events.stores.postgres.database import Database, PostgresTables

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol


class PostgresDeadLetterStore(PostgresTables, DeadLetterStore):
    """Dead letters in PostgreSQL.

    Args:
        config: As for `PostgresEventStore`; usually the event store itself.
        provider: A framework database provider; says where the database is.
        pool: An asyncpg pool to use.
        codec: Encodes the events.
        table_prefix: Put before every table name.
    """

    def __init__(
        self,
        config: Any = None,
        provider: DatabaseProviderProtocol | None = None,
        *,
        pool: Any = None,
        codec: EventCodec | None = None,
        table_prefix: str = "",
    ) -> None:
        DeadLetterStore.__init__(self)
        self._use(Database(config, provider, pool=pool, table_prefix=table_prefix))
        self._codec = EventCodec() if codec is None else codec
        self._table = table = self.database.names.dead_letters
        columns, marks = ", ".join(COLUMNS), ", ".join("?" * len(COLUMNS))
        updates = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS)
        self._put_sql = (
            f"INSERT INTO {table} ({columns}) VALUES ({marks}) "
            f"ON CONFLICT (entry_id) DO UPDATE SET {updates} RETURNING position"
        )
        self._columns = f"position, {columns}"

    async def _put(self, entry: DeadLetterEntry) -> None:
        row = to_row(self._codec, entry)
        engine = await self._ready()
        (stored,) = await engine.write_all(self._put_sql, row)
        entry.position = int(stored[0])

    async def _select(self, wanted: DeadLetterFilter, after: int, limit: int) -> list[DeadLetterEntry]:
        where, params = conditions(wanted)
        engine = await self._ready()
        rows = await engine.fetch_all(
            f"SELECT {self._columns} FROM {self._table} WHERE position > ?{where} ORDER BY position LIMIT ?",
            (after, *params, limit),
        )
        return [from_row(self._codec, row) for row in rows]

    async def _count(self, wanted: DeadLetterFilter) -> int:
        where, params = conditions(wanted)
        engine = await self._ready()
        row = await engine.fetch_one(f"SELECT count(*) FROM {self._table} WHERE true{where}", params)
        return int(row[0])

    async def _groups(self, wanted: DeadLetterFilter) -> list[tuple[DeadLetterGroup, int]]:
        where, params = conditions(wanted)
        engine = await self._ready()
        columns, clause = GROUPS
        sql = f"SELECT {columns} FROM {self._table} WHERE true{where} {clause}"
        return from_groups(await engine.fetch_all(sql, params))

    async def _last_position(self) -> int:
        row = await (await self._ready()).fetch_one(f"SELECT max(position) FROM {self._table}")
        return int(row[0]) if row and row[0] else 0

    async def _delete(self, wanted: DeadLetterFilter) -> int:
        where, params = conditions(wanted)
        engine = await self._ready()
        return await engine.execute(f"DELETE FROM {self._table} WHERE true{where}", params)

    async def _pending_lanes(self) -> list[Lane]:
        engine = await self._ready()
        rows = await engine.fetch_all(
            f"SELECT handler_name, aggregate_id FROM {self._table} WHERE replayed = 0 AND aggregate_id IS NOT NULL "
            "GROUP BY handler_name, aggregate_id ORDER BY min(position)"
        )
        return [(handler, aggregate) for handler, aggregate in rows]
