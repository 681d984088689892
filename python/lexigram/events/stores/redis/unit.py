"""The unit of work on Redis: everything is collected and written by one script at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

from lexigram.events.exceptions import ConcurrencyError, EventStoreError
from lexigram.events.stores._pending import PendingEvents, Place
from lexigram.events.stores._primitives import Appended
from lexigram.events.stores._settled import outlasted
from lexigram.events.stores.condition import selectors
from lexigram.events.stores.redis.log import RedisLog
from lexigram.events.stores.redis.operations import AppendOperation, SmallOperation, version_conflict
from lexigram.events.stores.redis.state_log import StateLog
from lexigram.events.stores.unit_of_work import AbstractUnitOfWork


class Outcome:
    """What an operation of the unit answered; known once the unit is committed."""

    __slots__ = ("answer", "operation")

    def __init__(self, operation: Any) -> None:
        self.operation = operation
        self.answer: Any = None

    def result(self) -> Appended:
        """Return where an append was stored."""
        return Appended(*self.answer)

    def repeat(self, place: Place) -> None:
        """Note that it is stored where an earlier append of the unit has put the same events."""
        self.answer = place.shifted(place.append.result())


class RedisUnitOfWork(AbstractUnitOfWork):
    """Collects operations on one namespace; one call executes all of them or none.

    The version that an append returns for `expected_version=None` is provisional: another writer may come first.

    Args:
        log: The namespace; stores that share it join.
        connect: Opens it.
    """

    is_transaction = False
    resource: RedisLog | StateLog

    def __init__(self, log: RedisLog | StateLog, connect: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(log)
        self._connect = connect
        self._outcomes: list[Outcome] = []
        self._pending: list[AppendOperation] = []
        self._pending_events = PendingEvents()
        self._turn = asyncio.Lock()
        self.outcome = Outcome(None)
        """Of the operation added last."""

    async def __aenter__(self) -> Self:
        await self._connect()
        return await super().__aenter__()

    async def append(self, operation: AppendOperation) -> tuple[int, Outcome]:
        """Check an append and keep it for the commit; return its version and its outcome to come."""
        async with self._turn:
            stream_id, expected = operation.stream_id, operation.expected_version
            outcome, ids = Outcome(operation), [event.event_id for event in operation.events]
            again = self._pending_events.find(stream_id, ids)
            if again is not None:
                self.on_commit(lambda: outcome.repeat(again))
                return again.version, outcome
            offset = sum(len(earlier.events) for earlier in self._pending if earlier.stream_id == stream_id)
            if expected is not None:
                if expected < offset:
                    base = (await self.resource.bounds(stream_id)).version
                    raise version_conflict(stream_id, expected, base + offset)
                # What the stream must be at before this unit of work.
                operation = operation._replace(expected_version=expected - offset)
            try:
                base, position = await self.resource.foresee(operation)
            except ConcurrencyError as error:
                if error.actual_version is None or not offset:
                    raise
                raise version_conflict(stream_id, expected, error.actual_version + offset) from None
            outcome.operation = operation
            if position:
                self._outcomes.append(outcome)
                return base, outcome
            self._check_own(operation)
            self._outcomes.append(outcome)
            self._pending.append(operation)
            version = base + offset + len(operation.events)
            self._pending_events.add(stream_id, ids, version, outcome)
            return version, outcome

    async def add(self, operation: SmallOperation) -> Any:
        """Check an operation of a smaller store and keep it for the commit; return what it is based on."""
        async with self._turn:
            foreseen = await self.resource.foresee(operation)
            self.outcome = Outcome(operation)
            self._outcomes.append(self.outcome)
            return foreseen

    def replace(self, outcome: Outcome, operation: SmallOperation) -> None:
        """Execute `operation` instead of an earlier one of this unit, at the earlier one's place."""
        outcome.operation = operation

    def _check_own(self, operation: AppendOperation) -> None:
        """Check an append against what the unit itself has appended."""
        if operation.condition is not None:
            for earlier in self._pending:
                for event in earlier.events:
                    names = selectors(event.type_name, event.event_type)
                    if any(item.selects(names, event.tags) for item in operation.condition.query):
                        raise ConcurrencyError(
                            "an event of this unit of work matches the condition; nothing was written"
                        )

    def _no_sql(self) -> EventStoreError:
        return EventStoreError("Redis has no SQL: a unit of work takes appends and what the Redis stores save")

    async def _begin(self) -> None:
        """Nothing to do: Redis is only changed at the end."""

    async def _commit(self) -> asyncio.CancelledError | None:
        if not self._outcomes:
            return None
        settling = asyncio.ensure_future(self.resource.settle([outcome.operation for outcome in self._outcomes]))
        cancelled = await outlasted(settling)
        for outcome, answer in zip(self._outcomes, settling.result(), strict=True):
            outcome.answer = answer
        return cancelled

    async def _rollback(self) -> None:
        self._outcomes.clear()
        self._pending.clear()
