"""The SQL that reads events, made once for the tables of one log.

Positions are selected in order from one index for each alternative, then each row of the page is looked up. Look-ups are
lateral with a limit, which leaves the planner no other way: a join would let it sort or merge the whole rest of the log
for each page.
"""

from __future__ import annotations

from typing import Any, Final

from lexigram.events.stores._primitives import ReadRequest
from lexigram.events.stores.condition import MAX_JOINED_TAGS, ResolvedItem
from lexigram.events.stores.postgres.names import TableNames

_EVERYTHING: Final = ResolvedItem(None, frozenset())

Sql = tuple[str, list[Any]]


def selected_types(names: TableNames, selection: str) -> str:
    """Return a select of the keys of the types that an array of names selects, as `condition.selectors` has it."""
    own = "t.event_type NOT IN (t.type_name, substring(t.type_name FROM '[^.]*$'))"
    return (
        f"SELECT t.key FROM {names.types} t "
        f"WHERE t.type_name = ANY ({selection}) OR (t.event_type = ANY ({selection}) AND {own})"
    )


class EventStatements:
    """Statements over the tables of `names`.

    Args:
        payload: Type of the payload column.
    """

    def __init__(self, names: TableNames, payload: str) -> None:
        n = names
        self.names = names
        self._events, self._streams, self._tags, self._head = n.events, n.streams, n.tags, n.head
        # The key of the type, not its names: they would be joined and sent with every row.
        self._columns = f"e.type, e.payload{'' if payload == 'bytea' else '::text'}, e.version, e.position"
        self.types = f"SELECT key, type_name, event_type FROM {n.types}"
        self.head = f"SELECT position FROM {n.head}"
        # One row for a stream that ever existed: the highest version removed, the current version.
        self.bounds = (
            "SELECT s.removed_version, greatest(s.removed_version, (SELECT e.version "
            f"FROM {n.events} e WHERE e.stream = s.key ORDER BY e.version DESC LIMIT 1), 0) "
            f"FROM {n.streams} s WHERE s.stream_id = $1"
        )
        self.removals = f"SELECT stream_id, removed_version FROM {n.streams} WHERE removed_version > 0"
        self.stream_ids = (
            f"SELECT s.stream_id FROM {n.streams} s "
            f"WHERE EXISTS (SELECT FROM {n.events} e WHERE e.stream = s.key) ORDER BY s.stream_id"
        )
        self.read = (
            f"SELECT {self._columns} FROM {n.events} e "
            f"WHERE e.stream = (SELECT key FROM {n.streams} WHERE stream_id = $1) "
            "AND e.version >= $2 AND e.version <= $3 ORDER BY e.version LIMIT $4"
        )
        self.lock_stream = f"SELECT key, removed_version FROM {n.streams} WHERE stream_id = $1 FOR UPDATE"
        self.last_version = f"SELECT max(version) FROM {n.events} WHERE stream = $1"
        self.mark_removed = f"UPDATE {n.streams} SET removed_version = $2 WHERE key = $1"
        self.removable = (
            f"SELECT {self._columns} FROM {n.events} e "
            f"WHERE e.stream = $1 AND e.version <= $2 AND EXISTS (SELECT FROM {n.tags})"
        )
        self.delete_tags = (
            f"DELETE FROM {n.tags} g USING unnest($1::text[], $2::bigint[]) u(tag, position) "
            "WHERE g.tag = u.tag AND g.position = u.position"
        )
        self.delete_events = f"DELETE FROM {n.events} WHERE stream = $1 AND version <= $2"

    def page(self, request: ReadRequest) -> Sql:
        """Return the statement for one page.

        Its rows are type key, payload, version, position, stream id (or NULL) and the head, all of one snapshot. One row is there in any case; its
        position is NULL if nothing was found.
        """
        before = request_params(request)
        stream = f"(SELECT s.stream_id FROM {self._streams} s WHERE s.key = e.stream)"
        columns = f"{self._columns}, {stream if request.with_stream_ids else 'NULL::text'}"
        items = [_EVERYTHING] if request.query is None else list(request.query)
        if len(items) == 1 and not items[0].tags and (items[0].types is None or len(items[0].types) == 1):
            # One index has these in order: no row needs to be looked up.
            rows, params = self._arm(items[0], request, len(before), columns)
        else:
            positions, params = self._positions(request, len(before))
            rows = f"SELECT {columns} FROM ({positions}) p {self._event_at('p')}"
        head = f"(SELECT position FROM {self._head} LIMIT 1)"  # one row, which the planner does not know
        return f"SELECT r.*, h.position FROM {head} h LEFT JOIN LATERAL ({rows}) r ON true", [*before, *params]

    def count(self, request: ReadRequest) -> Sql:
        """Return the statement that counts what the request selects."""
        positions, params = self._positions(request, len(request_params(request)))
        return f"SELECT count(*) FROM ({positions}) p", [*request_params(request), *params]

    def _positions(self, request: ReadRequest, taken: int) -> Sql:
        """Return a select of the matching positions in order, at most `limit`; parameters start after `taken`."""
        items = [_EVERYTHING] if request.query is None else list(request.query)
        if any(item.types is None and not item.tags for item in items):
            items = [_EVERYTHING]
        if not items:
            return "SELECT NULL::bigint AS position WHERE $1::bigint IS NULL AND $2::bigint IS NULL AND false", []
        arms: list[str] = []
        params: list[Any] = []
        for item in items:
            sql, values = self._arm(item, request, taken + len(params))
            arms.append(f"({sql})")
            params += values
        if len(arms) == 1:
            return arms[0][1:-1], params
        return f"SELECT position FROM ({' UNION '.join(arms)}) a ORDER BY position LIMIT $2", params

    def _arm(self, item: ResolvedItem, request: ReadRequest, taken: int, columns: str = "e.position") -> Sql:
        if item.tags:
            return self._tag_arm(item, request, taken)
        events = f"SELECT {columns} FROM {self._events} e{self._partitions(request)}"
        where = f"e.position > $1{self._filters(request)} ORDER BY e.position LIMIT $2"
        if item.types is None:
            return f"{events} WHERE {where}", []
        types = selected_types(self.names, f"${taken + 1}::text[]")
        one_type = f"{events} WHERE e.type = k.key AND {where}"
        return (
            f"SELECT f.* FROM ({types}) k CROSS JOIN LATERAL ({one_type}) f ORDER BY f.position LIMIT $2",
            [sorted(item.types)],
        )

    def _tag_arm(self, item: ResolvedItem, request: ReadRequest, taken: int) -> Sql:
        filters = self._filters(request)
        first, *others = sorted(item.tags)
        params: list[Any] = [first]
        tables = f"{self._tags} g"
        if filters or request.limit is not None:
            tables += f" {self._event_at('g')}{self._partitions(request)}"
        where = f"g.tag = ${taken + 1} AND g.position > $1{filters}"
        if len(others) > MAX_JOINED_TAGS:  # one index lookup for each, too, and planned at once
            params.append(others)
            have = f"SELECT count(*) FROM {self._tags} o WHERE o.tag = ANY (${taken + 2}::text[]) AND o.position = g.position"
            where += f" AND ({have}) = {len(others)}"
            others = []
        for tag in others:
            params.append(tag)
            where += f" AND EXISTS (SELECT FROM {self._tags} o WHERE o.tag = ${taken + len(params)} AND o.position = g.position)"
        if item.types is not None:
            params.append(sorted(item.types))
            where += f" AND g.type IN ({selected_types(self.names, f'${taken + len(params)}::text[]')})"
        return f"SELECT g.position FROM {tables} WHERE {where} ORDER BY g.position LIMIT $2", params

    def _event_at(self, place: str) -> str:
        """Return the joined look-up of the event `e` at the position of another table."""
        return f"CROSS JOIN LATERAL (SELECT * FROM {self._events} WHERE position = {place}.position LIMIT 1) e"

    def _partitions(self, request: ReadRequest) -> str:
        """Return the joined look-up of the stream `s` of `e`, if only those of one partition are wanted."""
        if request.partition is None:
            return ""
        return f" CROSS JOIN LATERAL (SELECT partition_hash FROM {self._streams} WHERE key = e.stream LIMIT 1) s"

    def _filters(self, request: ReadRequest) -> str:
        """Return further conditions on `e` and `s`; their parameters are those of `request_params`."""
        number, filters = 2, ""
        if request.up_to is not None:
            number += 1
            filters += f" AND e.position <= ${number}"
        if request.partition is not None:
            filters += f" AND s.partition_hash % ${number + 1}::bigint = ${number + 2}::bigint"
            number += 2
        if request.since_us is not None:
            number += 1
            filters += f" AND e.occurred_at > timestamptz 'epoch' + ${number}::bigint * interval '1 microsecond'"
        return filters


def request_params(request: ReadRequest) -> list[Any]:
    """Return the first parameters of each statement: position, limit, then what the filters need."""
    params: list[Any] = [request.after, request.limit]
    if request.up_to is not None:
        params.append(request.up_to)
    if request.partition is not None:
        index, total = request.partition
        params += [total, index]
    if request.since_us is not None:
        params.append(request.since_us)
    return params
