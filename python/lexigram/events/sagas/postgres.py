"""Sagas on PostgreSQL, in the event store's own database. Source: spec/reference-surface.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.sagas.record import decode_record, encode_record, microseconds, names_statement
from lexigram.events.sagas.store import SagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus, now
from lexigram.events.stores._batcher import Batcher
from lexigram.events.stores.postgres.database import Database, PostgresTables
from lexigram.events.stores.postgres.unit import PostgresDeferredUnitOfWork


class PostgresSagaStore(PostgresTables, SagaStore):
    """Keeps sagas in one table; `save` joins the unit of work of an event store on the same database.

    Args:
        db: A `PostgresEventStore` (or another PostgreSQL store), a DSN or a `PostgresEventStoreConfig`.
        codec: Encodes the sagas' data; the default one knows every value that events may carry.
    """

    def __init__(self, db: Any, *, codec: EventCodec | None = None) -> None:
        self._use(Database(db))
        self._codec = EventCodec() if codec is None else codec
        self._table = self.database.names.sagas
        self._insert = f"INSERT INTO {self._table} (saga_name, status, due, created_at, version, record, saga_id)"
        self._update = f"UPDATE {self._table} SET saga_name = $1, status = $2, due = $3, created_at = $4, version = $5, record = $6"
        self._created: Batcher[tuple[Any, ...], bool] = Batcher(self._insert_all, key=lambda values: values[6])
        self._saved: Batcher[tuple[Any, ...], bool] = Batcher(self._update_all, key=lambda values: values[6])

    def unit_of_work(self) -> AbstractAsyncContextManager[Any]:
        """Return one transaction of the database; the engine of sagas runs steps in it. Needs `initialize` first."""
        return self.database.engine.unit_of_work()

    def joins(self, unit: Any) -> bool:
        """Return whether the unit is a transaction of this database."""
        return self._is_open and getattr(unit, "resource", None) is self.database.engine

    async def create(self, record: SagaRecord) -> bool:
        """Store a new saga; return False, with nothing written, if one of this id is there.

        Those that are created at the same time share a statement.
        """
        engine = await self._ready()
        record.version = 1
        record.updated_at = now()
        values = self._values(record)
        if engine.current_unit() is None:
            return await self._created.submit(values)
        return bool(await engine.execute(f"{self._insert} VALUES ($1, $2, $3, $4, $5, $6, $7) {_KEEP}", values))

    async def save(self, record: SagaRecord) -> None:
        """Store a record; see `SagaStore.save`. Those that are saved alone at the same time share a statement."""
        engine = await self._ready()
        expected = record.version
        if expected == 0:
            stored = await self._version(record.saga_id)
            if stored is None and await self.create(record):
                return
            record.version = expected = stored or await self._version(record.saga_id) or 0
        record.version = expected + 1
        record.updated_at = now()
        values = (*self._values(record), expected)
        unit = engine.current_unit()
        if isinstance(unit, PostgresDeferredUnitOfWork) and unit.defers:
            unit.defer(partial(self._save_alone, values), partial(self._save_on, values))
            return
        try:
            if unit is None:
                await self._save_alone(values)
            else:
                async with unit.connection() as connection:
                    await self._save_on(values, connection)
        except ConcurrencyError:
            record.version = expected
            raise

    async def _save_alone(self, values: tuple[Any, ...]) -> None:
        if not await self._saved.submit(values):
            raise self._conflict(values, await self._version(values[6]))

    async def _save_on(self, values: tuple[Any, ...], connection: Any) -> None:
        """Save in the transaction of a connection."""
        if not await connection.fetch(f"{self._update} WHERE saga_id = $7 AND version = $8 RETURNING 1", *values):
            row = await connection.fetchrow(f"SELECT version FROM {self._table} WHERE saga_id = $1", values[6])
            raise self._conflict(values, None if row is None else int(row[0]))

    async def _insert_all(self, batch: list[tuple[Any, ...]]) -> list[bool]:
        engine = await self._ready()
        rows = await engine.write_all(
            f"{self._insert} SELECT * FROM unnest({_ARRAYS}) {_KEEP} RETURNING saga_id", _columns(batch)
        )
        stored = {row[0] for row in rows}
        return [values[6] in stored for values in batch]

    async def _update_all(self, batch: list[tuple[Any, ...]]) -> list[bool]:
        engine = await self._ready()
        in_order = sorted(batch, key=lambda values: str(values[6]))  # so that rows are locked in one order everywhere
        rows = await engine.write_all(
            f"""UPDATE {self._table} AS saga SET saga_name = n.saga_name, status = n.status, due = n.due,
                created_at = n.created_at, version = n.version, record = n.record
            FROM unnest({_ARRAYS}, $8::bigint[])
                AS n (saga_name, status, due, created_at, version, record, saga_id, expected)
            WHERE saga.saga_id = n.saga_id AND saga.version = n.expected RETURNING saga.saga_id""",
            _columns(in_order),
        )
        stored = {row[0] for row in rows}
        return [values[6] in stored for values in batch]

    def _conflict(self, values: tuple[Any, ...], actual: int | None) -> ConcurrencyError:
        return ConcurrencyError(
            f"Saga {values[6]!r} was saved by somebody else meanwhile",
            expected_version=values[7],
            actual_version=actual,
        )

    async def load(self, saga_id: str) -> SagaRecord | None:
        """Return the record, or None."""
        found = await self._select("WHERE saga_id = $1", (saga_id,))
        return found[0] if found else None

    async def delete(self, saga_id: str) -> bool:
        """Remove a saga; return whether it was there."""
        engine = await self._ready()
        return await engine.execute(f"DELETE FROM {self._table} WHERE saga_id = $1", (saga_id,)) > 0

    async def list_by_name(self, saga_name: str) -> list[SagaRecord]:
        """Return all sagas of this name, oldest first."""
        return await self._select("WHERE saga_name = $1 ORDER BY created_at, saga_id", (saga_name,))

    async def list_by_status(
        self, statuses: Iterable[SagaStatus], saga_names: Iterable[str], limit: int | None = None
    ) -> list[SagaRecord]:
        """Return sagas of these names in any of these states, oldest first. Cost: the sagas found."""
        return await self._select(
            "WHERE saga_name = ANY ($1::text[]) AND status = ANY ($2::text[]) ORDER BY created_at, saga_id LIMIT $3",
            (list(saga_names), [status.value for status in statuses], limit),
        )

    async def list_due(self, saga_names: Iterable[str], until: datetime) -> list[SagaRecord]:
        """Return unfinished sagas that are due up to `until`, oldest first. Cost: the sagas found."""
        return await self._select(
            "WHERE saga_name = ANY ($1::text[]) AND due <= $2 ORDER BY created_at, saga_id",
            (list(saga_names), microseconds(until)),
        )

    async def list_names(self) -> list[str]:
        """Return the names of all kinds of saga that are stored, sorted. Cost: their number."""
        engine = await self._ready()
        return [name for (name,) in await engine.fetch_all(names_statement(self._table))]

    async def _select(self, where: str, params: Sequence[Any]) -> list[SagaRecord]:
        engine = await self._ready()
        rows = await engine.fetch_all(f"SELECT version, record FROM {self._table} {where}", params)
        return [decode_record(self._codec, record, version) for version, record in rows]

    async def _version(self, saga_id: str) -> int | None:
        engine = await self._ready()
        row = await engine.fetch_one(f"SELECT version FROM {self._table} WHERE saga_id = $1", (saga_id,))
        return None if row is None else int(row[0])

    def _values(self, record: SagaRecord) -> tuple[Any, ...]:
        return (
            record.saga_name,
            record.status.value,
            microseconds(record.due_at),
            microseconds(record.created_at),
            record.version,
            encode_record(self._codec, record),
            record.saga_id,
        )


_ARRAYS = "$1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[]"
_KEEP = "ON CONFLICT (saga_id) DO NOTHING"


def _columns(batch: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*batch, strict=True)]
