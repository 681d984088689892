"""Copies a whole log from one store to another, whatever the backends. Source: spec/reference-surface.md.

Only public operations of the stores are used, so every pair of backends works. Versions and positions are kept: where
the source has removed events, placeholders take their numbers and are removed again at the end.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lexigram.events.exceptions import EventError, EventPersistenceError, EventValidationError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores._primitives import ReadRequest
from lexigram.events.stores._validation import check_number
from lexigram.events.stores.base import AbstractEventStore

if TYPE_CHECKING:
    from lexigram.contracts.events.protocols.store import EventStoreProtocol

__all__ = ["MigrationResult", "migrate", "migrate_store", "verify_migration"]

FILLER: Final = "lexigram-removed"
"""Stream of the placeholders for removed events of which the source no longer knows the stream."""

_MOST_DIFFERENCES: Final = 10

Progress = Callable[[int, int], None]
"""Called with (position reached, position of the source's head)."""


class RemovedEventPlaceholder(DomainEvent):
    """Takes the place of an event that the source has removed, until the copy is complete."""


class Entry(NamedTuple):
    """One event with the stream it is in."""

    stream_id: str
    event: Any


@dataclass
class MigrationResult:
    """What a copy did.

    Args:
        events_migrated: Events copied by this call; with `dry_run` those that it would copy.
        streams_migrated: Streams that they are in.
        errors: What went wrong; empty after a success.
        checksum: SHA-256 over the whole log, equal on both sides; empty before the copy is verified.
    """

    events_migrated: int = 0
    streams_migrated: int = 0
    errors: list[str] = field(default_factory=list)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    completed_at: datetime | None = None
    checksum: str = ""

    @property
    def duration_seconds(self) -> float:
        """Seconds from beginning to end, or until now."""
        return ((self.completed_at or datetime.now(UTC)) - self.started_at).total_seconds()

    @property
    def success(self) -> bool:
        """Whether the copy ended without errors."""
        return self.completed_at is not None and not self.errors


class LogDigest:
    """Count and SHA-256 of a log: of each event's position, stream, version, id, type, time, tags and JSON payload."""

    def __init__(self, codec: EventCodec | None = None) -> None:
        self.count = 0
        self._hash = hashlib.sha256()
        self._codec = EventCodec() if codec is None else codec

    def add(self, entry: Entry) -> None:
        """Take the next event, in order of position."""
        self.add_facts(self.facts(entry))

    def add_facts(self, facts: tuple[Any, ...]) -> None:
        """Take the next event as `facts` describes one."""
        self.count += 1
        self._hash.update(repr(facts).encode())

    def facts(self, entry: Entry) -> tuple[Any, ...]:
        """Return what makes the event what it is: position, stream, version, id, type, short name, time, tags, payload."""
        return (entry.event.sequence_number, entry.stream_id, entry.event.version, *self._codec.encode(entry.event))

    def hexdigest(self) -> str:
        """Return the checksum so far."""
        return self._hash.hexdigest()


async def migrate(
    source: EventStoreProtocol,
    target: EventStoreProtocol,
    batch_size: int = 500,
    dry_run: bool = False,
    *,
    on_progress: Progress | None = None,
) -> MigrationResult:
    """Copy all events of `source` to `target`, with their ids, versions, positions, times and tags, and verify the copy.

    The target must be empty, or hold the beginning of the same copy: after an interruption, call it again and it goes
    on. Each batch is one transaction. Nobody else may write to the target meanwhile. The source is copied up to its
    head at the time of the call; it may go on, and a further call copies what came since and removes what it has removed.
    An event is copied as the
    source reads it: with a schema evolution in its present form, and byte for byte where its class is unknown.

    Args:
        source: One of this library's stores.
        target: Another one, of any backend.
        batch_size: Events per transaction, from 1.
        dry_run: Only count what would be copied.
        on_progress: Called after each batch.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; not two different stores of this library.
        EventPersistenceError: LEX_ERR_EVT_012; the target holds something else, or the copy differs from the source.
    """
    left, right, size = _own(source, "source"), _own(target, "target"), check_number(batch_size, "batch_size", 1)
    if left is right:
        raise EventValidationError("source and target are the same store", field="target")
    removed = await removed_versions(left)
    result, head = MigrationResult(), await left.head()
    done = await right.head()
    await _check_beginning(left, right, done, head)
    copier = Copier(right, done)
    if not dry_run:
        await copier.learn(removed)
    streams: set[str] = set()
    while batch := await _batch(left, done, head, size):
        if not dry_run:
            if batch[-1].event.sequence_number - done != len(batch):
                removed = await removed_versions(left)
                if removed != copier.removed:
                    await copier.learn(removed)
                    continue  # read once more: what is missing must be among what is known to be removed
            await copier.copy(batch)
            if on_progress is not None:
                on_progress(copier.position, head)
        done = batch[-1].event.sequence_number
        streams.update(entry.stream_id for entry in batch)
        result.events_migrated += len(batch)
    result.streams_migrated = len(streams)
    if not dry_run:
        await copier.learn(await removed_versions(left))
        await copier.finish(head)
        differences, result.checksum = await _compare(left, right, head)
        if differences:
            raise EventPersistenceError(f"the copy differs from its source: {'; '.join(differences)}")
    result.completed_at = datetime.now(UTC)
    return result


async def migrate_store(
    source: EventStoreProtocol, target: EventStoreProtocol, batch_size: int = 100, dry_run: bool = False
) -> MigrationResult:
    """Do what `migrate` does, and return the errors of this library in the result instead of raising them."""
    started = datetime.now(UTC)
    try:
        return await migrate(source, target, batch_size, dry_run)
    except EventError as error:
        return MigrationResult(errors=[str(error)], started_at=started, completed_at=datetime.now(UTC))


async def verify_migration(source: EventStoreProtocol, target: EventStoreProtocol) -> tuple[bool, list[str]]:
    """Compare two logs event by event; return whether they are equal, and the first differences in words."""
    left, right = _own(source, "source"), _own(target, "target")
    differences, _ = await _compare(left, right, max(await left.head(), await right.head()))
    return not differences, differences


class Copier:
    """Writes a log to a store that is empty or holds its beginning.

    Args:
        position: What the target holds already.
    """

    def __init__(self, target: AbstractEventStore, position: int) -> None:
        self.position = position
        self._target = target
        self.removed: dict[str, int] = {}
        self._owed: dict[str, int] = {}

    async def learn(self, removed: Mapping[str, int]) -> None:
        """Take note of what is removed, highest version by stream, and of the placeholders to be written for it."""
        for stream_id, version in removed.items():
            if version != self.removed.get(stream_id):
                missing = version - await self._target.get_stream_version(stream_id)
                if missing > 0:
                    self._owed[stream_id] = missing
        self.removed = dict(removed)

    async def copy(self, batch: Sequence[Entry]) -> None:
        """Store the next events of the log in one transaction, with placeholders before them where some are missing."""
        wanted: dict[str, int] = {}
        for stream_id, event in batch:
            wanted.setdefault(stream_id, event.version - 1)
        planned: list[Entry] = []
        for entry in batch:
            planned += self._fill(entry.event.sequence_number - 1, wanted)
            planned.append(entry)
            self.position = entry.event.sequence_number
        await self._store(planned)

    async def finish(self, head: int, at_once: int = 500) -> None:
        """Fill up to the head and remove all placeholders."""
        while self.position < head:
            await self._store(self._fill(min(head, self.position + at_once), {}))
        for stream_id, version in self.removed.items():
            await self._target.compact(stream_id, version)
        if await self._target.stream_exists(FILLER):
            await self._target.delete_stream(FILLER)

    def _fill(self, up_to: int, wanted: Mapping[str, int]) -> list[Entry]:
        """Return placeholders for the positions up to `up_to`, first those of streams whose events come next."""
        entries = []
        urgent = [stream_id for stream_id in wanted if stream_id in self._owed]
        while self.position < up_to:
            stream_id = urgent[0] if urgent else next(iter(self._owed), FILLER)
            entries.append(Entry(stream_id, RemovedEventPlaceholder()))
            self.position += 1
            if stream_id in self._owed:
                self._owed[stream_id] -= 1
                if not self._owed[stream_id]:
                    del self._owed[stream_id]
                    urgent = urgent[1:]
        return entries

    async def _store(self, entries: Sequence[Entry]) -> None:
        async with self._target.unit_of_work():
            for stream_id, run in groupby(entries, lambda entry: entry.stream_id):
                events = [event for _, event in run]
                first, last = events[0].version, events[-1].version
                stored = await self._target.append(stream_id, events, first - 1 if first else None)
                if first and stored != last:  # an id that is stored already counts as a retry
                    raise EventPersistenceError(
                        f"stream {stream_id!r} is at version {stored} after its event of version {last}: "
                        "an event id comes twice in the log, or the target already has it"
                    )


async def batches(
    store: AbstractEventStore, after: int, up_to: int | None, size: int
) -> AsyncGenerator[list[Entry], None]:
    """Yield the events of a log in order, `size` at a time."""
    while batch := await _batch(store, after, up_to, size):
        yield batch
        if len(batch) < size:
            return
        after = batch[-1].event.sequence_number


async def _batch(store: AbstractEventStore, after: int, up_to: int | None, size: int) -> list[Entry]:
    page = await store._page(ReadRequest(after=after, limit=size, up_to=up_to, with_stream_ids=True))
    return [Entry(*pair) for pair in zip(page.stream_ids, page.events, strict=True)]


async def removed_versions(store: AbstractEventStore) -> dict[str, int]:
    """Return the highest removed version of each stream from which events were removed."""
    await store._ready()
    return {stream_id: version for stream_id, version in (await store._removals()).items() if version}


def _own(store: Any, name: str) -> AbstractEventStore:
    if not isinstance(store, AbstractEventStore):
        raise EventValidationError(f"{name} must be a store of this library, got {type(store).__name__}", field=name)
    return store


async def _check_beginning(left: AbstractEventStore, right: AbstractEventStore, done: int, head: int) -> None:
    """Refuse a target that holds anything but the beginning of the source.

    What the source has removed since it was copied may be there; it goes at the end, like the placeholders.
    """
    if done > head:
        raise EventPersistenceError(
            f"the target is at position {done}, beyond the source's {head}; use an empty target"
        )
    if not done:
        return
    facts, removed = LogDigest().facts, await removed_versions(left)
    found: dict[int, tuple[Any, ...]] = {}
    async for batch in batches(right, 0, done, 500):
        for entry in batch:
            if type(entry.event) is not RemovedEventPlaceholder:
                found[entry.event.sequence_number] = facts(entry)
        async for expected in batches(left, batch[0].event.sequence_number - 1, batch[-1].event.sequence_number, 500):
            for entry in expected:
                if found.pop(entry.event.sequence_number, None) != facts(entry):
                    raise _other(entry.event.sequence_number)
        for position, (_, stream_id, version, *_rest) in found.items():
            if version > removed.get(stream_id, 0):
                raise _other(position)
        found.clear()


def _other(position: int) -> EventPersistenceError:
    return EventPersistenceError(
        f"the target holds other events than the source (first at position {position}); use an empty target"
    )


async def _compare(left: AbstractEventStore, right: AbstractEventStore, head: int) -> tuple[list[str], str]:
    """Return the first differences and, where there are none, the checksum of both logs."""
    differences: list[str] = []
    mine, other = LogDigest(), LogDigest()
    async with aclosing(_events(left, head)) as expected, aclosing(_events(right, head)) as copied:
        async for entry in expected:
            twin = await anext(copied, None)
            mine.add(entry)
            if twin is not None:
                other.add(twin)
            if twin is None or mine.facts(entry) != other.facts(twin):
                differences.append(_difference(entry, twin))
                if len(differences) == _MOST_DIFFERENCES or twin is None:
                    return differences, ""
        extra = await anext(copied, None)
    if extra is not None:
        differences.append(f"position {extra.event.sequence_number} exists only in the target")
    went_on = await left.head() > head
    for stream_id, version in (await removed_versions(left)).items():
        found = await right.get_stream_version(stream_id)
        expected_version = await left.get_stream_version(stream_id)
        if found > expected_version or (found < expected_version and not went_on):
            differences.append(
                f"stream {stream_id!r} ends at version {found}, not {expected_version} ({version} removed)"
            )
    return differences[:_MOST_DIFFERENCES], "" if differences else mine.hexdigest()


async def _events(store: AbstractEventStore, up_to: int) -> AsyncGenerator[Entry, None]:
    async with aclosing(batches(store, 0, up_to, 500)) as pages:
        async for batch in pages:
            for entry in batch:
                yield entry


def _difference(entry: Entry, twin: Entry | None) -> str:
    position = entry.event.sequence_number
    if twin is None:
        return f"position {position} ({entry.event.event_type} of {entry.stream_id!r}) is missing in the target"
    found: dict[str, Any] = defaultdict(str)
    names = ("position", "stream", "version", "id", "type", "event type", "time", "tags", "payload")
    digest = LogDigest()
    for name, mine, other in zip(names, digest.facts(entry), digest.facts(twin), strict=True):
        if mine != other:
            found[name] = other
    return f"position {position} differs in {', '.join(found)}"
