"""Dead letters on SQLite: they survive restarts with their typed event. Source: spec/reference-surface.md."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.buses.dead_letter import DeadLetterStore
from lexigram.events.buses.dead_letter_entry import DeadLetterEntry, DeadLetterFilter, DeadLetterGroup, Lane
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._dead_letter_rows import COLUMNS, GROUPS, conditions, from_groups, from_row, to_row
from lexigram.events.stores.sqlite.database import Database, SqliteTables

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol


class SqliteDeadLetterStore(SqliteTables, DeadLetterStore):
    """Dead letters in the tables of a SQLite file.

    Args:
        config: As for `SqliteEventStore`; usually the event store itself.
        provider: A framework database provider to run the statements instead.
        codec: Encodes the events.
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
        DeadLetterStore.__init__(self)
        self._use(Database(config, provider, table_prefix))
        self._codec = EventCodec() if codec is None else codec
        self._table = table = self.database.names.dead_letters
        marks = ", ".join("?" * len(COLUMNS))
        self._insert = f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES ({marks})"
        self._update = f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in COLUMNS)} WHERE entry_id = ?"

    async def _put(self, entry: DeadLetterEntry) -> None:
        row = to_row(self._codec, entry)

        def put(connection: sqlite3.Connection) -> int:
            found = connection.execute(
                f"SELECT position FROM {self._table} WHERE entry_id = ?", (entry.entry_id,)
            ).fetchone()
            if found is not None:
                connection.execute(self._update, (*row, entry.entry_id))
                return int(found[0])
            connection.execute(self._insert, row)
            # Not `lastrowid`: a database provider does not have it.
            return int(connection.execute(f"SELECT max(position) FROM {self._table}").fetchone()[0])

        entry.position = await (await self._ready()).run(put)

    async def _select(self, wanted: DeadLetterFilter, after: int, limit: int) -> list[DeadLetterEntry]:
        where, params = conditions(wanted)
        columns = ", ".join(f"CAST({name} AS BLOB) AS {name}" if name in _BLOBS else name for name in COLUMNS)
        engine = await self._ready()
        rows = await engine.fetch_all(
            f"SELECT position, {columns} FROM {self._table} WHERE position > ?{where} ORDER BY position LIMIT ?",
            (after, *params, limit),
        )
        return [from_row(self._codec, row) for row in rows]

    async def _count(self, wanted: DeadLetterFilter) -> int:
        where, params = conditions(wanted)
        engine = await self._ready()
        row = await engine.fetch_one(f"SELECT count(*) FROM {self._table} WHERE 1{where}", params)
        return 0 if row is None else int(row[0])

    async def _groups(self, wanted: DeadLetterFilter) -> list[tuple[DeadLetterGroup, int]]:
        where, params = conditions(wanted)
        engine = await self._ready()
        columns, clause = GROUPS
        sql = f"SELECT {columns} FROM {self._table} WHERE 1{where} {clause}"
        return from_groups(await engine.fetch_all(sql, params))

    async def _last_position(self) -> int:
        row = await (await self._ready()).fetch_one(f"SELECT max(position) FROM {self._table}")
        return int(row[0]) if row and row[0] else 0

    async def _delete(self, wanted: DeadLetterFilter) -> int:
        where, params = conditions(wanted)
        engine = await self._ready()
        return await engine.execute(f"DELETE FROM {self._table} WHERE 1{where}", params)

    async def _pending_lanes(self) -> list[Lane]:
        engine = await self._ready()
        rows = await engine.fetch_all(
            f"SELECT handler_name, aggregate_id FROM {self._table} WHERE replayed = 0 AND aggregate_id IS NOT NULL "
            "GROUP BY handler_name, aggregate_id ORDER BY min(position)"
        )
        return [(handler, aggregate) for handler, aggregate in rows]


_BLOBS: Final = frozenset({"event_data", "event_payload"})
