"""Dead letters on SQLite: they survive restarts with their typed event. Source: spec/reference-surface.md."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.buses.dead_letter import DeadLetterStore
from lexigram.events.buses.dead_letter_entry import DeadLetterEntry, DeadLetterFilter, Lane
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.sqlite.database import Database, SqliteTables

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_COLUMNS: Final = (
    "entry_id", "event_type", "handler_name", "aggregate_id", "error", "error_type", "failed_at", "attempts", "waiting",
    "replayed", "replayed_at", "event_data", "event_type_name", "event_payload", "event_version", "event_position",
)  # fmt: skip


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
        marks = ", ".join("?" * len(_COLUMNS))
        self._insert = f"INSERT INTO {table} ({', '.join(_COLUMNS)}) VALUES ({marks})"
        self._update = f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in _COLUMNS)} WHERE entry_id = ?"

    async def close(self) -> None:
        """Give the database back; a second call does nothing."""
        await SqliteTables.close(self)
        await DeadLetterStore.close(self)

    async def _put(self, entry: DeadLetterEntry) -> None:
        row = self._row(entry)

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
        where, params = _where(wanted)
        columns = ", ".join(f"CAST({name} AS BLOB) AS {name}" if name in _BLOBS else name for name in _COLUMNS)
        engine = await self._ready()
        rows = await engine.fetch_all(
            f"SELECT position, {columns} FROM {self._table} WHERE position > ?{where} ORDER BY position LIMIT ?",
            (after, *params, limit),
        )
        return [self._entry(row) for row in rows]

    async def _count(self, wanted: DeadLetterFilter) -> int:
        where, params = _where(wanted)
        engine = await self._ready()
        row = await engine.fetch_one(f"SELECT count(*) FROM {self._table} WHERE 1{where}", params)
        return 0 if row is None else int(row[0])

    async def _delete(self, wanted: DeadLetterFilter) -> int:
        where, params = _where(wanted)
        engine = await self._ready()
        return await engine.execute(f"DELETE FROM {self._table} WHERE 1{where}", params)

    async def _pending_lanes(self) -> list[Lane]:
        engine = await self._ready()
        rows = await engine.fetch_all(
            f"SELECT handler_name, aggregate_id FROM {self._table} WHERE replayed = 0 AND aggregate_id IS NOT NULL "
            "GROUP BY handler_name, aggregate_id ORDER BY min(position)"
        )
        return [(handler, aggregate) for handler, aggregate in rows]

    def _row(self, entry: DeadLetterEntry) -> tuple[Any, ...]:
        event: Any = entry.event
        encoded = None if event is None else self._codec.encode(event)
        return (
            entry.entry_id,
            entry.event_type,
            entry.handler_name,
            entry.aggregate_id,
            entry.error,
            entry.error_type,
            _microseconds(entry.failed_at),
            entry.attempts,
            int(entry.waiting),
            int(entry.replayed),
            None if entry.replayed_at is None else _microseconds(entry.replayed_at),
            self._codec.encode_value(entry.event_data),
            encoded and encoded.type_name,
            encoded and encoded.payload,
            getattr(event, "version", None),
            getattr(event, "sequence_number", None),
        )

    def _entry(self, row: tuple[Any, ...]) -> DeadLetterEntry:
        position, *values = row
        given = dict(zip(_COLUMNS, values, strict=True))
        type_name, payload = given.pop("event_type_name"), given.pop("event_payload")
        version, sequence_number = given.pop("event_version"), given.pop("event_position")
        entry = DeadLetterEntry(**given, position=position)
        event: Any = None
        if payload is not None:
            event = self._codec.decode(type_name, entry.event_type, payload, version or 0, sequence_number)
        return replace(
            entry,
            failed_at=_EPOCH + timedelta(microseconds=given["failed_at"]),
            replayed_at=None if given["replayed_at"] is None else _EPOCH + timedelta(microseconds=given["replayed_at"]),
            waiting=bool(given["waiting"]),
            replayed=bool(given["replayed"]),
            event_data=self._codec.decode_value(given["event_data"]),
            event=event,
        )


_BLOBS: Final = frozenset({"event_data", "event_payload"})


def _microseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def _where(wanted: DeadLetterFilter) -> tuple[str, list[Any]]:
    """Return the conditions of a filter, each with a leading AND, and their parameters."""
    clauses, params = "", []
    for column in ("entry_id", "event_type", "handler_name", "aggregate_id"):
        value = getattr(wanted, column)
        if value is not None:
            clauses += f" AND {column} = ?"
            params.append(value)
    if wanted.replayed is not None:
        # A literal, so that the partial index on pending entries can be used.
        clauses += f" AND replayed = {int(wanted.replayed)}"
    if wanted.failed_before is not None:
        clauses += " AND failed_at < ?"
        params.append(_microseconds(wanted.failed_before))
    return clauses, params
