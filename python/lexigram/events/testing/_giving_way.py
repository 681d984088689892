"""Lets calls of stores in memory give way to other tasks, as calls of a database do."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any


def stores_in_memory() -> tuple[type, ...]:
    """Return the classes that stand for a database in a simulated run."""
    from lexigram.events.buses.dead_letter import InMemoryDeadLetterStore
    from lexigram.events.sagas.store import InMemorySagaStore
    from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
    from lexigram.events.stores.idempotency import InMemoryIdempotencyStore
    from lexigram.events.stores.memory import InMemoryEventStore, InMemorySnapshotStore

    return (
        InMemoryEventStore,
        InMemorySnapshotStore,
        InMemorySagaStore,
        InMemoryCheckpointStore,
        InMemoryDeadLetterStore,
        InMemoryIdempotencyStore,
    )


@contextmanager
def giving_way(classes: Iterable[type]) -> Iterator[Callable[[], None]]:
    """Make every public coroutine method of these classes, and the end of a unit of work, suspend before and after.

    Yields:
        A function that takes from stores in memory what a process holds and not a database: it is called at a crash.
    """
    from lexigram.events.buses.dead_letter import InMemoryDeadLetterStore
    from lexigram.events.stores._memory_unit import MemoryUnitOfWork
    from lexigram.events.stores.idempotency import InMemoryIdempotencyStore

    changed: list[tuple[type, str, Any]] = []
    letters: list[InMemoryDeadLetterStore] = []
    marks: list[InMemoryIdempotencyStore] = []

    def change(cls: type, name: str, value: Any) -> None:
        changed.append((cls, name, vars(cls).get(name)))
        setattr(cls, name, value)

    def note(cls: type, created: list[Any]) -> None:
        make: Any = cls.__init__  # type: ignore[misc]

        def noting(self: Any, *args: Any, **kwargs: Any) -> None:
            make(self, *args, **kwargs)
            created.append(self)

        change(cls, "__init__", noting)

    def reopen() -> None:
        for letter_store in letters:
            letter_store._lane_locks.clear()
        for mark_store in marks:
            for key in list(mark_store._unsettled):
                mark_store._give_back(key)

    for cls in dict.fromkeys(classes):
        for name in dir(cls):
            method = inspect.getattr_static(cls, name)
            if not name.startswith("_") and inspect.iscoroutinefunction(method):
                change(cls, name, _suspending(method))
    change(MemoryUnitOfWork, "__aexit__", _ending(MemoryUnitOfWork.__aexit__))
    note(InMemoryDeadLetterStore, letters)
    note(InMemoryIdempotencyStore, marks)
    try:
        yield reopen
    finally:
        for cls, name, value in reversed(changed):
            if value is None:
                delattr(cls, name)
            else:
                setattr(cls, name, value)


def _suspending(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def suspending(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        outcome = await method(*args, **kwargs)
        await asyncio.sleep(0)
        return outcome

    return suspending


def _ending(leave: Callable[..., Any]) -> Callable[..., Any]:
    """Suspend before a unit of work is committed, which rolls it back if it is cancelled there, and afterwards."""

    @functools.wraps(leave)
    async def ending(
        unit: Any, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        if kind is None:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as cancelled:
                await leave(unit, type(cancelled), cancelled, cancelled.__traceback__)
                raise
        outcome = await leave(unit, kind, error, trace)
        await asyncio.sleep(0)
        return outcome

    return ending
