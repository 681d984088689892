"""The event store on MongoDB: one document per commit, no transactions. Source: spec/api-reference.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores._evolution import decode_rows
from lexigram.events.stores._primitives import Appended, Page, ReadRequest, StreamBounds
from lexigram.events.stores._serializer import SerializerCodec
from lexigram.events.stores._validation import MAX_POSITION, check_number
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.mongodb.commits import CommitLog, Part
from lexigram.events.stores.mongodb.database import MongoDatabase, aggregated, insert_missing
from lexigram.events.stores.mongodb.documents import (
    HELD,
    INDEXES,
    Document,
    events_of,
    in_stream,
    only,
    row,
    selected,
    without,
)
from lexigram.events.stores.mongodb.signal import ChangeSignal
from lexigram.events.stores.mongodb.unit import MongoUnitOfWork
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork, current_unit_of_work

if TYPE_CHECKING:
    from lexigram.events.messages.registry import EventTypeRegistry
    from lexigram.events.stores.base import AbstractCheckpointStore
    from lexigram.events.stores.condition import ResolvedCondition
    from lexigram.events.stores.outbox.log import LogOutboxStore

_COMMITS_AT_ONCE: Final = 1000


class MongoDBEventStore(AbstractEventStore):
    """Events in MongoDB; an acknowledged append is durable on a majority of the replica set.

    Concurrent appends of all coroutines share commits. Any number of processes may use one log, on any topology:
    standalone, replica set, sharded (the log itself is not sharded) or a compatible server.

    Args:
        document_store: A framework document store (lexigram-nosql), a pymongo asyncio database or client, a
            `mongodb://` URL or configuration, another MongoDB store to share its connection, or None.
        config: `MongoDBConfig`, `MongoDBEventStoreConfig` or a URL: names of the collections, and the address where
            `document_store` is None.
        event_serializer: An `EventCodec`, or an object with `serialize(event) -> bytes` and `deserialize(bytes)`.
        schema_evolution: Converts older events when they are read.
        registry: Resolves event types.
        codec: The same as `event_serializer`; give one of them.
    """

    poll_interval_seconds = 0.25

    def __init__(
        self,
        document_store: Any = None,
        config: Any = None,
        event_serializer: Any | None = None,
        *,
        schema_evolution: Any | None = None,
        registry: EventTypeRegistry | None = None,
        codec: EventCodec | None = None,
    ) -> None:
        super().__init__(schema_evolution, registry=registry)
        self.mongo = MongoDatabase(document_store, config)
        chosen = codec if codec is not None else event_serializer
        if chosen is None:
            chosen = EventCodec(self._registry)
        self._codec: EventCodec = chosen if isinstance(chosen, EventCodec) else SerializerCodec(chosen, self._registry)
        self._log: CommitLog
        self._signal = ChangeSignal(self.mongo, self._wakeup)

    @property
    def events(self) -> Any:
        """The driver's collection of commits. Raises before `connect`."""
        return self.mongo.collection()

    @property
    def counters(self) -> Any:
        """The driver's collection of what compaction has removed, by stream. Raises before `connect`."""
        return self.mongo.collection(name=self.mongo.settings.counters)

    def unit_of_work(self) -> MongoUnitOfWork:
        """Return a block whose appends are stored at its end as one commit, or not at all.

        There is no transaction around it: checkpoints, sagas and other documents saved inside it are written just
        after the commit, each by itself.
        """
        return MongoUnitOfWork(self.mongo.root, self._committer)

    def outbox(self, name: str = "event_outbox") -> LogOutboxStore:
        """Return the outbox of this name; it delivers from the log itself."""
        from lexigram.events.stores.mongodb.checkpoint_store import MongoDBCheckpointStore
        from lexigram.events.stores.mongodb.dead_letters import MongoDBDeadLetterStore
        from lexigram.events.stores.outbox.log import LogOutboxStore

        letters = MongoDBDeadLetterStore(self, codec=self._codec)
        return LogOutboxStore(self, MongoDBCheckpointStore(self), letters, name)

    def checkpoint_store(self) -> AbstractCheckpointStore:
        """Return a checkpoint store in the same database; close it like any other."""
        from lexigram.events.stores.mongodb.checkpoint_store import MongoDBCheckpointStore

        return MongoDBCheckpointStore(self)

    async def save(self, stream_id: str, events: Sequence[Any], expected_version: int | None = None) -> int:
        """Append events to a stream: the spelling of the documents' example for `append`."""
        return await self.append(stream_id, events, expected_version)

    async def find_by_type(  # the documents' spelling beside the contract's
        self, event_type: type | str, count: int = 100, start: int = 0, *, limit: int | None = None, offset: int = 0
    ) -> list[Any]:
        """Return up to `count` events of one type with a position above `start`, in global order.

        Args:
            event_type: Class, class name, full name or alias.
            count: At most this many events.
            start: Last position processed (exclusive).
            limit: The documents' spelling of `count`.
            offset: Skip this many of the events; cost grows with it, `start` is free.
        """
        skipped = check_number(offset, "offset")
        wanted = count if limit is None else limit
        found = await super().find_by_type(
            event_type, check_number(wanted, "count" if limit is None else "limit") + skipped, start
        )
        return found[skipped:]

    def watch_events(self, event_types: Iterable[type | str] | type | str | None = None) -> AsyncIterator[Any]:
        """Yield events that are stored from now on, in global order without a gap; never ends by itself.

        Where the server has change streams they wake the reader; where it has none (a standalone server, FerretDB) it
        looks every `poll_interval_seconds`. Events come from the log either way.

        Args:
            event_types: Only these types (classes, names, aliases); None = all.
        """
        return self._watch((event_types,) if isinstance(event_types, type | str) else event_types)

    async def _watch(self, event_types: Iterable[type | str] | None) -> AsyncIterator[Any]:
        async with aclosing(self.subscribe(await self.head(), event_types=event_types)) as following:  # type: ignore[type-var]
            async for event in following:
                yield event

    async def subscribe(
        self,
        from_position: int = 0,
        batch_size: int = 100,
        event_types: Iterable[type | str] | None = None,
    ) -> AsyncIterator[Any]:
        """Yield the events after a position, then go on with new ones; see `AbstractEventStore.subscribe`.

        Other processes' events wake the reader where the server has change streams.
        """
        await self._ready()
        self._signal.start()
        async with aclosing(super().subscribe(from_position, batch_size, event_types)) as following:  # type: ignore[type-var]
            async for event in following:
                yield event

    async def wait_for_events(self, position: int, timeout_seconds: float) -> bool:
        """Wait until there is an event after `position`; return whether there is. Woken like `subscribe`."""
        await self._ready()
        self._signal.start()
        return await super().wait_for_events(position, timeout_seconds)

    async def _committer(self) -> CommitLog:
        await self._ready()
        return self._log

    async def _open(self) -> None:
        await self.mongo.open_collection(self.mongo.settings.events, INDEXES)
        is_text = self._codec.format == "json"
        shared = self.mongo.root.shared
        key = f"log {self.mongo.settings.events} {is_text}"
        if key not in shared:
            shared[key] = CommitLog(self.mongo, is_text)
        self._log = shared[key]
        self._log.wakeups.append(self._wakeup)

    async def _close(self) -> None:
        self._log.wakeups.remove(self._wakeup)
        await self._signal.stop()
        await self.mongo.close()

    def _unit_of_work(self) -> AbstractUnitOfWork | None:
        return current_unit_of_work(self.mongo.root)

    def _part(
        self, stream_id: str, events: Sequence[Any], expected: int | None, condition: ResolvedCondition | None
    ) -> Part:
        encode = self._codec.encode
        return Part(stream_id, [encode(event) for event in events], expected, condition)

    async def _append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
        unit_of_work: AbstractUnitOfWork | None,
    ) -> Appended:
        part = self._part(stream_id, events, expected_version, condition)
        await self._log.commit([part])
        assert part.stored is not None
        return part.stored

    async def _append_in(
        self,
        unit: AbstractUnitOfWork,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
    ) -> int:
        assert isinstance(unit, MongoUnitOfWork)
        part = self._part(stream_id, events, expected_version, condition)
        version = await unit.add(part)

        async def stored() -> None:
            assert part.stored is not None
            await self._stored(stream_id, events, *part.stored)

        unit.on_commit(stored)
        return version

    async def _read(self, stream_id: str, from_version: int, to_version: int | None, limit: int | None) -> list[Any]:
        last, first = MAX_POSITION if to_version is None else to_version, from_version
        found = await self._versions(stream_id, first, last, limit)
        while not _is_whole(found, first):
            # Compaction removes from the beginning of a stream, perhaps while it was being read.
            removed = await self._removed(stream_id)
            if removed < first:
                break
            first = removed + 1
            found = await self._versions(stream_id, first, last, limit)
        return await decode_rows(self._schema_evolution, self._codec, [row(event) for event in found])

    async def _versions(self, stream_id: str, first: int, last: int, limit: int | None) -> list[Document]:
        """Return the stored events of a range of versions of a stream, at most `limit` versions wide."""
        if limit is not None:
            last = min(last, first + limit - 1)
        if first > last:
            return []
        commits, events = in_stream(stream_id, first, last)
        found = await self._find(commits, events)
        return sorted(found, key=lambda event: event["v"])

    async def _find(self, commits: Document, events: Document, **options: Any) -> list[Any]:
        documents = await self.mongo.read(
            lambda: self.events.find(commits, only(events), **options).to_list(None), "reading events"
        )
        return events_of(documents)

    async def _read_all(self, request: ReadRequest) -> Page:
        head = await self._head()
        if request.up_to is not None:
            head = min(head, request.up_to)
        found, after = list[Any](), request.after
        while request.limit is None or len(found) < request.limit:
            batch, is_last = await self._batch(
                request, after, None if request.limit is None else request.limit - len(found)
            )
            found += batch
            if is_last:
                break
            after = batch[-1]["p"]
        if request.limit is not None and len(found) >= request.limit:
            del found[request.limit :]
            position = found[-1]["p"]
        else:
            # What has been stored since the head was read may be among the events already.
            position = max(head, found[-1]["p"] if found else 0, request.after)
        events = await decode_rows(self._schema_evolution, self._codec, [row(event) for event in found])
        return Page(events, position, [event["s"] for event in found] if request.with_stream_ids else ())

    async def _batch(self, request: ReadRequest, after: int, limit: int | None) -> tuple[list[Any], bool]:
        """Return the next selected events after a position, and whether they are the last ones."""
        chosen = selected(request, after)
        if chosen is None:
            return [], True
        # Each commit found has at least one event selected.
        at_most = _COMMITS_AT_ONCE if limit is None else min(limit, _COMMITS_AT_ONCE)
        documents = await self.mongo.read(
            lambda: self.events.find(chosen[0], only(chosen[1]), sort=[("q", 1)], limit=at_most).to_list(None),
            "reading events",
        )
        found = events_of(documents)
        return found, len(documents) < at_most or not found

    async def _count(self, request: ReadRequest) -> int:
        chosen = selected(request, request.after)
        if chosen is None:
            return 0
        per_commit = {"$size": only(chosen[1])["e"]}
        pipeline: list[Document] = [
            {"$match": chosen[0]},
            {"$project": {"c": per_commit}},
            {"$group": {"_id": None, "c": {"$sum": "$c"}}},
        ]
        found = await self.mongo.read(lambda: aggregated(self.events, pipeline), "counting events")
        return int(found[0]["c"]) if found else 0

    async def _bounds(self, stream_id: str) -> StreamBounds:
        version, removed = await asyncio.gather(self._version(stream_id), self._removed(stream_id))
        # Read at the same time: the stream may have gone on and been compacted in between.
        return StreamBounds(removed + 1 if version > removed else 0, max(version, removed))

    async def _version(self, stream_id: str) -> int:
        last = await self.mongo.read(
            lambda: self.events.find_one({"a.s": stream_id}, {"a": 1}, sort=[("_id", -1)]), "reading a stream's version"
        )
        return 0 if last is None else max(int(a["l"]) for a in last["a"] if a["s"] == stream_id)

    async def _removed(self, stream_id: str) -> int:
        """Return the last version that compaction has removed."""
        key = {"_id": self._counter(stream_id)}
        mark = await self.mongo.read(lambda: self.counters.find_one(key), "reading a stream's beginning")
        return 0 if mark is None else int(mark["removed"])

    async def _head(self) -> int:
        last = await self.mongo.read(
            lambda: self.events.find_one({}, {"q": 1}, sort=[("q", -1)]), "reading the last position"
        )
        return 0 if last is None else int(last["q"])

    async def _compact(self, stream_id: str, up_to_version: int) -> int:
        version = await self._version(stream_id)
        up_to = min(up_to_version, version)
        if not up_to:
            return 0
        before = await self._mark_removed(stream_id, up_to)
        # Again even if it was marked before: a process may have ended between marking and removing.
        commits, update = without(stream_id, max(before, up_to))
        await self.mongo.write(lambda: self.events.update_many(commits, update), "removing events")
        return max(0, up_to - before)

    async def _mark_removed(self, stream_id: str, up_to: int) -> int:
        """Raise a stream's mark of removed versions and return what it was."""
        key, counters = {"_id": self._counter(stream_id)}, self.counters

        async def mark() -> Any:
            found = await counters.find_one_and_update(key, {"$max": {"removed": up_to}})
            if found is None:
                # Made first and then raised: an upsert is not atomic on every server.
                await insert_missing(counters, {**key, "removed": 0})
                found = await counters.find_one_and_update(key, {"$max": {"removed": up_to}})
            return found["removed"]

        return int(await self.mongo.write(mark, "marking removed events"))

    async def _removals(self) -> dict[str, int]:
        own = {"_id": {"$gte": self._counter(""), "$lt": f"{self.mongo.settings.events};"}}
        marks = await self.mongo.read(lambda: self.counters.find(own).to_list(None), "reading what was removed")
        return {mark["_id"].partition(":")[2]: int(mark["removed"]) for mark in marks}

    def _counter(self, stream_id: str) -> str:
        """Return the id of a stream's counter; several logs may have one collection of counters."""
        return f"{self.mongo.settings.events}:{stream_id}"

    async def _stream_ids(self) -> list[str]:
        pipeline: list[Document] = [{"$match": HELD}, {"$unwind": "$e"}, {"$group": {"_id": "$e.s"}}]
        found = await self.mongo.read(lambda: aggregated(self.events, pipeline), "listing streams")
        return sorted(document["_id"] for document in found)


def _is_whole(events: Sequence[Any], first: int) -> bool:
    """Tell whether the events are versions `first`, `first` + 1, … without a hole."""
    return bool(events) and all(event["v"] == version for version, event in enumerate(events, first))
