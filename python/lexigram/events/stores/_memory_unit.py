"""The in-memory unit of work: appends are collected and stored together at its end."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.stamping import stamp, stamp_all
from lexigram.events.stores._memory_kinds import matches
from lexigram.events.stores._pending import PendingEvents
from lexigram.events.stores._primitives import Appended
from lexigram.events.stores.condition import ResolvedCondition
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork

if TYPE_CHECKING:
    from lexigram.events.stores.memory import InMemoryEventStore

BeforeStoring = Callable[[list[tuple[Any, int]]], Awaitable[None]]
Query = list[tuple[list[str] | None, list[str]]]
Condition = tuple[Query, int]


class Batch(NamedTuple):
    """One append as the log takes it."""

    stream_id: str
    events: list[Any]
    type_names: list[str]
    expected_version: int | None
    condition: Condition | None


class MemoryUnitOfWork(AbstractUnitOfWork):
    """Collects appends to one in-memory store.

    Each append is checked when it is made and once more, together, at the end. The version it returns for
    `expected_version=None` is provisional: another writer may come first.
    """

    is_transaction = False
    resource: InMemoryEventStore

    def __init__(self, store: InMemoryEventStore) -> None:
        super().__init__(store)
        self._batches: list[Batch] = []
        self._fresh: list[Batch] = []
        """Those of them that were not stored before."""
        self._pending = PendingEvents()
        self._handlers: list[BeforeStoring] = []

    async def _begin(self) -> None:
        """Nothing to do: the log is only touched at the end."""

    def before_storing(self, handler: BeforeStoring) -> None:
        """Await `handler` with the events and the positions they are about to get; if it raises, nothing is stored."""
        if handler not in self._handlers:
            self._handlers.append(handler)

    async def _commit(self) -> None:
        if not self._batches:
            return
        if self._handlers:
            events = self._positioned()
            for handler in self._handlers if events else ():
                await handler(events)
        self.resource.store_batches(self._batches)

    def _positioned(self) -> list[tuple[Any, int]]:
        """Return copies of the events that are not stored yet, with versions and positions."""
        log, found = self.resource.log, list[tuple[Any, int]]()
        position, versions = log.head(), dict[str, int]()
        for batch in self._batches:
            if log.check(batch) is None:
                for event in batch.events:
                    position += 1
                    version = versions.get(batch.stream_id, log.bounds(batch.stream_id)[1]) + 1
                    versions[batch.stream_id] = version
                    copied = copy.copy(event)
                    stamp(copied, version, position)
                    found.append((copied, position))
        return found

    async def _rollback(self) -> None:
        self._batches.clear()
        self._fresh.clear()

    def add(self, batch: Batch, condition: ResolvedCondition | None) -> int:
        """Check an append, keep it for the commit and return its version."""
        ids = [event.event_id for event in batch.events]
        again = self._pending.find(batch.stream_id, ids)
        if again is not None:
            last: Any = again.append.events[-1]
            self.on_commit(lambda: _stamp(batch.events, again.shifted(Appended(last.version, last.sequence_number))))
            return again.version
        log = self.resource.log
        pending = [earlier for earlier in self._fresh if earlier.stream_id == batch.stream_id]
        offset = sum(len(earlier.events) for earlier in pending)
        expected = batch.expected_version
        if expected is not None:
            if expected < offset:
                raise self._conflict(batch.stream_id, expected, log.bounds(batch.stream_id)[1] + offset)
            # What the log must hold before this unit of work for the append to be at its expected version.
            batch = batch._replace(expected_version=expected - offset)
        stored: tuple[int, int] | None
        try:
            stored = log.check(batch)
        except ConcurrencyError as error:
            if error.actual_version is None or not offset:
                raise
            raise self._conflict(batch.stream_id, expected, error.actual_version + offset) from None
        if stored is not None:
            self._batches.append(batch)
            return stored[0]
        if condition is not None and any(self._matches(condition, earlier) for earlier in self._fresh):
            raise ConcurrencyError("an event of this unit of work matches the condition; nothing was written")
        self._batches.append(batch)
        self._fresh.append(batch)
        version = int(log.bounds(batch.stream_id)[1]) + offset + len(batch.events)
        self._pending.add(batch.stream_id, ids, version, batch)
        return version

    @staticmethod
    def _conflict(stream_id: str, expected: int | None, actual: int) -> ConcurrencyError:
        message = f"stream {stream_id!r} is at version {actual}, expected {expected}; nothing was written"
        return ConcurrencyError(message, expected_version=expected, actual_version=actual)

    @staticmethod
    def _matches(condition: ResolvedCondition, batch: Batch) -> bool:
        events: Sequence[Any] = batch.events
        return any(
            matches(item, name, event)
            for event, name in zip(events, batch.type_names, strict=True)
            for item in condition.query
        )


def _stamp(events: Sequence[Any], last: Appended) -> None:
    stamp_all(events, last.version - len(events), last.position - len(events))
