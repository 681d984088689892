"""A unit of work that keeps its writes until the end and hands them to the group commit as one job.

Meant for many short units at the same time, such as the steps of sagas: nobody holds the writer while a task thinks,
and all units that end together share one commit. What it reads is not locked meanwhile; appends with an expected
version and checks in deferred calls notice at the commit if something has changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lexigram.events.stores.sqlite.jobs import settled
from lexigram.events.stores.sqlite.session import SqliteUnitOfWork

if TYPE_CHECKING:
    from lexigram.events.stores.sqlite.jobs import Folder

T = TypeVar("T")


class _Write(NamedTuple):
    """One deferred write: a call, or a request of a folder; `outcomes` gets what it returned."""

    call: Callable[[sqlite3.Connection], Any] | None
    folder: Folder | None
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

    def defer_request(self, folder: Folder, request: Any, stream_id: str) -> list[Any]:
        """Keep a request of a folder for the end; its outcome will be the only item of the list returned."""
        outcomes: list[Any] = []
        self._writes.append(_Write(None, folder, request, outcomes))
        self._keys.add(stream_id)
        return outcomes

    def covers(self, key: str | None = None) -> bool:
        """Return False as long as the unit's own writes cannot matter to a read: it then takes place outside."""
        return self._started or bool(self._writes and (key is None or key in self._keys))

    async def _call(self, call: Any, folder: Folder | None = None) -> Any:
        if not self._started and self._writes:
            writes, self._writes = self._writes, []
            for write in writes:
                outcome = await super()._call(write.call or write.request, write.folder)
                write.outcomes.append(outcome)
        return await super()._call(call, folder)

    async def _commit(self) -> None:
        if self._started:
            await super()._commit()
        elif self._writes:
            await settled(self._engine.submit_job(self._write_all))

    def _write_all(self, connection: sqlite3.Connection) -> None:
        """Carry out everything in order, in the writer thread; whatever raises undoes all of it."""
        try:
            for write in self._writes:
                if write.folder is None:
                    assert write.call is not None
                    write.outcomes.append(write.call(connection))
                    continue
                (outcome,) = write.folder.fold(connection, (write.request,))
                if isinstance(outcome, BaseException):
                    raise outcome
                write.outcomes.append(outcome)
        except BaseException:
            for write in self._writes:
                if write.folder is not None:
                    write.folder.reset()  # what it has looked up meanwhile is undone with the rows
            raise
