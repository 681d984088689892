"""Writes together what many tasks want to write at the same time: group commit for small statements."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Batcher(Generic[Item, Outcome]):
    """One batch after the other; whatever is handed in while one is written goes into the next.

    Args:
        write: Writes a batch and returns an outcome for each item. If it raises, its items are written one by one, so that
            one that cannot be written does not fail its neighbours.
        key: What must not occur twice in a batch; the second one waits for the next.
        at_most: Items in one batch, from 1.
    """

    def __init__(
        self,
        write: Callable[[list[Item]], Awaitable[Sequence[Outcome]]],
        key: Callable[[Item], Hashable],
        at_most: int = 500,
    ) -> None:
        self._write, self._key, self._at_most = write, key, at_most
        self._queue: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Outcome:
        """Return the outcome of an item; cancelling it while it waits for its batch drops it."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._task is None or self._task.done():
            # In a context of its own: it serves others too, and must not run in this task's unit of work.
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="lexigram-events-batcher", context=Context()
            )
        return await future

    async def _run(self) -> None:
        while self._queue:
            batch = self._take()
            if batch:
                await self._settle(batch)
                # One turn of the loop: those that were answered hand in what comes next, so batches stay full.
                await asyncio.sleep(0)

    def _take(self) -> list[tuple[Item, asyncio.Future[Outcome]]]:
        batch: dict[Hashable, tuple[Item, asyncio.Future[Outcome]]] = {}
        later: list[tuple[Item, asyncio.Future[Outcome]]] = []
        while self._queue and len(batch) < self._at_most:
            item, future = self._queue.popleft()
            if not future.done():
                key = self._key(item)
                if key in batch:
                    later.append((item, future))
                else:
                    batch[key] = (item, future)
        self._queue.extendleft(reversed(later))
        return list(batch.values())

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._write([item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                _answer(batch[0][1], error=error)
                return
            for one in batch:
                await self._settle([one])
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            _answer(future, outcome)


def _answer(future: asyncio.Future[Outcome], outcome: Outcome | None = None, *, error: Exception | None = None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(outcome)  # type: ignore[arg-type]
