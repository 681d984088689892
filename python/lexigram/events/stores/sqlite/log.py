"""The writing side of the event log: numbers events, checks conditions, inserts many appends with few statements.

Runs in the writer thread, inside a transaction that holds the write lock. What it has looked up stays valid until
`reset`, because every other writer of the file is noticed when the lock is taken.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.stores._primitives import Appended, already_stored
from lexigram.events.stores._tags import tags_of
from lexigram.events.stores._wakeup import Wakeup
from lexigram.events.stores.condition import selectors
from lexigram.events.stores.partition import partition_hash
from lexigram.events.stores.sqlite.statements import STREAMS_AT_ONCE, EventStatements

if TYPE_CHECKING:
    from lexigram.events.messages.codec import EncodedEvent, EventCodec
    from lexigram.events.stores.condition import ResolvedCondition

MAX_CACHED_STREAMS: Final = 65_536


class AppendRequest(NamedTuple):
    """One append, encoded. `codec` says how payloads are stored."""

    stream_id: str
    events: Sequence[EncodedEvent]
    expected_version: int | None
    condition: ResolvedCondition | None


class _New(NamedTuple):
    """Rows that wait for one insertion each table; the values of streams and events follow each other."""

    streams: list[Any]
    events: list[Any]
    tags: list[tuple[str, int]]


class EventLog:
    """Folds appends; one for each set of tables of an engine, so that all stores on them share its knowledge."""

    def __init__(self, statements: EventStatements) -> None:
        self.wakeup = Wakeup()
        self.statements = statements
        self._streams: dict[str, tuple[int, int]] = {}
        self._types: dict[tuple[str, str], int] = {}
        self._keys: dict[str, list[int]] = {}
        self._types_known = False
        self._folded = 0
        self._head: int | None = None
        self._last_stream: int | None = None

    def reset(self) -> None:
        """Forget everything looked up."""
        self._streams.clear()
        self._types.clear()
        self._keys.clear()
        self._types_known = False
        self._head = self._last_stream = None

    def committed(self) -> None:
        """Wake readers."""
        self.wakeup.notify()
        if self.wakeup.observe_batch is not None:
            self.wakeup.observe_batch(self._folded)

    def fold(self, connection: sqlite3.Connection, requests: Sequence[AppendRequest]) -> list[Any]:
        """Store the appends in order; a conflict is that append's outcome and costs its neighbours nothing.

        An event id that is stored already makes the insertion raise: see `fold_one`.
        """
        new, outcomes = _New([], [], []), []
        self._folded = len(requests)
        self._prepare(connection)
        streams = self._look_up(connection, requests)
        for request in requests:
            key, version = streams[request.stream_id]
            expected = request.expected_version
            if request.condition is not None or (expected is not None and expected != version):
                self._insert(connection, new)
                conflict = self._conflict(connection, request, version)
                if conflict is not None:
                    outcomes.append(self._stored_before(connection, request) or conflict)
                    continue
            outcomes.append(self._number(connection, request, key, version, new))
        self._insert(connection, new)
        return outcomes

    def fold_units(
        self, connection: sqlite3.Connection, units: Sequence[Sequence[AppendRequest]]
    ) -> list[list[Appended] | ConcurrencyError]:
        """Store the appends of units, which have no conditions, in order; a unit with a conflict is left out whole.

        An append that is stored already makes it raise, like an event id that is.
        """
        new, outcomes = _New([], [], []), list[list[Appended] | ConcurrencyError]()
        self._prepare(connection)
        streams = self._look_up(connection, [request for unit in units for request in unit])
        for unit in units:
            conflict = self._unit_conflict(connection, unit, streams)
            outcomes.append(
                conflict or [self._number(connection, request, *streams[request.stream_id], new) for request in unit]
            )
        self._insert(connection, new)
        return outcomes

    def _unit_conflict(
        self, connection: sqlite3.Connection, unit: Sequence[AppendRequest], streams: Mapping[str, tuple[int, int]]
    ) -> ConcurrencyError | None:
        """Return the first conflict of versions in a unit, whose appends may build on each other."""
        ahead: dict[str, int] = {}
        for request in unit:
            stream_id = request.stream_id
            version = ahead.get(stream_id, streams[stream_id][1])
            conflict = self._conflict(connection, request, version)
            if conflict is not None:
                if self._stored_before(connection, request):
                    raise already_stored(stream_id)
                return conflict
            ahead[stream_id] = version + len(request.events)
        return None

    def fold_one(self, connection: sqlite3.Connection, request: AppendRequest) -> Any:
        """Store one append, or find that it has been stored before (a retry after an unknown outcome)."""
        outcome = self._stored_before(connection, request)
        if outcome is None:
            (outcome,) = self.fold(connection, (request,))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def compact(self, connection: sqlite3.Connection, stream_id: str, up_to_version: int, codec: EventCodec) -> int:
        """Remove a stream's events up to a version; return how many. Versions and positions are never given again."""
        s = self.statements
        # Through a provider nothing else tells us what others have written.
        self.reset()
        self._prepare(connection)
        row = connection.execute(s.stream, (stream_id,)).fetchone()
        if row is None:
            return 0
        key, removed, version, _ = row
        up_to = min(up_to_version, version)
        if up_to <= removed:
            return 0
        connection.execute(s.mark_head, (self._head,))
        connection.execute(s.mark_removed, (up_to, key))
        tagged = connection.execute(s.removable, (key, up_to)).fetchall()
        connection.executemany(s.delete_tag, tags_of(codec, tagged))
        return connection.execute(s.delete_events, (key, up_to)).rowcount

    def type_keys(self, connection: sqlite3.Connection) -> dict[str, list[int]]:
        """Return the keys of all event types by stored name and by an event type of their own."""
        keys: dict[str, list[int]] = {}
        for key, type_name, event_type in connection.execute(self.statements.types):
            _add_type(keys, key, type_name, event_type)
        return keys

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self._head is None:
            self._head = connection.execute(self.statements.head).fetchone()[0]
            self._last_stream = connection.execute(self.statements.last_stream_key).fetchone()[0]
        if not self._types_known:
            for key, type_name, event_type in connection.execute(self.statements.types).fetchall():
                self._types[type_name, event_type] = key
                _add_type(self._keys, key, type_name, event_type)
            self._types_known = True
        if len(self._streams) > MAX_CACHED_STREAMS:
            self._streams.clear()

    def _look_up(self, connection: sqlite3.Connection, requests: Sequence[AppendRequest]) -> dict[str, tuple[int, int]]:
        """Return key and version by stream id, complete for the streams of `requests`; key 0 for a new one."""
        known = self._streams
        missing = [request.stream_id for request in requests if request.stream_id not in known]
        if len(missing) == 1:
            self._stream(connection, missing[0])
        elif missing:
            for start in range(0, len(missing), STREAMS_AT_ONCE):
                ids = missing[start : start + STREAMS_AT_ONCE]
                known.update(dict.fromkeys(ids, (0, 0)))
                padded = (*ids, *[None] * (STREAMS_AT_ONCE - len(ids)))
                for key, _, version, stream_id in connection.execute(self.statements.streams, padded):
                    known[stream_id] = (key, version)
        return known

    def _stream(self, connection: sqlite3.Connection, stream_id: str) -> tuple[int, int]:
        """Return key and version of a stream; key 0 for a new one."""
        known = self._streams.get(stream_id)
        if known is None:
            row = connection.execute(self.statements.stream, (stream_id,)).fetchone()
            known = self._streams[stream_id] = (0, 0) if row is None else (row[0], row[2])
        return known

    def _number(
        self, connection: sqlite3.Connection, request: AppendRequest, key: int, version: int, new: _New
    ) -> Appended:
        """Give the events their versions and positions and queue them for insertion."""
        stream_id, position, types = request.stream_id, self._head, self._types
        assert position is not None
        if not key:
            assert self._last_stream is not None
            key = self._last_stream = self._last_stream + 1
            new.streams.extend((key, stream_id, partition_hash(stream_id)))
        for event_id, type_name, event_type, occurred_at_us, tags, payload in request.events:
            version += 1
            position += 1
            type_key = types.get((type_name, event_type))
            if type_key is None:
                type_key = self._new_type(connection, type_name, event_type)
            new.events.extend((position, key, version, type_key, event_id, occurred_at_us, payload))
            for tag in tags:
                new.tags.append((tag, position))
        self._head = position
        self._streams[stream_id] = (key, version)
        return Appended(version, position)

    def _new_type(self, connection: sqlite3.Connection, type_name: str, event_type: str) -> int:
        key = len(self._types) + 1
        connection.execute(self.statements.insert_type, (key, type_name, event_type))
        self._types[type_name, event_type] = key
        _add_type(self._keys, key, type_name, event_type)
        return key

    def _insert(self, connection: sqlite3.Connection, new: _New) -> None:
        """Write what is queued."""
        if new.streams:
            self.statements.insert_streams.run(connection, new.streams)
            new.streams.clear()
        if new.events:
            self.statements.insert_events.run(connection, new.events)
            new.events.clear()
        if new.tags:
            # In key order each page of the tag table is visited once.
            new.tags.sort()
            self.statements.insert_tags.run(connection, [value for row in new.tags for value in row])
            new.tags.clear()

    def _conflict(
        self, connection: sqlite3.Connection, request: AppendRequest, version: int
    ) -> ConcurrencyError | None:
        expected = request.expected_version
        if expected is not None and expected != version:
            return ConcurrencyError(
                f"stream {request.stream_id!r} is at version {version}, not {expected}; nothing was written",
                expected_version=expected,
                actual_version=version,
            )
        condition = request.condition
        if condition is None:
            return None
        statement = self.statements.conflicts(condition.query, self._keys, condition.after)
        found = None if statement is None else connection.execute(*statement).fetchone()
        if found is None:
            return None
        return ConcurrencyError(
            f"an event that the append condition watches was stored at position {found[0]}, after position "
            f"{condition.after}; nothing was written to {request.stream_id!r}",
            expected_version=expected,
            actual_version=version,
        )

    def _stored_before(self, connection: sqlite3.Connection, request: AppendRequest) -> Any:
        """Return where this very append is stored, the error if only parts of it are, or None if nothing is."""
        by_id = self.statements.by_id
        found = [connection.execute(by_id, (event.event_id,)).fetchone() for event in request.events]
        if not any(found):
            return None
        key, _ = self._stream(connection, request.stream_id)
        first = found[0]
        if first is not None and first[0] == key:
            expected = [(key, first[1] + offset, first[2] + offset) for offset in range(len(found))]
            if found == expected:
                return Appended(expected[-1][1], expected[-1][2])
        return already_stored(request.stream_id)


def _add_type(keys: dict[str, list[int]], key: int, type_name: str, event_type: str) -> None:
    for name in selectors(type_name, event_type):
        keys.setdefault(name, []).append(key)
