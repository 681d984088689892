"""The SQL of events: every statement of the event store, made once for its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores._primitives import ReadRequest
from lexigram.events.stores.condition import MAX_JOINED_TAGS, ResolvedItem, ResolvedQuery
from lexigram.events.stores.sqlite.bulk import BulkInsert
from lexigram.events.stores.sqlite.names import TableNames

MAX_ARMS: Final = 400
"""SQLite joins at most 500 selects."""

MAX_TYPE_ARMS: Final = 40
"""With more types than this a scan of the log with a filter is as good as merging so many indexes."""

STREAMS_AT_ONCE: Final = 50
"""How many streams one statement looks up."""

_EVERYTHING: Final = ResolvedItem(None, frozenset())

TypeKeys = Mapping[str, Sequence[int]]
"""Keys of the type table by stored type name."""

Sql = tuple[str, list[Any]]


class EventStatements:
    """Statements over the tables of `names`.

    They name their indexes: statistics (`ANALYZE`) of a file that was small then must not lead to scans of a large log.

    Args:
        text: Payloads are JSON: store them as text, so that SQL functions and people can read them.
    """

    def __init__(self, names: TableNames, text: bool) -> None:
        n = names
        payload = "CAST(? AS TEXT)" if text else "?"
        self.names = names
        self.insert_events = BulkInsert(
            f"INSERT INTO {n.events} (position, stream, version, type, event_id, occurred_at, payload)",
            f"(?, ?, ?, ?, ?, ?, {payload})",
        )
        self.insert_tags = BulkInsert(f"INSERT OR IGNORE INTO {n.tags} (tag, position)", "(?, ?)")
        self.insert_streams = BulkInsert(f"INSERT INTO {n.streams} (key, stream_id, partition_hash)", "(?, ?, ?)")
        self.insert_type = f"INSERT INTO {n.types} (key, type_name, event_type) VALUES (?, ?, ?)"
        self.types = f"SELECT key, type_name, event_type FROM {n.types}"
        self.head = (
            f"SELECT max(coalesce((SELECT max(position) FROM {n.events}), 0), value) "
            f"FROM {n.meta} WHERE key = 'removed_position'"
        )
        self.last_stream_key = f"SELECT coalesce(max(key), 0) FROM {n.streams}"
        # One row per stream that ever existed: its key, the highest version removed, the current version.
        stream = (
            "SELECT s.key, s.removed_version, max(s.removed_version, coalesce((SELECT e.version "
            f"FROM {n.events} e WHERE e.stream = s.key ORDER BY e.version DESC LIMIT 1), 0)), s.stream_id "
            f"FROM {n.streams} s INDEXED BY {n.index('event_streams_by_id')} WHERE s.stream_id"
        )
        self.stream = f"{stream} = ?"
        self.streams = f"{stream} IN ({_marks(range(STREAMS_AT_ONCE))})"
        self.by_id = f"SELECT stream, version, position FROM {n.events} WHERE event_id = ?"
        self.removals = f"SELECT stream_id, removed_version FROM {n.streams} WHERE removed_version > 0"
        self.stream_ids = (
            f"SELECT s.stream_id FROM {n.streams} s "
            f"WHERE EXISTS (SELECT 1 FROM {n.events} e WHERE e.stream = s.key) ORDER BY s.stream_id"
        )
        columns = "t.type_name, t.event_type, CAST(e.payload AS BLOB), e.version, e.position"
        typed = f"{n.events} e JOIN {n.types} t ON t.key = e.type"
        self._by_type = f"{n.events} e INDEXED BY {n.index('events_by_type')}"
        by_stream = f"{n.events} e INDEXED BY {n.index('events_by_stream')} JOIN {n.types} t ON t.key = e.type"
        self.read = (
            f"SELECT {columns} FROM {by_stream} WHERE e.stream = (SELECT key FROM {n.streams} WHERE stream_id = ?) "
            "AND e.version >= ? AND e.version <= ? ORDER BY e.version LIMIT ?"
        )
        self._columns, self._typed = columns, typed
        self.mark_removed = f"UPDATE {n.streams} SET removed_version = ? WHERE key = ?"
        self.mark_head = f"UPDATE {n.meta} SET value = ? WHERE key = 'removed_position'"
        self.removable = (
            f"SELECT {columns} FROM {typed} WHERE e.stream = ? AND e.version <= ? AND EXISTS (SELECT 1 FROM {n.tags})"
        )
        self.delete_tag = f"DELETE FROM {n.tags} WHERE tag = ? AND position = ?"
        self.delete_events = f"DELETE FROM {n.events} WHERE stream = ? AND version <= ?"

    def page(self, request: ReadRequest, keys: TypeKeys) -> Sql | None:
        """Return the statement for one page, or None if nothing can match."""
        selected = self._positions(request, keys)
        if selected is None:
            return None
        positions, params = selected
        limit = -1 if request.limit is None else request.limit
        columns, tables = self._columns, self._typed
        if request.with_stream_ids:
            columns += ", s.stream_id"
            tables += f" JOIN {self.names.streams} s ON s.key = e.stream"
        source = f"({positions} ORDER BY 1 LIMIT ?) p CROSS JOIN {tables}"
        return f"SELECT {columns} FROM {source} WHERE e.position = p.position ORDER BY p.position", [*params, limit]

    def count(self, request: ReadRequest, keys: TypeKeys) -> Sql | None:
        """Return the statement that counts what the request selects, or None if nothing can match."""
        selected = self._positions(request, keys)
        return None if selected is None else (f"SELECT count(*) FROM ({selected[0]})", selected[1])

    def conflicts(self, query: ResolvedQuery, keys: TypeKeys, after: int) -> Sql | None:
        """Return the statement that finds an event after a position which the query selects, or None if none can."""
        selected = self._positions(ReadRequest(after, query=query), keys, distinct=False)
        return None if selected is None else (f"{selected[0]} LIMIT 1", selected[1])

    def _positions(self, request: ReadRequest, keys: TypeKeys, distinct: bool = True) -> Sql | None:
        """Return a select of the matching positions.

        Each arm delivers them in order from one index, so SQLite merges the arms only as far as a page needs.
        """
        items = [_EVERYTHING] if request.query is None else list(request.query)
        if any(item.types is None and not item.tags for item in items):
            items = [_EVERYTHING]
        arms = [arm for item in items for arm in self._arms(item, request, keys)]
        if not arms:
            return None
        if len(arms) > MAX_ARMS:
            raise EventValidationError(f"the query has more than {MAX_ARMS} alternatives; split it", field="query")
        union = " UNION " if distinct else " UNION ALL "
        return union.join(sql for sql, _ in arms), [value for _, params in arms for value in params]

    def _arms(self, item: ResolvedItem, request: ReadRequest, keys: TypeKeys) -> list[Sql]:
        types = None if item.types is None else sorted({key for name in item.types for key in keys.get(name, ())})
        events = f"{self.names.events} e"
        if item.tags:
            return self._tag_arm(sorted(item.tags), types, request) if types is None or types else []
        if types is None:
            return [self._arm(events, "e", [], [], request)]
        if len(types) > MAX_TYPE_ARMS:
            # The plus keeps SQLite from the type index, whose order would have to be sorted.
            return [self._arm(events, "e", [f"+e.type IN ({_marks(types)})"], types, request)]
        return [self._arm(self._by_type, "e", ["e.type = ?"], [key], request) for key in types]

    def _tag_arm(self, tags: list[str], types: list[int] | None, request: ReadRequest) -> list[Sql]:
        # CROSS JOIN keeps this order of loops: the first tag in order of position, the rest looked up.
        tables, where, params = [], [], []
        for index, tag in enumerate(tags if len(tags) <= MAX_JOINED_TAGS else tags[:1]):
            tables.append(f"{self.names.tags} g{index}")
            where.append(f"g{index}.tag = ?" + (f" AND g{index}.position = g0.position" if index else ""))
            params.append(tag)
        if len(tags) > MAX_JOINED_TAGS:  # one index lookup for each, too, and no limit on their number
            have = (
                f"SELECT count(*) FROM {self.names.tags} o WHERE o.position = g0.position AND o.tag IN ({_marks(tags)})"
            )
            where.append(f"({have}) = {len(tags)}")
            params += tags
        # Joined even without a condition on it: the tags of removed events may be left over.
        tables.append(f"{self.names.events} e")
        where.append("e.position = g0.position")
        if types is not None:
            where.append(f"e.type IN ({_marks(types)})")
        return [self._arm(" CROSS JOIN ".join(tables), "g0", where, [*params, *(types or ())], request)]

    def _arm(self, tables: str, first: str, where: list[str], params: Sequence[Any], request: ReadRequest) -> Sql:
        """Return one select of positions; `first` is the alias whose order is used."""
        where, values = [*where, f"{first}.position > ?"], [*params, request.after]
        if request.up_to is not None:
            where.append(f"{first}.position <= ?")
            values.append(request.up_to)
        if request.partition is not None:
            index, total = request.partition
            tables += f" CROSS JOIN {self.names.streams} s"
            where.append("s.key = e.stream AND s.partition_hash % ? = ?")
            values += [total, index]
        if request.since_us is not None:
            where.append("e.occurred_at > ?")
            values.append(request.since_us)
        return f"SELECT {first}.position FROM {tables} WHERE {' AND '.join(where)}", values


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
