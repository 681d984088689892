"""The unit of work on MongoDB: appends are collected and stored as one commit document at its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lexigram.events.exceptions import EventStoreError
from lexigram.events.stores._pending import PendingEvents, Place
from lexigram.events.stores._primitives import already_stored
from lexigram.events.stores._settled import outlasted
from lexigram.events.stores.condition import selectors
from lexigram.events.stores.mongodb.folding import condition_fails, conflict
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lexigram.events.stores.mongodb.commits import CommitLog, Part
    from lexigram.events.stores.mongodb.database import MongoDatabase


class MongoUnitOfWork(AbstractUnitOfWork):
    """Collects appends to one log.

    Each append is checked when it is made and once more, together, at the end. The version it returns for
    `expected_version=None` is provisional: another writer may come first.

    Args:
        database: The database whose stores join.
        connect: Returns the log's committer, opening the store first.
    """

    is_transaction = False
    resource: MongoDatabase

    def __init__(self, database: MongoDatabase, connect: Callable[[], Awaitable[CommitLog]]) -> None:
        super().__init__(database)
        self._connect = connect
        self._parts: list[Part] = []
        self._pending = PendingEvents()
        self._turn = asyncio.Lock()

    async def add(self, part: Part) -> int:
        """Check an append, keep it for the commit and return its version."""
        if not self.is_open:
            raise EventStoreError("the unit of work has ended; open a new one")
        async with self._turn:
            return await self._add(part)

    async def _add(self, part: Part) -> int:
        again = self._pending.find(part.stream_id, [event.event_id for event in part.events])
        if again is not None:
            self.on_commit(lambda: _repeat(part, again))
            return again.version
        knowledge = (await self._connect()).knowledge
        found = await knowledge.find_stored([part])
        if part.stored is not None:
            self._parts.append(part)
            return part.stored.version
        if found:
            knowledge.overlapping.discard(part)
            raise already_stored(part.stream_id)
        before = [earlier for earlier in self._parts if earlier.stored is None]
        version = await knowledge.version(part.stream_id)
        version += sum(len(earlier.events) for earlier in before if earlier.stream_id == part.stream_id)
        if part.expected_version is not None and part.expected_version != version:
            raise conflict(part.stream_id, part.expected_version, version)
        condition = part.condition
        if condition is not None and (
            await knowledge.has_match(condition.query, condition.after)
            or any(
                item.selects(selectors(event.type_name, event.event_type), event.tags)
                for earlier in before
                for event in earlier.events
                for item in condition.query
            )
        ):
            raise condition_fails(part)
        self._parts.append(part)
        version += len(part.events)
        self._pending.add(part.stream_id, [event.event_id for event in part.events], version, part)
        return version

    async def _begin(self) -> None:
        """Open the store at its first use; the log is only touched at the end."""
        await self._connect()

    async def _commit(self) -> asyncio.CancelledError | None:
        if not self._parts:
            return None
        log = await self._connect()
        return await outlasted(asyncio.ensure_future(log.commit(self._parts)))

    async def _rollback(self) -> None:
        self._parts.clear()


def _repeat(part: Part, place: Place) -> None:
    """Note that a part is stored where an earlier one of the unit has put the same events."""
    part.stored = place.shifted(place.append.stored)
