"""Sagas on Redis. Source: spec/reference-surface.md."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.sagas.record import decode_record, encode_record
from lexigram.events.sagas.store import SagaStore
from lexigram.events.sagas.types import SagaRecord, SagaStatus, now
from lexigram.events.stores.redis.log import RedisLog
from lexigram.events.stores.redis.operations import SmallOperation
from lexigram.events.stores.redis.shared import RedisPart, log_of
from lexigram.events.stores.redis.small_scripts import SAGA_LIST_SCRIPT
from lexigram.events.stores.redis.unit import RedisUnitOfWork
from lexigram.events.stores.unit_of_work import current_unit_of_work


class _Saved(NamedTuple):
    """What a unit of work has saved of one saga.

    Args:
        saves: How many saves the next one makes.
        outcome: Where the unit's single write of it is.
        first: The version expected by the first of them.
        version: The version after the last one.
        text: The record.
    """

    saves: int
    outcome: Any
    first: int | None
    version: int
    text: str


class RedisSagaStore(RedisPart, SagaStore):
    """Keeps sagas in a namespace of Redis; `save` joins the unit of work of an event store that shares it.

    Inside a unit of work a save is checked when it is made and again at the end; before that only the unit itself sees it.

    Args:
        store: As for `RedisEventStore`; usually the event store itself.
        namespace: As for `RedisEventStore`.
        codec: Encodes the sagas' data; the default one knows every value that events may carry.
    """

    def __init__(self, store: Any, namespace: str = "lexigram:events", *, codec: EventCodec | None = None) -> None:
        self._use(log_of(store, namespace))
        self._codec = EventCodec() if codec is None else codec

    def unit_of_work(self) -> RedisUnitOfWork:
        """Return a block whose appends and saga states are written together; the engine of sagas runs steps in it."""
        return RedisUnitOfWork(self.log, self._ready)

    def joins(self, unit: Any) -> bool:
        """Return whether `unit` is of this store's namespace, so that a save in it commits with its appends."""
        return getattr(unit, "resource", None) is self.log

    async def create(self, record: SagaRecord) -> bool:
        """Store a new saga; return False, with nothing written, if one of this id is there."""
        log = await self._ready()
        record.version, record.updated_at = 1, now()
        try:
            await self._write(log, record, 0)
        except ConcurrencyError:
            return False
        return True

    async def save(self, record: SagaRecord) -> None:
        """Store a record; see `SagaStore.save`."""
        log = await self._ready()
        before, record.updated_at = record.version, now()
        record.version = before + 1
        try:
            record.version = await self._write(log, record, before or None)
        except BaseException:
            record.version = before
            raise

    async def load(self, saga_id: str) -> SagaRecord | None:
        """Return the record, or None."""
        log = await self._ready()
        unit: Any = current_unit_of_work(log)
        saved = None if unit is None else unit.notes.get(("saga", saga_id))
        if saved is not None:
            return decode_record(self._codec, saved.text, saved.version)
        version, record = await log.connection.read("HMGET", f"{log.prefix}saga:{saga_id}", "version", "record")
        return None if record is None else decode_record(self._codec, record, int(version))

    async def delete(self, saga_id: str) -> bool:
        """Remove a saga; return whether it was there."""
        return bool(await (await self._ready()).apply(SmallOperation("drop_saga", (saga_id,))))

    async def list_by_name(self, saga_name: str) -> list[SagaRecord]:
        """Return all sagas of this name, oldest first."""
        return await self.list_by_status(SagaStatus, [saga_name])

    async def list_by_status(
        self, statuses: Iterable[SagaStatus], saga_names: Iterable[str], limit: int | None = None
    ) -> list[SagaRecord]:
        """Return sagas of these names in any of these states, oldest first. Cost: the sagas found."""
        log = await self._ready()
        wanted = set(statuses)
        lists = [f"{name}\0{status.value}" for name in set(saga_names) for status in wanted]
        if limit is not None and limit <= 0:
            return []
        found = await log.evaluate(SAGA_LIST_SCRIPT, limit or 0, len(lists), *lists)
        return [decode_record(self._codec, record, int(version)) for version, record in found]

    async def list_names(self) -> list[str]:
        """Return the names of all kinds of saga that were ever stored, sorted."""
        log = await self._ready()
        return sorted(name.decode() for name in await log.connection.read("SMEMBERS", f"{log.prefix}saga_names"))

    async def _write(self, log: RedisLog, record: SagaRecord, expected: int | None) -> int:
        """Store a record whose stored version is `expected` (None: any); return its new version."""
        created = round(record.created_at.timestamp() * 1_000_000)
        unit: Any = current_unit_of_work(log)
        note = ("saga", record.saga_id)
        earlier = None if unit is None else unit.notes.get(note)
        saves, outcome, first, stored, _ = _Saved(1, None, expected, 0, "") if earlier is None else earlier
        if earlier is not None and expected not in (None, stored):
            raise _saved_meanwhile(record.saga_id, expected, stored)
        text = encode_record(self._codec, record)
        values = (
            record.saga_id,
            "" if first is None else first,
            saves,
            record.saga_name,
            record.status.value,
            created,
            text,
        )
        operation = SmallOperation("saga", values, partial(_saved_meanwhile, record.saga_id, first))
        if earlier is None:
            version = int(await log.apply(operation))
            outcome = None if unit is None else unit.outcome
        else:
            # The unit writes the saga once, with its last state.
            unit.replace(outcome, operation)
            version = stored + 1
        if unit is not None:
            unit.notes[note] = _Saved(saves + 1, outcome, first, version, text)
        return version


def _saved_meanwhile(saga_id: str, expected: int | None, actual: int | None) -> ConcurrencyError:
    return ConcurrencyError(
        f"Saga {saga_id!r} was saved by somebody else meanwhile", expected_version=expected, actual_version=actual
    )
