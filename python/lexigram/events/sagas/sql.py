"""Sagas in a SQL database, in the event store's own where it is SQLite. Source: spec/reference-surface.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from lexigram.events.exceptions import ConcurrencyError, EventValidationError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.sagas.record import decode_record, encode_record, microseconds, names_statement
from lexigram.events.sagas.store import SagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus, now
from lexigram.events.stores.sqlite.database import Database, SqliteTables
from lexigram.events.stores.sqlite.deferred import DeferredUnitOfWork

_TABLE = """CREATE TABLE IF NOT EXISTS {table} (
    saga_id TEXT PRIMARY KEY,
    saga_name TEXT NOT NULL,
    status TEXT NOT NULL,
    due INTEGER,
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    record TEXT NOT NULL)"""


class SqlSagaStore(SqliteTables, SagaStore):
    """Keeps sagas in one table, `event_sagas`; `save` joins the unit of work of an event store on the same database.

    Args:
        db: A `SqliteEventStore` (or another SQLite store), a path, an `sqlite://` URL, a `SqliteConfig`; or a
            framework database provider for SQLite, which then runs the statements.
        codec: Encodes the sagas' data; the default one knows every value that events may carry.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; `db` is None.
    """

    def __init__(self, db: Any, *, codec: EventCodec | None = None) -> None:
        if db is None:
            raise EventValidationError(
                "db must name a database: an event store, a path or a database provider, not None", field="db"
            )
        is_provider = hasattr(db, "execute") and hasattr(db, "transaction")
        self._use(Database(None, db) if is_provider else Database(db))
        self._codec = EventCodec() if codec is None else codec
        self._table = f'"{self.database.names.prefix}event_sagas"'
        self._indexes = {
            f'"{self.database.names.prefix}event_sagas_by_status"': "(saga_name, status)",
            f'"{self.database.names.prefix}event_sagas_by_due"': "(saga_name, due) WHERE due IS NOT NULL",
        }

    async def _make(self) -> bool:
        engine = self.database.engine
        await engine.execute(_TABLE.format(table=self._table))
        for index, columns in self._indexes.items():
            await engine.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {self._table} {columns}")
        return engine.current_unit() is None

    def unit_of_work(self) -> AbstractAsyncContextManager[Any]:
        """Return one transaction of the database; the engine of sagas runs steps in it. Needs `initialize` first."""
        return self.database.engine.unit_of_work()

    def joins(self, unit: Any) -> bool:
        """Return whether the unit is a transaction of this database."""
        return self._has_opened and getattr(unit, "resource", None) is self.database.engine

    async def create(self, record: SagaRecord) -> bool:
        """Store a new saga in one statement; return False, with nothing written, if one of this id is there."""
        await self._ready()
        record.version = 1
        record.updated_at = now()
        inserted = await self.database.engine.execute(
            f"INSERT INTO {self._table} (saga_id, saga_name, status, due, created_at, version, record) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (saga_id) DO NOTHING",
            (record.saga_id, *self._columns(record), record.version, encode_record(self._codec, record)),
        )
        return inserted > 0

    async def save(self, record: SagaRecord) -> None:
        """Store a record; see `SagaStore.save`."""
        await self._ready()
        expected = record.version
        record.updated_at = now()
        text = encode_record(self._codec, record)
        unit = self.database.engine.current_unit()
        deferred = unit if isinstance(unit, DeferredUnitOfWork) and unit.defers else None
        if expected == 0:
            row = (record.saga_id, *self._columns(record), text)
            if deferred is not None and await self.load(record.saga_id) is None:
                record.version = 1
                deferred.defer(lambda connection: self._insert(connection, row), _key(record.saga_id))
            else:
                record.version = await self.database.engine.run(lambda connection: self._replace(connection, row))
            return
        record.version = expected + 1
        params = (*self._columns(record), record.version, text, record.saga_id, expected)
        if deferred is not None:
            deferred.defer(lambda connection: self._update(connection, params), _key(record.saga_id))
            return
        try:
            await self.database.engine.run(lambda connection: self._update(connection, params))
        except ConcurrencyError:
            record.version = expected
            raise

    def _insert(self, connection: Any, row: Sequence[Any]) -> None:
        """Store a record that was not there when the unit of work looked."""
        if self._replace(connection, row) != 1:
            raise ConcurrencyError(f"Saga {row[0]!r} was saved by somebody else meanwhile", expected_version=0)

    def _replace(self, connection: Any, row: Sequence[Any]) -> int:
        """Store a record whatever is stored; return its version."""
        connection.execute(
            f"INSERT INTO {self._table} (saga_id, saga_name, status, due, created_at, version, record) "
            "VALUES (?, ?, ?, ?, ?, 1, ?) ON CONFLICT (saga_id) DO UPDATE SET saga_name = excluded.saga_name, "
            "status = excluded.status, due = excluded.due, created_at = excluded.created_at, version = version + 1, "
            "record = excluded.record",
            row,
        )
        return self._stored_version(connection, row[0]) or 0

    def _stored_version(self, connection: Any, saga_id: str) -> int | None:
        row = connection.execute(f"SELECT version FROM {self._table} WHERE saga_id = ?", (saga_id,)).fetchone()
        return None if row is None else int(row[0])

    def _update(self, connection: Any, params: Sequence[Any]) -> None:
        changed = connection.execute(
            f"UPDATE {self._table} SET saga_name = ?, status = ?, due = ?, created_at = ?, version = ?, record = ? "
            "WHERE saga_id = ? AND version = ?",
            params,
        ).rowcount
        if not changed:
            saga_id, expected = params[-2:]
            raise ConcurrencyError(
                f"Saga {saga_id!r} was saved by somebody else meanwhile",
                expected_version=expected,
                actual_version=self._stored_version(connection, saga_id),
            )

    async def load(self, saga_id: str) -> SagaRecord | None:
        """Return the record, or None."""
        await self._ready()
        sql = f"SELECT version, record FROM {self._table} WHERE saga_id = ?"
        row = await self.database.engine.find(sql, (saga_id,), _key(saga_id))
        return None if row is None else decode_record(self._codec, row[1], row[0])

    async def delete(self, saga_id: str) -> bool:
        """Remove a saga; return whether it was there."""
        await self._ready()
        return await self.database.engine.execute(f"DELETE FROM {self._table} WHERE saga_id = ?", (saga_id,)) > 0

    async def list_by_name(self, saga_name: str) -> list[SagaRecord]:
        """Return all sagas of this name, oldest first."""
        return await self._select("WHERE saga_name = ? ORDER BY created_at, saga_id", (saga_name,))

    async def list_by_status(
        self, statuses: Iterable[SagaStatus], saga_names: Iterable[str], limit: int | None = None
    ) -> list[SagaRecord]:
        """Return sagas of these names in any of these states, oldest first. Cost: the sagas found."""
        names, states = list(saga_names), [status.value for status in statuses]
        return await self._select(
            f"WHERE saga_name IN ({_marks(names)}) AND status IN ({_marks(states)}) ORDER BY created_at, saga_id LIMIT ?",
            (*names, *states, -1 if limit is None else limit),
        )

    async def list_due(self, saga_names: Iterable[str], until: datetime) -> list[SagaRecord]:
        """Return unfinished sagas that are due up to `until`, oldest first. Cost: the sagas found."""
        names = list(saga_names)
        return await self._select(
            f"WHERE saga_name IN ({_marks(names)}) AND due <= ? ORDER BY created_at, saga_id",
            (*names, microseconds(until)),
        )

    async def list_names(self) -> list[str]:
        """Return the names of all kinds of saga that are stored, sorted. Cost: their number."""
        engine = await self._ready()
        return [name for (name,) in await engine.fetch_all(names_statement(self._table))]

    async def _select(self, where: str, params: Sequence[Any]) -> list[SagaRecord]:
        await self._ready()
        rows = await self.database.engine.fetch_all(f"SELECT version, record FROM {self._table} {where}", params)
        return [decode_record(self._codec, record, version) for version, record in rows]

    @staticmethod
    def _columns(record: SagaRecord) -> tuple[Any, ...]:
        return record.saga_name, record.status.value, microseconds(record.due_at), microseconds(record.created_at)


def _key(saga_id: str) -> str:
    """Return the key under which a unit of work defers a change of the saga; it is no stream id."""
    return f"saga\0{saga_id}"


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" for _ in values)
