"""The writing side of the log: numbers appends, checks what they expect, and inserts many of them as one commit.

One task inserts; appends that arrive meanwhile share the next commit. The position that a commit claims as its `_id` is
the one after the last commit that this process knows. If the insertion succeeds, nobody else has committed since, so
everything that was checked against that knowledge was true at that moment. If it fails, the newer commits are read and
everything is checked again. No transaction and no lock is needed, and any number of processes may do this at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lexigram.events.exceptions import EventStoreConnectionError, EventValidationError
from lexigram.events.stores.mongodb.documents import MAX_COMMIT_BYTES, event_bytes
from lexigram.events.stores.mongodb.folding import Fold, fold
from lexigram.events.stores.mongodb.knowledge import Knowledge

if TYPE_CHECKING:
    from lexigram.events.messages.codec import EncodedEvent
    from lexigram.events.stores._primitives import Appended
    from lexigram.events.stores._wakeup import Wakeup
    from lexigram.events.stores.condition import ResolvedCondition
    from lexigram.events.stores.mongodb.database import MongoDatabase

MAX_COMMIT_APPENDS: Final = 512
_GOOD_COMMIT_BYTES: Final = 4 * 1024 * 1024
"""Where a commit is closed for further appends; one larger append still fits."""

_FIRST_PAUSE_SECONDS: Final = 0.002
_LONGEST_PAUSE_SECONDS: Final = 0.25


@dataclass(slots=True, eq=False)
class Part:
    """One append, encoded.

    Attributes:
        stored: Where it is stored, once that is known.
        asked_at: Head at which its ids were looked up and not found; None = never.
        checked_at: Up to which position its condition is known to hold.
    """

    stream_id: str
    events: Sequence[EncodedEvent]
    expected_version: int | None
    condition: ResolvedCondition | None
    stored: Appended | None = None
    asked_at: int | None = None
    checked_at: int = 0
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(event_bytes(self.stream_id, event) for event in self.events)


@dataclass(slots=True, eq=False)
class Request:
    """Parts that are stored together or not at all, and who waits for it."""

    parts: list[Part]
    done: asyncio.Future[None]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(part.size for part in self.parts)
        if self.size > MAX_COMMIT_BYTES:
            raise EventValidationError(
                f"these events need about {self.size:,} bytes and must be stored in one MongoDB document, which holds "
                f"{MAX_COMMIT_BYTES:,}; append them in smaller batches. Nothing was written",
                field="events",
            )


class CommitLog:
    """Commits the appends of all stores of one process on one database.

    Args:
        database: Open; its collections and settings are used.
        text: Whether payloads are text.
    """

    def __init__(self, database: MongoDatabase, text: bool) -> None:
        self.knowledge = Knowledge(database)
        self.wakeups: list[Wakeup] = []
        """Those of the stores that use it."""
        self._database = database
        self._text = text
        self._seconds = database.settings.timeout_seconds
        self._queue: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def commit(self, parts: list[Part]) -> None:
        """Store the parts together; each one's `stored` then says where.

        Cancelling the caller before its commit is under way withdraws it; later the commit is made anyway.

        Raises:
            ConcurrencyError: A part's expectation does not hold; nothing was written.
            EventStoreConnectionError: The server stayed away; whether the events are stored is then unknown, and
                appending the same events again finds out.
            EventPersistenceError: Some of the ids are stored already, or the server refused; nothing was written.
        """
        if self._is_closed:
            raise EventStoreConnectionError("the MongoDB store is closed; connect() opens it again")
        self._database.check_loop()
        request = Request(parts, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="mongodb-commits")
        await request.done

    async def close(self) -> None:
        """Commit what is queued, then accept nothing more."""
        self._is_closed = True
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while self._queue:
            await self._serve(self._take())

    def _take(self) -> list[Request]:
        """Return the requests of the next commit, in order of arrival."""
        taken: list[Request] = []
        size = 0
        while self._queue and len(taken) < MAX_COMMIT_APPENDS:
            if self._queue[0].done.done():
                self._queue.popleft()  # withdrawn
                continue
            size += self._queue[0].size
            if taken and size > _GOOD_COMMIT_BYTES:
                break
            taken.append(self._queue.popleft())
        return taken

    async def _serve(self, requests: list[Request]) -> None:
        """Answer every request, whatever happens."""
        try:
            await self._settle(requests)
        except BaseException as error:
            self.knowledge.forget()
            waiting = [request for request in requests if not request.done.done()]
            if len(waiting) > 1 and isinstance(error, Exception) and not isinstance(error, EventStoreConnectionError):
                # The server refused something; those that it would have taken must not suffer for it.
                for request in waiting:
                    await self._serve([request])
                return
            for request in waiting:
                if isinstance(error, asyncio.CancelledError):
                    request.done.cancel()
                else:
                    request.done.set_exception(error)
            if not isinstance(error, Exception):
                raise

    async def _settle(self, requests: list[Request]) -> None:
        """Fold and insert until every request has its answer."""
        knowledge, end, pause = self.knowledge, time.monotonic() + self._seconds, _FIRST_PAUSE_SECONDS
        while requests:
            folded = await fold(knowledge, requests, self._text)
            if await self._has_doubts(folded):
                continue
            stored = folded.document is None or await knowledge.insert(folded.document, end)
            if stored:
                knowledge.learn(folded)
                if folded.document is not None:
                    self._committed(folded)
                requests = _answer(folded)
                continue
            if await knowledge.catch_up() or await self._find(folded.parts):
                pause = _FIRST_PAUSE_SECONDS
                continue
            # In the way is something that a majority does not have yet.
            if time.monotonic() > end:
                raise EventStoreConnectionError("MongoDB: appending events failed: the last commit is not confirmed")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _committed(self, folded: Fold) -> None:
        """Tell how many appends share the commit."""
        observe = next((each.observe_batch for each in self.wakeups if each.observe_batch is not None), None)
        if observe is not None:
            observe(sum(not isinstance(outcome, Exception) for _, outcome in folded.outcomes))

    async def _has_doubts(self, folded: Fold) -> bool:
        """Make sure that conflicts are real: up to date, and no retry of what is stored. True: fold again."""
        knowledge = self.knowledge
        doubtful = [part for part in folded.conflicts if part.asked_at != knowledge.head]
        if not doubtful:
            return False
        await knowledge.catch_up()
        await self._find(doubtful)
        return True

    async def _find(self, parts: Sequence[Part]) -> bool:
        """Look parts up by their event ids; tell whether any has turned out to be stored, wholly or in part."""
        head = self.knowledge.head
        found = await self.knowledge.find_stored([part for part in parts if part.stored is None])
        for part in parts:
            part.asked_at = head
        return found


def _answer(folded: Fold) -> list[Request]:
    """Give every request of a stored commit its answer; return those that have to wait for the next one."""
    for request, outcome in folded.outcomes:
        if not request.done.done():
            if isinstance(outcome, Exception):
                request.done.set_exception(outcome)
            else:
                for part, stored in outcome:
                    part.stored = stored
                request.done.set_result(None)
    return folded.postponed
