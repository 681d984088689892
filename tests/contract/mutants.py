"""Stores with a known bug each, put in on purpose: the test of the contract suites that is about it must fail.

Run by `test_mutants.py` in a process of its own. A mutant is right in all other things, so that nothing else gives it away.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from lexigram.events.messages.stamping import stamp
from lexigram.events.stores._primitives import Appended, Page, ReadRequest, StreamBounds
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.checkpoints import AbstractCheckpointStore, InMemoryCheckpointStore
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.sqlite import SqliteEventStore
from lexigram.events.stores.sqlite.log import EventLog
from lexigram.events.testing.checkpoint_store import CheckpointStoreContract
from lexigram.events.testing.event_store import EventStoreContract
from lexigram.events.testing.outbox import OutboxContract


class Memory(InMemoryEventStore):
    """Without the short cuts that pass by what the mutants change."""

    caught_by: ClassVar[str]
    append = AbstractEventStore.append


class LateVisibility(Memory):
    """A sequence without a lock: a position is given before the event can be seen, and later ones overtake it."""

    caught_by = "test_a_following_reader_never_misses_a_position"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._hidden: set[int] = set()

    async def _append(self, *arguments: Any) -> Appended:
        stored = await super()._append(*arguments)
        if stored.position % 3 == 0:
            self._hidden.add(stored.position)
            asyncio.get_running_loop().call_later(0.02, self._hidden.discard, stored.position)
        return stored

    async def _read_all(self, request: ReadRequest) -> Page:
        page = await super()._read_all(request)
        kept = [n for n, event in enumerate(page.events) if event.sequence_number not in self._hidden]
        streams = [page.stream_ids[n] for n in kept] if page.stream_ids else ()
        return Page([page.events[n] for n in kept], page.position, streams)


class VersionIsLength(Memory):
    """The version is the number of events held."""

    caught_by = "test_compaction_keeps_every_number"

    async def _bounds(self, stream_id: str) -> StreamBounds:
        first, version = await super()._bounds(stream_id)
        return StreamBounds(first, version - first + 1 if first else 0)


class CheckThenWrite(Memory):
    """The expected version is checked in one step and the events are written in another."""

    caught_by = "test_of_racing_writers_exactly_one_wins"

    async def _append(
        self, stream_id: str, events: Any, expected_version: Any, condition: Any, unit_of_work: Any
    ) -> Appended:
        if expected_version is not None and unit_of_work is None:
            version = (await self._bounds(stream_id)).version
            await asyncio.sleep(0.001)
            if version == expected_version:
                expected_version = None
        return await super()._append(stream_id, events, expected_version, condition, unit_of_work)


class ConditionOutside(Memory):
    """The condition is checked before the write, not together with it."""

    caught_by = "test_of_racing_conditions_exactly_one_holds"

    async def _append(
        self, stream_id: str, events: Any, expected_version: Any, condition: Any, unit_of_work: Any
    ) -> Appended:
        if condition is not None and unit_of_work is None:
            page = await self._read_all(ReadRequest(after=condition.after, limit=1, query=condition.query))
            await asyncio.sleep(0.001)
            if not page.events:
                condition = None
        return await super()._append(stream_id, events, expected_version, condition, unit_of_work)


class RetryStoresTwice(Memory):
    """Event ids are not looked at: a retry after a lost answer stores its events again."""

    caught_by = "test_a_retry_stores_nothing_twice"

    async def _append(self, stream_id: str, events: Any, *more: Any) -> Appended:
        fresh = [type(event)(**_fields(event)) for event in events]
        return await super()._append(stream_id, fresh, *more)


class CompactionResets(Memory):
    """Removing a stream's events forgets its version."""

    caught_by = "test_a_deleted_stream_keeps_its_version_counter"

    async def _bounds(self, stream_id: str) -> StreamBounds:
        bounds = await super()._bounds(stream_id)
        return bounds if bounds.first else StreamBounds(0, 0)


class InclusivePosition(Memory):
    """`from_position` is the first event to be returned."""

    caught_by = "test_events_since_a_position_or_a_time"

    async def _read_all(self, request: ReadRequest) -> Page:
        return await super()._read_all(request.__class__(**{**_slots(request), "after": max(request.after - 1, 0)}))


class RandomPartitions(SqliteEventStore):
    """Partitions by Python's own hash, which is another one in every process."""

    caught_by = "test_partitions_are_disjoint_and_complete"

    async def _read_all(self, request: ReadRequest) -> Page:
        if request.partition is None:
            return await super()._read_all(request)
        index, total = request.partition
        page = await super()._read_all(
            request.__class__(**{**_slots(request), "partition": None, "with_stream_ids": True, "limit": None})
        )
        chosen = [e for e, s in zip(page.events, page.stream_ids, strict=True) if hash(s) % total == index]
        return Page(chosen[: request.limit], page.position)


class ClassOnly(Memory):
    """By type means this class exactly."""

    caught_by = "test_a_query_selects_any_type_and_all_tags"

    async def _read_all(self, request: ReadRequest) -> Page:
        page = await super()._read_all(request)
        if request.query is None or not any(item.types for item in request.query):
            return page
        exact = [min(item.types, key=len) for item in request.query if item.types]
        kept = [e for e in page.events if self._registry.type_name(type(e)) in exact]
        return Page(kept, page.position)


class TornBatch(Memory):
    """A batch is stored event by event."""

    caught_by = "test_racing_batches_are_whole_and_in_order"

    async def _append(
        self, stream_id: str, events: Any, expected_version: Any, condition: Any, unit_of_work: Any
    ) -> Appended:
        stored = None
        for event in events:
            stored = await super()._append(stream_id, [event], expected_version, condition, unit_of_work)
            expected_version = condition = None
            await asyncio.sleep(0)
        assert stored is not None
        return stored


class StampsAnyway(Memory):
    """Events are stamped before it is known whether they are stored."""

    caught_by = "test_a_failed_append_stamps_nothing"

    async def _append(self, stream_id: str, events: Any, *more: Any) -> Appended:
        version = (await self._bounds(stream_id)).version
        for offset, event in enumerate(events, 1):
            stamp(event, version + offset, 1_000 + offset)
        return await super()._append(stream_id, events, *more)


class SkipsUnconvertible(Memory):
    """An upcaster that fails is passed over in silence."""

    caught_by = "test_a_failing_upcaster_raises"

    async def _evolve(self, events: list[Any]) -> list[Any]:
        try:
            return await super()._evolve(events)
        except Exception:
            return events


class NeighboursFail(SqliteEventStore):
    """A conflict in one append of a commit fails all the others of that commit."""

    caught_by = "test_of_racing_conditions_exactly_one_holds"

    async def connect(self) -> None:
        await super().connect()
        self._log.__class__ = _FailsTogether


class _FailsTogether(EventLog):
    def fold(self, connection: Any, requests: Any) -> list[Any]:
        outcomes = super().fold(connection, requests)
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        return [failed[0] for _ in outcomes] if failed else outcomes


class HeadRunsAhead(Memory):
    """The head counts an event that nobody can read yet."""

    caught_by = "test_a_following_reader_never_misses_a_position"

    async def _head(self) -> int:
        return await super()._head() + 1


class IgnoresCase(SqliteEventStore):
    """Streams whose ids differ in case are one, as with the usual collation of some databases."""

    caught_by = "test_stream_ids_are_taken_literally"

    async def _append(self, stream_id: str, *more: Any) -> Appended:
        return await super()._append(stream_id.lower(), *more)

    async def _read(self, stream_id: str, *more: Any) -> list[Any]:
        return await super()._read(stream_id.lower(), *more)


class FirstThousand(SqliteEventStore):
    """Of a long stream the first page is returned."""

    caught_by = "test_long_streams_and_large_events_are_whole"

    async def _read(self, stream_id: str, from_version: int, to_version: Any, limit: Any) -> list[Any]:
        return (await super()._read(stream_id, from_version, to_version, limit))[:1000]


class LimitBeatsVersion(SqliteEventStore):
    """With a limit, the last version asked for is forgotten."""

    caught_by = "test_limit_counts_from_the_first_version"

    async def _read(self, stream_id: str, from_version: int, to_version: Any, limit: Any) -> list[Any]:
        return await super()._read(stream_id, from_version, to_version if limit is None else None, limit)


class OverwritesOthers(Memory):
    """What others have appended during a unit of work is lost with its commit."""

    caught_by = "test_appends_from_elsewhere_meanwhile_are_kept"

    def unit_of_work(self) -> Any:
        unit, before = super().unit_of_work(), self.log.head()
        commit = unit._commit

        async def overwrite() -> None:
            for event in await self.read_all(before):
                for stream in await self.get_stream_ids():
                    if event in await self.read(stream):
                        self.log.compact(stream, event.version)
            await commit()

        unit._commit = overwrite  # type: ignore[method-assign]
        return unit


class MarksBeforeConfirm(InMemoryEventStore):
    """What the outbox hands out counts as delivered before the broker has confirmed it."""

    caught_by = "test_what_was_not_confirmed_is_claimed_again"

    def outbox(self, name: str = "event_outbox") -> Any:
        box: Any = super().outbox(name)
        claim = box.claim

        async def claim_and_settle(*arguments: Any) -> Any:
            batch = await claim(*arguments)
            await box.settle(batch, batch.entries)
            return batch

        box.claim = claim_and_settle
        return box


class OldEpochWrites(InMemoryCheckpointStore):
    """An owner that has lost its lease may still move the checkpoint."""

    caught_by = "test_an_owner_that_lost_the_lock_is_fenced"

    def _check_epoch(self, name: str, epoch: int | None) -> None:
        return


class LeaseForEver(InMemoryCheckpointStore):
    """A lease never runs out."""

    caught_by = "test_an_expired_lock_can_be_taken"

    async def _acquire(self, name: str, owner: str, timeout_seconds: float) -> bool:
        return await super()._acquire(name, owner, 1e9)


def _fields(event: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(event)]
    left_out = {"event_id", "sequence_number", "version"}
    return {name: getattr(event, name) for name in names if name not in left_out}


def _slots(request: ReadRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__slots__}


EVENT_STORES = [
    LateVisibility,
    VersionIsLength,
    CheckThenWrite,
    ConditionOutside,
    RetryStoresTwice,
    CompactionResets,
    InclusivePosition,
    RandomPartitions,
    ClassOnly,
    TornBatch,
    StampsAnyway,
    SkipsUnconvertible,
    NeighboursFail,
    HeadRunsAhead,
    IgnoresCase,
    FirstThousand,
    LimitBeatsVersion,
    OverwritesOthers,
]
CHECKPOINT_STORES = [OldEpochWrites, LeaseForEver]
OUTBOXES = [MarksBeforeConfirm]
MUTANTS: list[Any] = [*EVENT_STORES, *CHECKPOINT_STORES, *OUTBOXES]
HEALTHY: list[Any] = [Memory, SqliteEventStore, InMemoryCheckpointStore, type("WithOutbox", (InMemoryEventStore,), {})]


def _contract(store_class: type[Any]) -> type[Any]:
    if issubclass(store_class, AbstractCheckpointStore):
        return CheckpointStoreContract
    return OutboxContract if store_class in OUTBOXES or store_class is HEALTHY[-1] else EventStoreContract


def _suite(store_class: type[Any]) -> type[Any]:
    """Return the suite of one class, reduced to the test that is about its bug; to those about any bug if it has none."""

    class Suite(_contract(store_class)):  # type: ignore[misc]
        @pytest.fixture(autouse=True)
        def _directory(self, tmp_path: Path) -> None:
            self.path = tmp_path

        async def make_store(self, **options: Any) -> Any:
            if issubclass(store_class, SqliteEventStore):
                return store_class(str(self.path / f"{uuid4().hex}.db"), **options)
            return store_class(**options)

    wanted = {mutant.caught_by for mutant in MUTANTS} if store_class in HEALTHY else {store_class.caught_by}
    for name in dir(Suite):
        if name.startswith("test_") and name not in wanted:
            setattr(Suite, name, None)
    Suite.__name__ = Suite.__qualname__ = f"Test{store_class.__name__}"
    return Suite


for _class in (*MUTANTS, *HEALTHY):
    globals()[f"Test{_class.__name__}"] = _suite(_class)
