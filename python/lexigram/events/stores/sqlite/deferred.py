"""A unit of work that keeps its writes until the end and hands them to the group commit as one job.

Meant for many short units at the same time, such as the steps of sagas: nobody holds the writer while a task thinks,
and all units that end together share one commit. What it reads is not locked meanwhile; appends with an expected
version and checks in deferred calls notice at the commit if something has changed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lexigram.events.stores.sqlite.jobs import outlasted
from lexigram.events.stores.sqlite.session import SqliteUnitOfWork

if TYPE_CHECKING:
    from lexigram.events.stores.sqlite.jobs import Folder
    from lexigram.events.stores.sqlite.log import EventLog

T = TypeVar("T")


class _Write(NamedTuple):
    """One deferred write: a call, or an append to a log; `outcomes` gets what it returned."""

    call: Callable[[sqlite3.Connection], Any] | None
    log: EventLog | None
    request: Any
    outcomes: list[Any]


class DeferredUnitOfWork(SqliteUnitOfWork):
    """Begins its transaction only when a statement needs an answer that depends on its own writes.

    Raises at the end of the block:
        ConcurrencyError: LEX_ERR_EVT_004, what the unit relied on has changed; nothing was written.
    """

    def __init__(self, engine: Any, timeout_seconds: float) -> None:
        super().__init__(engine, timeout_seconds)
        self._writes: list[_Write] = []
        self._keys: set[str] = set()

    @property
    def defers(self) -> bool:
        """Whether writes are still kept; False once the transaction has begun."""
        return not self._started

    def defer(self, call: Callable[[sqlite3.Connection], Any], key: str | None = None) -> None:
        """Keep a write for the end; if it raises there, nothing of the unit is written.

        Args:
            key: Reads of this key have to see it; reads of other keys (see `covers`) need not.
        """
        self._writes.append(_Write(call, None, None, []))
        if key is not None:
            self._keys.add(key)

    def defer_append(self, log: EventLog, request: Any, stream_id: str) -> list[Any]:
        """Keep an append for the end; its outcome will be the only item of the list returned."""
        outcomes: list[Any] = []
        self._writes.append(_Write(None, log, request, outcomes))
        self._keys.add(stream_id)
        return outcomes

    def covers(self, key: str | None = None) -> bool:
        """Return False as long as the unit's own writes cannot matter to a read: it then takes place outside."""
        return self._started or bool(self._writes and (key is None or key in self._keys))

    async def _call(self, call: Any, folder: Folder | None = None) -> Any:
        if not self._started and self._writes:
            writes, self._writes = self._writes, []
            for write in writes:
                outcome = await super()._call(write.call or write.request, write.log)
                write.outcomes.append(outcome)
        return await super()._call(call, folder)

    async def _commit(self) -> asyncio.CancelledError | None:
        if self._started:
            return await super()._commit()
        if self._writes:
            units = self._engine.share(UnitFolder, UnitFolder)
            weight = sum(1 if write.log is None else len(write.request.events) for write in self._writes)
            return await outlasted(asyncio.ensure_future(self._engine.fold(units, self._writes, weight, None)))
        return None


class UnitFolder:
    """Writes deferred units that end at the same time together, each of them all or none.

    Their appends are numbered first and inserted in one go, then the calls follow. As long as only versions can be in the
    way, a unit that comes too late costs the others nothing.
    """

    def __init__(self) -> None:
        self._logs: set[EventLog] = set()

    def fold(self, connection: sqlite3.Connection, requests: Sequence[Sequence[_Write]]) -> list[Any]:
        """Write the units in order; a conflict of versions is the outcome of that unit."""
        logs = {write.log for unit in requests for write in unit if write.log is not None}
        self._logs |= logs
        if len(requests) == 1:
            self.fold_one(connection, requests[0])
            return [None]
        if len(logs) > 1 or any(write.log and write.request.condition for unit in requests for write in unit):
            raise _OneByOne
        appends = [[write.request for write in unit if write.log is not None] for unit in requests]
        answers: list[Any] = [[] for _ in requests]
        for log in logs:
            answers = log.fold_units(connection, appends)
        for unit, answer in zip(requests, answers, strict=True):
            if not isinstance(answer, BaseException):
                appended = iter(answer)
                for write in unit:
                    write.outcomes[:] = [next(appended) if write.call is None else write.call(connection)]
        return [answer if isinstance(answer, BaseException) else None for answer in answers]

    def fold_one(self, connection: sqlite3.Connection, request: Sequence[_Write]) -> None:
        """Carry out one unit write by write; whatever raises undoes all of it."""
        for write in request:
            if write.log is None:
                assert write.call is not None
                outcome = write.call(connection)
            else:
                (outcome,) = write.log.fold(connection, (write.request,))
                if isinstance(outcome, BaseException):
                    raise outcome
            write.outcomes[:] = [outcome]

    def reset(self) -> None:
        """Have the logs forget what they have looked up or written since."""
        for log in self._logs:
            log.reset()

    def committed(self) -> None:
        """Readers are woken when the units' events have been stamped."""


class _OneByOne(Exception):
    """Raised before anything is written: these units are not written together."""
