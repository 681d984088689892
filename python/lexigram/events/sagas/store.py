"""Where sagas are kept. Source: spec/reference-surface.md."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Self
from weakref import WeakKeyDictionary

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.messages.shapes import SCALARS
from lexigram.events.sagas.record import encode_record
from lexigram.events.sagas.types import UNFINISHED, SagaRecord, SagaStatus, copy_record, now
from lexigram.events.stores._life import Closable
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork, current_unit_of_work

_PLAIN = frozenset({*SCALARS, type(None)})


class SagaStore(Closable, ABC):
    """Keeps saga records. A backend must implement the first four methods; the others have a default over them.

    `save` and `create` join the current unit of work where the store shares its database.
    """

    @abstractmethod
    async def save(self, record: SagaRecord) -> None:
        """Store a record and raise its `version` by one.

        A record with version 0 replaces whatever is stored; any other must carry the version that is stored.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004; somebody else has saved the saga meanwhile, nothing was written.
            SerializationError: LEX_ERR_EVT_025; `data` holds something that cannot be stored.
        """

    @abstractmethod
    async def load(self, saga_id: str) -> SagaRecord | None:
        """Return a copy of the record, or None."""

    @abstractmethod
    async def delete(self, saga_id: str) -> bool:
        """Remove a saga; return whether it was there."""

    @abstractmethod
    async def list_by_name(self, saga_name: str) -> list[SagaRecord]:
        """Return all sagas of this name, oldest first."""

    def joins(self, unit: Any) -> bool:
        """Return whether what is saved inside this unit of work commits and rolls back with it."""
        return False

    async def create(self, record: SagaRecord) -> bool:
        """Store a new saga; return False, with nothing written, if one of this id is there."""
        if await self.load(record.saga_id) is not None:
            return False
        await self.save(record)
        return True

    async def list_by_status(
        self, statuses: Iterable[SagaStatus], saga_names: Iterable[str], limit: int | None = None
    ) -> list[SagaRecord]:
        """Return sagas of these names in any of these states, oldest first. Cost: all sagas of these names."""
        wanted = set(statuses)
        names = dict.fromkeys(saga_names)
        found = [record for name in names for record in await self.list_by_name(name) if record.status in wanted]
        return sorted(found, key=_age)[:limit]

    async def list_due(self, saga_names: Iterable[str], until: datetime) -> list[SagaRecord]:
        """Return unfinished sagas of these names with a `due_at` up to `until`, oldest first.

        Cost: all unfinished sagas of these names; the stores on databases read only what they return.
        """
        found = await self.list_by_status(UNFINISHED, saga_names)
        return [record for record in found if record.due_at is not None and record.due_at <= until]

    async def list_names(self) -> list[str]:
        """Return the names of all kinds of saga that are stored, sorted; a store that does not know them returns none."""
        return []

    async def initialize(self) -> None:
        """Create what the store needs; every other method does so too when it is used first. Reopens a closed store."""
        await self.connect()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self


def _age(record: SagaRecord) -> tuple[datetime, str]:
    return record.created_at, record.saga_id


class InMemorySagaStore(SagaStore):
    """Keeps sagas in this process. Inside a unit of work changes are seen by it at once, by others when it commits."""

    def __init__(self) -> None:
        self._codec = EventCodec()
        self._records: dict[str, SagaRecord] = {}
        self._drafts: WeakKeyDictionary[Any, dict[str, SagaRecord]] = WeakKeyDictionary()

    def joins(self, unit: Any) -> bool:
        """True: the change takes effect when the unit commits."""
        return True

    def clear(self) -> None:
        """Forget all sagas."""
        self._records.clear()

    async def save(self, record: SagaRecord) -> None:
        """Store a copy of the record."""
        self._check(record)
        actual = self._version(record.saga_id)
        if record.version not in (0, actual):
            raise self._conflict(record.saga_id, record.version)
        record.version = actual + 1
        record.updated_at = now()
        kept = copy_record(record)
        unit = current_unit_of_work()
        if unit is None:
            self._records[kept.saga_id] = kept
            return
        drafts = self._drafts.setdefault(unit, {})
        if kept.saga_id not in drafts:
            unit.before_commit(lambda: self._publish(unit, kept.saga_id, actual))
        drafts[kept.saga_id] = kept

    def _check(self, record: SagaRecord) -> None:
        """Refuse what no durable backend could store; a saga with plain values passes without being encoded."""
        values = (record.data, record.metadata, *(step.output for step in record.steps.values()))
        if record.pending or any(type(value) not in _PLAIN for group in values for value in group.values()):
            encode_record(self._codec, record)

    async def load(self, saga_id: str) -> SagaRecord | None:
        """Return a copy of the record, or None."""
        record = self._visible(saga_id)
        return None if record is None else copy_record(record)

    async def delete(self, saga_id: str) -> bool:
        """Remove a saga; return whether it was there."""
        unit = current_unit_of_work()
        if unit is None:
            return self._records.pop(saga_id, None) is not None
        unit.on_commit(lambda: self._forget(saga_id))
        return self._visible(saga_id) is not None

    def _forget(self, saga_id: str) -> None:
        self._records.pop(saga_id, None)

    async def list_by_name(self, saga_name: str) -> list[SagaRecord]:
        """Return copies of all sagas of this name, oldest first."""
        found = [record for record in self._records.values() if record.saga_name == saga_name]
        return [copy_record(record) for record in sorted(found, key=_age)]

    async def list_names(self) -> list[str]:
        """Return the names of all kinds of saga that are stored, sorted."""
        return sorted({record.saga_name for record in self._records.values()})

    def _visible(self, saga_id: str) -> SagaRecord | None:
        unit = current_unit_of_work()
        drafts = {} if unit is None else self._drafts.get(unit, {})
        return drafts.get(saga_id) or self._records.get(saga_id)

    def _version(self, saga_id: str) -> int:
        record = self._visible(saga_id)
        return 0 if record is None else record.version

    def _publish(self, unit: AbstractUnitOfWork, saga_id: str, base: int) -> None:
        """Make a unit's draft the record, unless somebody has saved the saga since; taken back if the unit fails."""
        before = self._records.get(saga_id)
        if (0 if before is None else before.version) != base:
            raise self._conflict(saga_id, base)
        self._records[saga_id] = self._drafts[unit].pop(saga_id)
        unit.on_rollback(
            lambda: self._records.pop(saga_id) if before is None else self._records.update({saga_id: before})
        )

    def _conflict(self, saga_id: str, expected: int) -> ConcurrencyError:
        return ConcurrencyError(
            f"Saga {saga_id!r} was saved by somebody else meanwhile",
            expected_version=expected,
            actual_version=self._version(saga_id),
        )
