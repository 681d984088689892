"""Folds waiting appends into one commit: numbers them in order, each checked against those before it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import ConcurrencyError, EventPersistenceError
from lexigram.events.stores._primitives import Appended, already_stored
from lexigram.events.stores.mongodb.documents import Document, event_document

if TYPE_CHECKING:
    from lexigram.events.stores.mongodb.commits import Part, Request
    from lexigram.events.stores.mongodb.knowledge import Knowledge

Outcome = list[tuple["Part", Appended]] | Exception


@dataclass(slots=True)
class Fold:
    """A commit that is ready to be inserted, and what it answers once it is.

    Attributes:
        document: None if nothing is to be inserted.
        outcomes: Each request with where its parts are, or why not.
        conflicts: Parts whose expectation does not hold.
        parts: Parts that would be stored.
        postponed: Requests that have to wait for the next commit.
        versions: Stream versions after the commit.
    """

    head: int
    document: Document | None = None
    outcomes: list[tuple[Request, Outcome]] = field(default_factory=list)
    conflicts: list[Part] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    postponed: list[Request] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    events: list[Document] = field(default_factory=list)
    appends: list[Document] = field(default_factory=list)
    ids: set[bytes] = field(default_factory=set)


async def fold(knowledge: Knowledge, requests: Sequence[Request], text: bool) -> Fold:
    """Return the commit of as many of the requests as can be stored now."""
    waiting = [part for request in requests for part in request.parts if part.stored is None]
    await knowledge.prepare(waiting)
    assert knowledge.head is not None
    folded = Fold(knowledge.head)
    for request in requests:
        _add(folded, knowledge, request, text)
    if folded.events:
        folded.document = {
            "_id": folded.head + 1,
            "q": folded.head + len(folded.events),
            "c": secrets.token_bytes(12),
            "n": len(folded.events),
            "a": folded.appends,
            "e": folded.events,
        }
    return folded


def _add(folded: Fold, knowledge: Knowledge, request: Request, text: bool) -> None:
    """Add all parts of a request, or none of them and its error."""
    events, appends, parts = len(folded.events), len(folded.appends), len(folded.parts)
    versions, ids = dict[str, int](), set[bytes]()
    places: list[tuple[Part, Appended]] = []
    for part in request.parts:
        if part.stored is not None:
            places.append((part, part.stored))
            continue
        own = {event.event_id for event in part.events}
        failure: Exception | None = None
        if own & ids:
            failure = already_stored(part.stream_id)
        elif own & folded.ids:
            # Another append of this commit has these ids; whether it is the same one shows when that is stored.
            _undo(folded, events, appends, parts)
            folded.postponed.append(request)
            return
        else:
            known = versions.get(part.stream_id, folded.versions.get(part.stream_id))
            version = knowledge.versions[part.stream_id] if known is None else known
            failure = _refusal(folded, knowledge, part, version)
        if failure is not None:
            _undo(folded, events, appends, parts)
            if isinstance(failure, ConcurrencyError):
                folded.conflicts.append(part)
            folded.outcomes.append((request, failure))
            return
        places.append((part, _number(folded, part, version, text)))
        versions[part.stream_id] = version + len(part.events)
        ids |= own
    folded.versions.update(versions)
    folded.ids |= ids
    folded.outcomes.append((request, places))


def _undo(folded: Fold, events: int, appends: int, parts: int) -> None:
    del folded.events[events:], folded.appends[appends:], folded.parts[parts:]


def _refusal(
    folded: Fold, knowledge: Knowledge, part: Part, version: int
) -> ConcurrencyError | EventPersistenceError | None:
    """Return why a part cannot be stored at this place, or None."""
    if part in knowledge.overlapping:
        return already_stored(part.stream_id)
    if part.expected_version is not None and part.expected_version != version:
        return conflict(part.stream_id, part.expected_version, version)
    if part.condition is None:
        return None
    return condition_fails(part) if part in knowledge.violated or _has_match(folded, part) else None


def _has_match(folded: Fold, part: Part) -> bool:
    """Tell whether an event of this commit fails the condition of a later part."""
    condition: Any = part.condition
    return any(
        event["p"] > condition.after and any(item.selects(event["t"], event["g"]) for item in condition.query)
        for event in folded.events
    )


def _number(folded: Fold, part: Part, version: int, text: bool) -> Appended:
    """Add a part's events with their numbers; return the last ones."""
    position = folded.head + len(folded.events)
    for offset, event in enumerate(part.events, 1):
        folded.events.append(event_document(part.stream_id, event, version + offset, position + offset, text))
    count = len(part.events)
    folded.appends.append({"s": part.stream_id, "v": version + 1, "l": version + count})
    folded.parts.append(part)
    return Appended(version + count, position + count)


def conflict(stream_id: str, expected: int, actual: int) -> ConcurrencyError:
    """Return the error for a stream that is not at the version expected."""
    return ConcurrencyError(
        f"stream {stream_id!r} is at version {actual}, expected {expected}; nothing was written",
        expected_version=expected,
        actual_version=actual,
    )


def condition_fails(part: Part) -> ConcurrencyError:
    """Return the error for an append whose condition does not hold."""
    after = 0 if part.condition is None else part.condition.after
    return ConcurrencyError(
        f"an event that matches the condition was appended after position {after}; nothing was written"
    )
