"""Appends whose read models are written in the same transaction: nothing is stored unless its handlers succeed.

Appends that wait at the same time share one transaction. If a handler fails there, all of it is undone and each of them
is tried by itself, so that only the one that cannot be handled fails.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from lexigram.events.exceptions import ConcurrencyError, EventStoreError
from lexigram.events.stores._loop_lock import LoopLock

if TYPE_CHECKING:
    from lexigram.events.stores.base import AbstractEventStore
    from lexigram.events.stores.condition import ResolvedCondition
    from lexigram.events.stores.unit_of_work import AbstractUnitOfWork

MAX_APPENDS: Final = 100
"""Appends in one transaction: the first of them waits for the handlers of all."""

MAX_EVENTS: Final = 500
"""With so many events a transaction takes no further append."""

Append = tuple[str, Sequence[Any], "int | None", "ResolvedCondition | None"]
"""Stream, prepared events, expected version, condition."""


class InlineHandler(Protocol):
    """A read model that is written in the transactions of appends."""

    def wants(self, events: Sequence[Any]) -> bool:
        """Return whether these events concern it."""
        ...

    async def follow(self, unit: AbstractUnitOfWork) -> None:
        """Apply what the log holds, what this unit of work has appended included; raise to undo all of it."""
        ...


class _Waiting(NamedTuple):
    future: asyncio.Future[int]
    append: Append
    handlers: tuple[InlineHandler, ...]


class InlineAppends:
    """Stores appends together with what handlers write because of them.

    Args:
        together: How many appends may share a transaction; 1 where what handlers do cannot be undone.
    """

    def __init__(self, store: AbstractEventStore, together: int = MAX_APPENDS) -> None:
        self.handlers: list[InlineHandler] = []
        self._store = store
        self._together = together
        self._queue: deque[_Waiting] = deque()
        self._turn = LoopLock()
        self._task: asyncio.Task[None] | None = None

    def wants(self, events: Sequence[Any]) -> bool:
        """Return whether an append has to take this way."""
        return any(handler.wants(events) for handler in self.handlers)

    async def append(
        self,
        stream_id: str,
        events: Sequence[Any],
        expected_version: int | None,
        condition: ResolvedCondition | None,
    ) -> int:
        """Store prepared events and what handlers make of them; return the version of the last one.

        Inside a unit of work both belong to it, and a handler that fails leaves it to be rolled back.
        """
        append = (stream_id, events, expected_version, condition)
        unit = self._store._unit_of_work()
        if unit is not None:
            version = await self._store._append_in(unit, *append)
            await self._follow(unit, tuple(self.handlers))
            return version
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(future, append, tuple(self.handlers)))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain(), name="lexigram-events-inline")
        return await future

    async def settled(self) -> None:
        """Return once the appends that wait now have been stored, with the handlers that there were, or have failed."""
        queued = [one.future for one in self._queue]
        async with self._turn:
            pass
        if queued:
            await asyncio.wait(queued)
            async with self._turn:  # whoever has stopped waiting is in the transaction all the same
                pass

    async def _drain(self) -> None:
        while self._queue:
            async with self._turn:
                batch = self._next()
                if batch and not await self._stored(batch):
                    for one in batch:
                        await self._stored([one])

    async def _stored(self, batch: list[_Waiting]) -> bool:
        """Store appends in one transaction and answer them; False if several of them failed together."""
        outcomes: list[int | Exception] = []
        try:
            async with self._store.unit_of_work() as unit:
                outcomes = await self._append_all(unit, [one.append for one in batch])
                if not all(isinstance(outcome, Exception) for outcome in outcomes):
                    await self._follow(unit, dict.fromkeys(handler for one in batch for handler in one.handlers))
        except Exception as error:
            if len(batch) > 1:
                return False
            outcomes = [error]
        except BaseException:
            for one in batch:
                one.future.cancel()
            raise
        for one, outcome in zip(batch, outcomes, strict=True):
            if one.future.done():
                continue
            if isinstance(outcome, Exception):
                one.future.set_exception(outcome)
            else:
                one.future.set_result(outcome)
        return True

    async def _append_all(self, unit: AbstractUnitOfWork, appends: Sequence[Append]) -> list[int | Exception]:
        """Append in the transaction; a conflict is the outcome of that append, which wrote nothing."""
        together = getattr(self._store, "_append_all_in", None)
        if together is not None and len(appends) > 1:
            versions: list[int | Exception] = await together(unit, appends)
            return versions
        outcomes: list[int | Exception] = []
        for append in appends:
            try:
                outcomes.append(await self._store._append_in(unit, *append))
            except ConcurrencyError as error:
                outcomes.append(error)
        return outcomes

    def _next(self) -> list[_Waiting]:
        """Return the appends of the next transaction; those that nobody waits for any more are dropped."""
        batch: list[_Waiting] = []
        events = 0
        while self._queue and len(batch) < self._together and events < MAX_EVENTS:
            one = self._queue.popleft()
            if not one.future.done():
                batch.append(one)
                events += len(one.append[1])
        return batch

    async def _follow(self, unit: AbstractUnitOfWork, handlers: Iterable[InlineHandler]) -> None:
        if not getattr(unit, "is_owner", True):
            raise EventStoreError(
                "with inline projections only the task that entered the unit of work appends in it; "
                "append in the tasks inside without a unit of work of their parent, or after them"
            )
        try:
            for handler in handlers:
                await handler.follow(unit)
        except BaseException:
            unit.before_commit(_refuse)
            raise


def _refuse() -> None:
    raise EventStoreError("an inline projection had failed in this unit of work; everything was rolled back")
