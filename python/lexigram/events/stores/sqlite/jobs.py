"""What coroutines ask the database threads to do, and how the answers get back to their event loops."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lexigram.events.stores._settled import outlasted as outlasted
from lexigram.events.stores._settled import settled as settled

if TYPE_CHECKING:
    from lexigram.events.stores.sqlite.session import Session

T = TypeVar("T")


class Folder(Protocol):
    """Executes many requests of one kind together, each answered by itself."""

    def fold(self, connection: sqlite3.Connection, requests: Sequence[Any]) -> list[Any]:
        """Execute the requests in order; an outcome that is an exception is that request's failure and wrote nothing.

        Raising means that none of them counts: the caller undoes what was written and tries `fold_one` with each.
        """

    def fold_one(self, connection: sqlite3.Connection, request: Any) -> Any:
        """Execute one request with the checks that `fold` leaves to constraints; returns or raises its outcome."""

    def reset(self) -> None:
        """Forget cached rows: a transaction was rolled back, or another process has written."""

    def committed(self) -> None:
        """Called in the writer thread when a transaction with folded requests has become durable."""


class Job:
    """One thing to do in a database thread; `future` belongs to the event loop that waits for it."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future


class RunJob(Job):
    """Call `fn(connection)` inside the writer's transaction."""

    __slots__ = ("fn",)

    def __init__(self, future: asyncio.Future[Any], fn: Callable[[sqlite3.Connection], Any]) -> None:
        super().__init__(future)
        self.fn = fn


class ReadJob(RunJob):
    """Call `fn(connection)` between transactions."""

    __slots__ = ()


class FoldJob(Job):
    """One request that its folder may execute together with its neighbours."""

    __slots__ = ("folder", "request", "weight")

    def __init__(self, future: asyncio.Future[Any], folder: Folder, request: Any, weight: int) -> None:
        super().__init__(future)
        self.folder = folder
        self.request = request
        self.weight = weight


class SessionJob(Job):
    """Serve one unit of work until it commits or rolls back; the answers go to the session's commands."""

    __slots__ = ("session",)

    def __init__(self, session: Session) -> None:
        self.session = session


class Answers:
    """Outcomes of one batch; `send` wakes each event loop once."""

    __slots__ = ("_by_loop",)

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]] = {}

    def add(self, future: asyncio.Future[Any], value: Any, error: BaseException | None = None) -> None:
        """Keep the outcome of one future."""
        loop = future.get_loop()
        outcomes = self._by_loop.get(loop)
        if outcomes is None:
            outcomes = self._by_loop[loop] = []
        outcomes.append((future, value, error))

    def send(self) -> None:
        """Deliver what was kept."""
        for loop, outcomes in self._by_loop.items():
            # A closed loop has nobody left who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, outcomes)
        self._by_loop = {}


def answer(future: asyncio.Future[Any], value: Any, error: BaseException | None = None) -> None:
    """Deliver one outcome at once."""
    with suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(_settle, ((future, value, error),))


def _settle(outcomes: Iterable[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, value, error in outcomes:
        if not future.done():
            if error is None:
                future.set_result(value)
            elif isinstance(error, StopIteration):
                future.set_exception(RuntimeError("the function raised StopIteration"))
            else:
                future.set_exception(error)
