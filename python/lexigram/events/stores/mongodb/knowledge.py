"""What this process knows of the log: the last commit, and versions of streams as of that commit.

Knowledge may be old; it is never acted upon without being confirmed, by an insertion at the position after `head` that
succeeds or by `catch_up`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pymongo.errors import DocumentTooLarge, DuplicateKeyError

from lexigram.events.exceptions import EventPersistenceError, EventStoreConnectionError
from lexigram.events.stores._primitives import Appended
from lexigram.events.stores.mongodb.documents import HELD, Document, by_ids, events_of, matching_commits
from lexigram.events.stores.mongodb.errors import DRIVER_ERRORS, clear_error, is_refused

if TYPE_CHECKING:
    from lexigram.events.stores.condition import ResolvedQuery
    from lexigram.events.stores.mongodb.commits import Part
    from lexigram.events.stores.mongodb.database import MongoDatabase
    from lexigram.events.stores.mongodb.folding import Fold

_MAX_STREAMS: Final = 65_536
_MAX_NEW_COMMITS: Final = 256
"""Beyond this many unknown commits it is cheaper to forget the streams than to read what happened to them."""

_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5


class Knowledge:
    """One for each committer.

    Attributes:
        head: Last position of the last commit known; None before anything is known.
        versions: Versions of streams, as of `head` or later.
        violated: Parts whose condition fails.
        overlapping: Parts of whose ids some, but not all of them in one place, are stored.
    """

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database
        self._commits = database.collection()
        # Only what a majority has is built upon: after a failover a commit that was not there yet may be gone, and a
        # number taken after it would leave a gap that somebody fills later.
        self._newest = database.collection(majority=False)
        self.head: int | None = None
        self.versions: dict[str, int] = {}
        self.violated: set[Part] = set()
        self.overlapping: set[Part] = set()

    def forget(self) -> None:
        """Know nothing."""
        self.head = None
        self.versions.clear()
        self.overlapping.clear()

    async def prepare(self, parts: Sequence[Part]) -> None:
        """Find out what folding these parts needs: stream versions, and whether conditions hold up to `head`."""
        if self.head is None:
            await self.catch_up()
        if len(self.versions) > _MAX_STREAMS:
            self.versions.clear()
        streams = list({part.stream_id for part in parts} - self.versions.keys())
        conditional = [part for part in parts if part.condition is not None]
        versions = await asyncio.gather(*map(self.version, streams))
        # Only now: what a lookup that outlives a failed commit finds must never become knowledge.
        self.versions.update(zip(streams, versions, strict=True))
        fails = await asyncio.gather(*map(self._fails, conditional))
        self.violated = {part for part, fail in zip(conditional, fails, strict=True) if fail}

    async def version(self, stream_id: str) -> int:
        """Return the current version of a stream, from the database."""
        last = await self._read(
            lambda: self._commits.find_one({"a.s": stream_id}, {"a": 1}, sort=[("_id", -1)]),
            "reading a stream's version",
        )
        appends = [] if last is None else last["a"]
        return max((a["l"] for a in appends if a["s"] == stream_id), default=0)

    async def _fails(self, part: Part) -> bool:
        """Tell whether an event fails a part's condition, after the position up to which it is known to hold."""
        condition, head = part.condition, self.head
        assert condition is not None
        assert head is not None
        after = max(condition.after, part.checked_at)
        if after >= head:
            return False
        if await self.has_match(condition.query, after):
            return True
        part.checked_at = head
        return False

    async def has_match(self, query: ResolvedQuery, after: int) -> bool:
        """Tell whether an event after a position matches the query."""
        if not query:
            return False
        wanted = {"q": {"$gt": after}, **HELD, "$or": matching_commits(query, {"p": {"$gt": after}})}
        commit = await self._read(lambda: self._commits.find_one(wanted, {"q": 1}), "checking a condition")
        return commit is not None

    async def catch_up(self) -> bool:
        """Learn what has been committed after `head`; tell whether anything has."""
        before = self.head
        if before is not None:
            wanted, limit = {"q": {"$gt": before}}, _MAX_NEW_COMMITS + 1
            new = await self._read(
                lambda: self._commits.find(wanted, {"a": 1, "q": 1}, sort=[("q", 1)], limit=limit).to_list(None),
                "reading the newest commits",
            )
            if len(new) < limit:
                for commit in new:
                    self.versions.update((a["s"], a["l"]) for a in commit["a"])
                    self.head = commit["q"]
                return bool(new)
        last = await self._read(
            lambda: self._commits.find_one({}, {"q": 1}, sort=[("q", -1)]), "reading the last commit"
        )
        self.versions.clear()
        self.head = 0 if last is None else int(last["q"])
        return self.head != before

    async def find_stored(self, parts: Sequence[Part]) -> bool:
        """Set `stored` of the parts whose ids are stored already; tell whether there were any, or overlapping ones."""
        ids = [event.event_id for part in parts for event in part.events]
        if not ids:
            return False
        commits = await self._read(lambda: self._commits.find(*by_ids(ids)).to_list(None), "looking up event ids")
        places = {bytes(e["i"]): (e["s"], e["v"], e["p"]) for e in events_of(commits)}
        found = False
        for part in parts:
            known = [places.get(bytes(event.event_id)) for event in part.events]
            if not any(known):
                continue
            found = True
            first = known[0]
            if first is not None and known == _following(first, len(known), part.stream_id):
                part.stored = Appended(first[1] + len(known) - 1, first[2] + len(known) - 1)
            else:
                self.overlapping.add(part)
        return found

    async def insert(self, document: Document, end: float) -> bool:
        """Insert a commit; False if its position or one of its ids is taken. An unknown outcome is found out.

        Raises:
            EventStoreConnectionError: The server stayed away until `end`; the commit may be stored or not.
            EventPersistenceError: The server refuses it; it is not stored.
        """
        is_doubtful, pause = False, _FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._commits.insert_one(document)
            except DuplicateKeyError:
                # After a failure this may be the commit itself, stored by an attempt whose answer was lost.
                return is_doubtful and await self._is_ours(document, end)
            except DRIVER_ERRORS as error:
                what = "appending events"
                if isinstance(error, DocumentTooLarge) or is_refused(error):
                    raise clear_error(error, what, EventPersistenceError) from error
                if time.monotonic() > end:
                    what += " (whether they are stored is unknown; append the same events again to find out)"
                    raise clear_error(error, what, EventStoreConnectionError) from error
                is_doubtful = True
            else:
                return True
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _is_ours(self, document: Document, end: float) -> bool:
        """Tell whether the commit stored at a document's position is that document; waits until a majority has it."""
        wanted, pause = {"_id": document["_id"]}, _FIRST_PAUSE_SECONDS
        while True:
            commit = await self._read(lambda: self._commits.find_one(wanted, {"c": 1}), "looking for a commit")
            if commit is not None or time.monotonic() > end:
                return commit is not None and bytes(commit["c"]) == document["c"]
            if await self._read(lambda: self._newest.find_one(wanted, {"c": 1}), "looking for a commit") is None:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def learn(self, folded: Fold) -> None:
        """Take over what a commit that has just been inserted says."""
        self.overlapping.clear()
        if folded.document is not None:
            self.head = folded.document["q"]
            self.versions.update(folded.versions)

    async def _read(self, call: Any, what: str) -> Any:
        return await self._database.read(call, what)


def _following(first: tuple[str, int, int], count: int, stream_id: str) -> list[tuple[str, int, int] | None]:
    """Return the places of `count` events from `first` on, if they are one append to this stream."""
    _, version, position = first
    return [(stream_id, version + offset, position + offset) for offset in range(count)]
