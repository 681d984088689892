"""The shape of what is stored: one document per commit, and the filters that select events in it.

A commit `{_id, q, c, n, a, e}` is one insertion and so one atomic step on every topology:

- `_id` first position of the commit: the position after the last commit's `q`, so of all writers that know the same
  last commit exactly one can insert the next one. Positions are gap-free because nothing else hands them out.
- `q` last position; `c` token of the writer, by which it recognises its own commit; `n` events still held.
- `a` one `{s, v, l}` for each append: stream, first and last version. It stays when events are removed: versions and
  positions are never given twice.
- `e` the events: `i` id, `s` stream, `v` version, `p` position, `t` names by which its type is selected, `n` event type, `o` time of occurrence, `h`
  partition hash, `g` tags, `d` payload.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.stores.condition import selectors
from lexigram.events.stores.partition import partition_hash

if TYPE_CHECKING:
    from lexigram.events.messages.codec import EncodedEvent
    from lexigram.events.stores._primitives import ReadRequest
    from lexigram.events.stores.condition import ResolvedItem, ResolvedQuery

Document = dict[str, Any]
Index = tuple[list[tuple[str, int]], dict[str, Any]]

MAX_COMMIT_BYTES: Final = 15 * 1024 * 1024
"""The server refuses documents above 16 MiB; this leaves room for what `event_bytes` does not count exactly."""

_EVENT_OVERHEAD: Final = 260
"""Bytes of an event beside its texts: field names, numbers and type marks of twelve fields, with room to spare."""

HELD: Final[Document] = {"n": {"$gt": 0}}
"""Commits that still hold events."""

INDEXES: Final[tuple[Index, ...]] = (
    ([("q", 1)], {"name": "by_last_position", "unique": True}),
    ([("a.s", 1), ("_id", -1)], {"name": "by_stream"}),
    ([("a.s", 1), ("a.l", 1)], {"name": "by_stream_version", "unique": True}),
    # Partial, because emptied commits would all have the same absent id.
    ([("e.i", 1)], {"name": "by_event_id", "unique": True, "partialFilterExpression": HELD}),
    ([("e.t", 1), ("q", 1)], {"name": "by_type"}),
    ([("e.g", 1), ("q", 1)], {"name": "by_tag"}),
)


def event_bytes(stream_id: str, event: EncodedEvent) -> int:
    """Return about how many bytes an event needs in its commit; never fewer than it really does."""
    texts = len(event.type_name) + len(event.event_type) + len(stream_id)
    tags = sum(4 * len(tag) + 16 for tag in event.tags)
    return _EVENT_OVERHEAD + len(event.payload) + 4 * texts + tags


def event_document(stream_id: str, event: EncodedEvent, version: int, position: int, text: bool) -> Document:
    """Return an event as it is stored; JSON payloads as text, readable and exact."""
    return {
        "i": event.event_id,
        "s": stream_id,
        "v": version,
        "p": position,
        "t": selectors(event.type_name, event.event_type),
        "n": event.event_type,
        "o": event.occurred_at_us,
        "h": partition_hash(stream_id),
        "g": list(event.tags),
        "d": event.payload.decode() if text else event.payload,
    }


def row(event: Mapping[str, Any]) -> tuple[str, str, bytes, int, int]:
    """Return a stored event as the codec takes it."""
    payload = event["d"]
    data = payload.encode() if isinstance(payload, str) else payload
    return event["t"][0], event["n"], data, event["v"], event["p"]


def only(condition: Document) -> Document:
    """Return the projection to those events of a commit for which an expression over `$$x` holds."""
    return {"e": {"$filter": {"input": "$e", "as": "x", "cond": condition}}}


def literal(value: Any) -> Document:
    """Return a value for use in an expression: texts that begin with a dollar sign are no fields."""
    return {"$literal": value}


def in_stream(stream_id: str, first: int, last: int) -> tuple[Document, Document]:
    """Return (filter of commits, expression over events) for versions `first` to `last` of a stream."""
    commits = {"a": {"$elemMatch": {"s": stream_id, "l": {"$gte": first}, "v": {"$lte": last}}}, **HELD}
    events = [{"$eq": ["$$x.s", literal(stream_id)]}, {"$gte": ["$$x.v", first]}, {"$lte": ["$$x.v", last]}]
    return commits, {"$and": events}


def selected(request: ReadRequest, after: int) -> tuple[Document, Document] | None:
    """Return (filter of commits, expression over events) of a request; None if it can select nothing."""
    if request.query is not None and not request.query:
        return None
    commits: Document = {"q": {"$gt": after}, **HELD}
    common: Document = {"p": {"$gt": after}}
    events: list[Document] = [{"$gt": ["$$x.p", after]}]
    if request.up_to is not None:
        commits["_id"] = {"$lte": request.up_to}
        common["p"]["$lte"] = request.up_to
        events.append({"$lte": ["$$x.p", request.up_to]})
    if request.since_us is not None:
        common["o"] = {"$gt": request.since_us}
        events.append({"$gt": ["$$x.o", request.since_us]})
    if request.partition is not None:
        index, total = request.partition
        common["h"] = {"$mod": [total, index]}
        events.append({"$eq": [{"$mod": ["$$x.h", total]}, index]})
    if request.query is not None:
        commits["$or"] = matching_commits(request.query, common)
        events.append({"$or": [_item_expression(item) for item in request.query]})
    elif len(common) > 1:
        commits["e"] = {"$elemMatch": common}
    return commits, {"$and": events}


def matching_commits(query: ResolvedQuery, common: Document) -> list[Document]:
    """Return alternatives that select commits with an event of the query for which `common` holds too."""
    return [{"e": {"$elemMatch": {**_item_filter(item), **common}}} for item in query]


def _item_filter(item: ResolvedItem) -> Document:
    found: Document = {}
    if item.types is not None:
        found["t"] = {"$in": sorted(item.types)}
    if item.tags:
        found["g"] = {"$all": sorted(item.tags)}
    return found


def _item_expression(item: ResolvedItem) -> Document:
    parts: list[Document] = []
    if item.types is not None:
        parts.append({"$gt": [{"$size": {"$setIntersection": ["$$x.t", literal(sorted(item.types))]}}, 0]})
    if item.tags:
        parts.append({"$setIsSubset": [literal(sorted(item.tags)), "$$x.g"]})
    return {"$and": parts} if parts else literal(True)


def by_ids(ids: Sequence[bytes]) -> tuple[Document, Document]:
    """Return (filter of commits, projection) for events by their ids."""
    return {"e.i": {"$in": list(ids)}, **HELD}, only({"$in": ["$$x.i", literal(list(ids))]})


def without(stream_id: str, up_to_version: int) -> tuple[Document, list[Document]]:
    """Return (filter of commits, update) that removes a stream's events up to a version, each commit atomically."""
    commits = {"a": {"$elemMatch": {"s": stream_id, "v": {"$lte": up_to_version}}}, **HELD}
    gone = [{"$eq": ["$$x.s", literal(stream_id)]}, {"$lte": ["$$x.v", up_to_version]}]
    kept = only({"$not": [{"$and": gone}]})
    return commits, [{"$set": kept}, {"$set": {"n": {"$size": "$e"}}}]


def events_of(commits: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the events of commits, in order."""
    return [event for commit in commits for event in commit["e"]]
