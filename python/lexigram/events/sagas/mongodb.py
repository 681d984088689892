"""Sagas in MongoDB, in the event store's own database. Source: spec/reference-surface.md."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.sagas.record import decode_record, encode_record, microseconds
from lexigram.events.sagas.store import SagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus, now
from lexigram.events.stores._settled import settled
from lexigram.events.stores.mongodb.database import MongoCollections, MongoDatabase, after_commit, insert_missing
from lexigram.events.stores.unit_of_work import current_unit_of_work


class MongoDBSagaStore(MongoCollections, SagaStore):
    """Keeps sagas, one document each; each save is atomic.

    Inside a unit of work of the event store a saga is checked at once and saved just after the commit: if the process
    ends in between, the step that was done is done again.

    Args:
        config: As for `MongoDBEventStore`; usually the event store itself.
        codec: Encodes the sagas' data; the default one knows every value that events may carry.
    """

    indexes = (
        ([("saga_name", 1), ("status", 1), ("created_at", 1)], {"name": "by_status"}),
        ([("saga_name", 1), ("due", 1)], {"name": "by_due"}),
    )

    def __init__(self, config: Any, *, codec: EventCodec | None = None) -> None:
        database = MongoDatabase(config)
        self._use(database, f"{database.settings.events}_sagas")
        self._codec = EventCodec() if codec is None else codec
        self._kept: WeakKeyDictionary[Any, dict[str, dict[str, Any]]] = WeakKeyDictionary()

    async def create(self, record: SagaRecord) -> bool:
        """Store a new saga; return False, with nothing written, if one of this id is there."""
        collection = await self._ready()
        unit = current_unit_of_work(self.mongo.root)
        if unit is not None and await self._version(record.saga_id) is not None:
            return False
        version, record.version = record.version, 1
        record.updated_at = now()
        document = self._document(record)
        if unit is not None:
            self._keep(unit, document, 0)
            return True
        inserted = await self.mongo.write(lambda: insert_missing(collection, document), "creating a saga")
        if not inserted:
            # A retry after a lost answer finds its own document.
            inserted = await self._holds(document)
        if not inserted:
            record.version = version
        return inserted

    async def save(self, record: SagaRecord) -> None:
        """Store a record; see `SagaStore.save`."""
        await self._ready()
        expected = record.version
        unit = current_unit_of_work(self.mongo.root)
        actual = None if expected and unit is None else await self._version(record.saga_id)
        if expected == 0:
            if actual is None and unit is None and await self.create(record):
                return
            expected = actual or await self._version(record.saga_id) or 0
        elif unit is not None and actual != expected:
            raise _outdated(record.saga_id, expected, actual)
        before, record.version = record.version, expected + 1
        record.updated_at = now()
        document = self._document(record)
        if unit is not None:
            self._keep(unit, document, expected)
            return
        try:
            await self._replace(document, expected)
        except ConcurrencyError:
            record.version = before
            raise

    def _keep(self, unit: Any, document: dict[str, Any], expected: int) -> None:
        """Write the saga once the unit has committed, with the last state that it has saved."""
        kept = self._kept.setdefault(unit, {})
        if document["_id"] not in kept:
            unit.on_commit(lambda: settled(asyncio.ensure_future(self._replace(kept.pop(document["_id"]), expected))))
        kept[document["_id"]] = document

    def _saved_here(self, saga_id: str) -> dict[str, Any] | None:
        """Return what the current unit of work has saved of a saga, or None."""
        unit = current_unit_of_work(self.mongo.root)
        return None if unit is None else self._kept.get(unit, {}).get(saga_id)

    async def load(self, saga_id: str) -> SagaRecord | None:
        """Return the record, or None."""
        kept = self._saved_here(saga_id)
        if kept is not None:
            return decode_record(self._codec, kept["record"], kept["version"])
        found = await self._find({"_id": saga_id}, 1)
        return found[0] if found else None

    async def delete(self, saga_id: str) -> bool:
        """Remove a saga; return whether it was there."""
        collection = await self._ready()
        remove = partial(self.mongo.write, lambda: collection.delete_one({"_id": saga_id}), "removing a saga")
        if current_unit_of_work(self.mongo.root) is None:
            return bool((await remove()).deleted_count)
        await after_commit(self.mongo, remove)
        return await self._version(saga_id) is not None

    async def list_by_name(self, saga_name: str) -> list[SagaRecord]:
        """Return all sagas of this name, oldest first."""
        return await self._find({"saga_name": saga_name})

    async def list_by_status(
        self, statuses: Iterable[SagaStatus], saga_names: Iterable[str], limit: int | None = None
    ) -> list[SagaRecord]:
        """Return sagas of these names in any of these states, oldest first. Cost: the sagas found."""
        names, states = list(saga_names), [status.value for status in statuses]
        if not names or not states or limit == 0:
            return []
        return await self._find({"saga_name": {"$in": names}, "status": {"$in": states}}, limit or 0)

    async def list_due(self, saga_names: Iterable[str], until: datetime) -> list[SagaRecord]:
        """Return unfinished sagas that are due up to `until`, oldest first. Cost: the sagas found."""
        names = list(saga_names)
        if not names:
            return []
        return await self._find({"saga_name": {"$in": names}, "due": {"$ne": None, "$lte": microseconds(until)}})

    async def list_names(self) -> list[str]:
        """Return the names of all kinds of saga that are stored, sorted. Cost: their number, with an index."""
        collection = await self._ready()
        return sorted(await self.mongo.read(lambda: collection.distinct("saga_name"), "listing kinds of saga"))

    async def _find(self, wanted: dict[str, Any], limit: int = 0) -> list[SagaRecord]:
        collection = await self._ready()
        found = await self.mongo.read(
            lambda: collection.find(wanted, sort=[("created_at", 1), ("_id", 1)], limit=limit).to_list(None),
            "reading sagas",
        )
        return [decode_record(self._codec, document["record"], int(document["version"])) for document in found]

    async def _replace(self, document: dict[str, Any], expected: int) -> None:
        """Replace the saga of version `expected` (0: there is none); a retry that finds its own document is done."""
        collection, saga_id = await self._ready(), document["_id"]

        async def replace() -> bool:
            if expected == 0:
                return await insert_missing(collection, document)
            outcome = await collection.replace_one({"_id": saga_id, "version": expected}, document)
            return bool(outcome.matched_count)

        if not await self.mongo.write(replace, "saving a saga") and not await self._holds(document):
            raise _outdated(saga_id, expected, await self._version(saga_id))

    async def _holds(self, document: dict[str, Any]) -> bool:
        collection = await self._ready()
        return (
            await self.mongo.read(
                lambda: collection.find_one({"_id": document["_id"], "token": document["token"]}, {"_id": 1}),
                "reading a saga",
            )
            is not None
        )

    async def _version(self, saga_id: str) -> int | None:
        kept = self._saved_here(saga_id)
        if kept is not None:
            return int(kept["version"])
        collection = await self._ready()
        found = await self.mongo.read(lambda: collection.find_one({"_id": saga_id}, {"version": 1}), "reading a saga")
        return None if found is None else int(found["version"])

    def _document(self, record: SagaRecord) -> dict[str, Any]:
        return {
            "_id": record.saga_id,
            "saga_name": record.saga_name,
            "status": record.status.value,
            "due": microseconds(record.due_at),
            "created_at": microseconds(record.created_at),
            "version": record.version,
            "record": encode_record(self._codec, record),
            "token": secrets.token_hex(12),
        }


def _outdated(saga_id: str, expected: int, actual: int | None) -> ConcurrencyError:
    return ConcurrencyError(
        f"Saga {saga_id!r} was saved by somebody else meanwhile", expected_version=expected, actual_version=actual
    )
