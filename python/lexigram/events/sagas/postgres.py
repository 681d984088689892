"""Sagas on PostgreSQL, in the event store's own database. Source: spec/reference-surface.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.sagas.record import decode_record, encode_record
from lexigram.events.sagas.store import SagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus, now
from lexigram.events.stores.postgres.database import Database, PostgresTables


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

    async def initialize(self) -> None:
        """Connect; every other method does so too when it is used first."""
        await self.connect()

    def unit_of_work(self) -> AbstractAsyncContextManager[Any]:
        """Return one transaction of the database; the engine of sagas runs steps in it. Needs `initialize` first."""
        return self.database.engine.unit_of_work()

    def joins(self, unit: Any) -> bool:
        """Return whether the unit is a transaction of this database."""
        return self._is_open and getattr(unit, "resource", None) is self.database.engine

    async def create(self, record: SagaRecord) -> bool:
        """Store a new saga in one statement; return False, with nothing written, if one of this id is there."""
        engine = await self._ready()
        record.version = 1
        record.updated_at = now()
        inserted = await engine.execute(
            f"INSERT INTO {self._table} (saga_name, status, due, created_at, version, record, saga_id) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (saga_id) DO NOTHING",
            self._values(record),
        )
        return inserted > 0

    async def save(self, record: SagaRecord) -> None:
        """Store a record; see `SagaStore.save`."""
        engine = await self._ready()
        expected = record.version
        if expected == 0:
            stored = await self._version(record.saga_id)
            if stored is None and await self.create(record):
                return
            record.version = expected = stored or await self._version(record.saga_id) or 0
        record.version = expected + 1
        record.updated_at = now()
        changed = await engine.execute(
            f"UPDATE {self._table} SET saga_name = $1, status = $2, due = $3, created_at = $4, version = $5, "
            "record = $6 WHERE saga_id = $7 AND version = $8",
            (*self._values(record), expected),
        )
        if not changed:
            record.version = expected
            raise ConcurrencyError(
                f"Saga {record.saga_id!r} was saved by somebody else meanwhile",
                expected_version=expected,
                actual_version=await self._version(record.saga_id),
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
            (list(saga_names), _moment(until)),
        )

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
            _moment(record.due_at),
            _moment(record.created_at),
            record.version,
            encode_record(self._codec, record),
            record.saga_id,
        )


def _moment(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1_000_000)
