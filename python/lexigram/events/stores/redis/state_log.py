"""The event log over a framework's state store, which can only get, set and delete single keys.

Each append, and each unit of work, is one value under `{namespace}:commit:<n>`, so it is there whole or not at all. What
was removed is under `{namespace}:removed`. Everything else is kept in this process and rebuilt from the commits on open.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lexigram.events.exceptions import EventPersistenceError, EventStoreConnectionError, EventStoreError
from lexigram.events.stores._primitives import Appended, StreamBounds
from lexigram.events.stores._wakeup import Wakeup
from lexigram.events.stores.condition import selectors
from lexigram.events.stores.redis.log import LogPage, Row, check_namespace
from lexigram.events.stores.redis.operations import AppendOperation, version_conflict

if TYPE_CHECKING:
    from lexigram.contracts.infra.state import StateStoreProtocol
    from lexigram.events.messages.codec import EncodedEvent
    from lexigram.events.stores.condition import ResolvedQuery

_AT_ONCE: Final = 64


class _Event(NamedTuple):
    row: tuple[Any, ...]
    event_id: bytes
    tags: tuple[str, ...]
    commit: int


class _Stream:
    __slots__ = ("positions", "removed", "version")

    def __init__(self) -> None:
        self.version = 0
        self.removed = 0
        self.positions: list[int] = []


class StateLog:
    """What a state store can honestly promise: one writing process.

    Within it every promise of an event store holds. Two processes that write at the same time can overwrite each other's
    commits, because a state store has no atomic "set if absent"; one that only reads sees what the writer commits, by
    polling. Whether an acknowledged append survives a crash is up to the state store. All events are kept in memory, and
    a query costs as much as the log is long.

    Args:
        store: Values are JSON: objects, lists, text and numbers.
        namespace: Put in front of every key.
    """

    def __init__(self, store: StateStoreProtocol, namespace: str) -> None:
        self.namespace = check_namespace(namespace)
        self.wakeup = Wakeup()
        self.is_durable: bool | None = None
        self._store = store
        self._turn = asyncio.Lock()
        self._users = 0
        self._forget()

    def _forget(self) -> None:
        self._commits = 0
        self._head = 0
        self._events: dict[int, _Event] = {}
        self._positions: list[int] = []
        self._streams: dict[str, _Stream] = {}
        self._ids: dict[bytes, int] = {}
        self._removed: dict[str, int] = {}

    async def open(self) -> None:
        """Read all commits; each `open` needs its `close`."""
        self._users += 1
        if self._users > 1:
            return
        try:
            self._forget()
            self._removed = dict(await self._get("removed") or {})
            await self._refresh()
        except BaseException:
            self._users -= 1
            raise

    async def close(self) -> None:
        """Forget what was read. The state store belongs to the application."""
        self._users -= 1
        if self._users == 0:
            self._forget()

    async def append(self, operation: AppendOperation) -> Appended:
        """Store the events of one append, or find that they are stored."""
        return Appended(*(await self._commit((operation,)))[0])

    async def settle(self, operations: Sequence[Any]) -> list[Any]:
        """Store all appends of a unit of work or none."""
        return await self._commit(operations)

    async def foresee(self, operation: Any) -> tuple[int, int]:
        """Check one append without executing it; return its version and position if it is stored, else (base, 0)."""
        if not isinstance(operation, AppendOperation):
            raise EventStoreError("a state store keeps events only")
        await self._refresh()
        return self._check(operation) or (self._version(operation.stream_id), 0)

    async def _commit(self, operations: Sequence[AppendOperation]) -> list[tuple[int, int]]:
        async with self._turn:
            await self._catch_up()
            known = [self._check(operation) for operation in operations]
            fresh = [operation for operation, found in zip(operations, known, strict=True) if found is None]
            if fresh:
                record = [[operation.stream_id, [_kept(event) for event in operation.events]] for operation in fresh]
                await self._set(f"commit:{self._commits + 1}", record)
                places = iter(self._take(record))
                self.wakeup.notify()
            return [next(places) if found is None else found for found in known]

    def _check(self, operation: AppendOperation) -> tuple[int, int] | None:
        """Return where an append is stored already, None if it may be stored, or raise why not."""
        found = [self._ids.get(event.event_id, 0) for event in operation.events]
        if any(found):
            rows = [self._events[position].row for position in found if position]
            first = rows[0]
            wanted = [(operation.stream_id, first[3] + n, first[4] + n) for n in range(len(found))]
            if [(row[5], row[3], row[4]) for row in rows] != wanted:
                raise operation.failure("stored", None)
            return rows[-1][3], rows[-1][4]
        version, expected = self._version(operation.stream_id), operation.expected_version
        if expected is not None and expected != version:
            raise version_conflict(operation.stream_id, expected, version)
        condition = operation.condition
        if condition is not None and self._selected(condition.after, None, 1, condition.query):
            raise operation.failure("condition", version)
        return None

    def _take(self, record: list[Any]) -> list[tuple[int, int]]:
        """Add a commit to what is known; return version and position of the last event of each append."""
        self._commits += 1
        places = []
        for stream_id, events in record:
            stream = self._streams.setdefault(stream_id, _Stream())
            for kept in events:
                self._head += 1
                stream.version += 1
                if kept is None or stream.version <= self._removed.get(stream_id, 0):
                    stream.removed = stream.version
                    continue
                event_id, type_name, event_type, time, tags, text, encoded = kept
                data = b64decode(text) if encoded else text.encode()
                row = (type_name, event_type, data, stream.version, self._head, stream_id, str(time))
                self._events[self._head] = _Event(row, bytes.fromhex(event_id), tuple(tags), self._commits)
                self._ids[bytes.fromhex(event_id)] = self._head
                self._positions.append(self._head)
                stream.positions.append(self._head)
            places.append((stream.version, self._head))
        return places

    async def compact(self, stream_id: str, up_to_version: int) -> int:
        """Remove a stream's first events; return how many."""
        async with self._turn:
            await self._catch_up()
            stream = self._streams.get(stream_id)
            up_to = min(up_to_version, stream.version if stream else 0)
            if stream is None or up_to <= stream.removed:
                return 0
            await self._set("removed", {**self._removed, stream_id: up_to})
            self._removed[stream_id] = up_to
            gone, stream.positions = (
                stream.positions[: up_to - stream.removed],
                stream.positions[up_to - stream.removed :],
            )
            stream.removed = up_to
            commits = {self._events[position].commit for position in gone}
            for position in gone:
                del self._ids[self._events.pop(position).event_id]
            self._positions = sorted(self._events)
            for commit in commits:
                await self._strip(commit)
            return len(gone)

    async def _strip(self, commit: int) -> None:
        """Take the removed events out of a commit; their places stay."""
        record = await self._get(f"commit:{commit}")
        held = {event.event_id.hex() for event in self._events.values() if event.commit == commit}
        stripped = [
            [stream, [kept if kept and kept[0] in held else None for kept in events]] for stream, events in record
        ]
        await self._set(f"commit:{commit}", stripped)

    async def read(self, stream_id: str, from_version: int, to_version: int | None, limit: int | None) -> list[Row]:
        """Return rows (type name, event type, payload, version, position) of a stream."""
        await self._refresh()
        stream = self._streams.get(stream_id)
        if stream is None:
            return []
        last = stream.version if to_version is None else to_version
        positions = stream.positions[max(from_version - stream.removed - 1, 0) : max(last - stream.removed, 0)]
        rows: Any = [self._events[position].row[:5] for position in positions[:limit]]
        return rows  # type: ignore[no-any-return]

    async def page(
        self, after: int, up_to: int | None, limit: int, query: ResolvedQuery | None, *, rows: bool = True
    ) -> LogPage:
        """Return up to `limit` events after a position; rows also have stream id and time."""
        await self._refresh()
        found = self._selected(after, up_to, limit, query)
        more = found[-1].row[4] if len(found) == limit and found else None
        return LogPage(self._head, len(found), more, [event.row for event in found] if rows else [])

    async def count(self, after: int, up_to: int | None, query: ResolvedQuery | None) -> int:
        """Return how many events are selected."""
        await self._refresh()
        return len(self._selected(after, up_to, None, query))

    async def bounds(self, stream_id: str) -> StreamBounds:
        """Return the first version stored and the current version."""
        await self._refresh()
        stream = self._streams.get(stream_id) or _Stream()
        return StreamBounds(stream.removed + 1 if stream.positions else 0, stream.version)

    async def head(self) -> int:
        """Return the highest position assigned."""
        await self._refresh()
        return self._head

    async def removals(self) -> dict[str, int]:
        """Return the highest removed version by stream."""
        await self._refresh()
        return {stream_id: stream.removed for stream_id, stream in self._streams.items() if stream.removed}

    async def stream_ids(self) -> list[str]:
        """Return the ids of the streams that hold events."""
        await self._refresh()
        return sorted(stream_id for stream_id, stream in self._streams.items() if stream.positions)

    def _version(self, stream_id: str) -> int:
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.version

    def _selected(self, after: int, up_to: int | None, limit: int | None, query: ResolvedQuery | None) -> list[_Event]:
        found: list[_Event] = []
        for index in range(bisect_right(self._positions, after), len(self._positions)):
            event = self._events[self._positions[index]]
            if up_to is not None and event.row[4] > up_to:
                break
            if query is None or any(item.selects(selectors(*event.row[:2]), event.tags) for item in query):
                found.append(event)
                if len(found) == limit:
                    break
        return found

    async def _refresh(self) -> None:
        async with self._turn:
            await self._catch_up()

    async def _catch_up(self) -> None:
        """Read the commits that another process, or an append that was cancelled, has made."""
        size = 1
        while True:
            first = self._commits + 1
            records = await asyncio.gather(*(self._get(f"commit:{n}") for n in range(first, first + size)))
            for record in records:
                if record is None:
                    return
                self._take(record)
            size = _AT_ONCE

    async def _get(self, key: str) -> Any:
        try:
            return await self._store.get(f"{self.namespace}:{key}")
        except Exception as error:
            raise EventStoreConnectionError(f"the state store cannot be read: {error}") from error

    async def _set(self, key: str, value: Any) -> None:
        try:
            await self._store.set(f"{self.namespace}:{key}", value)
        except Exception as error:
            message = f"the state store failed; whether it was stored is unknown, the same events can be appended again: {error}"
            raise EventPersistenceError(message) from error


def _kept(event: EncodedEvent) -> list[Any]:
    """Return an event as JSON values; payloads that are not text as Base64."""
    try:
        text, encoded = event.payload.decode(), 0
    except UnicodeDecodeError:
        text, encoded = b64encode(event.payload).decode(), 1
    tags = list(event.tags or ())
    return [event.event_id.hex(), event.type_name, event.event_type, event.occurred_at_us, tags, text, encoded]
