"""Base of the small stores on a shared database: they connect at the first use."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores._loop_lock import LoopLock

E = TypeVar("E")


class StoreTables(Generic[E]):
    """Opens the database at the first use and gives it back on `close`; `E` is its engine."""

    database: Any
    """Has `open()`, `close()` and `engine`."""

    def _use(self, database: Any) -> None:
        self.database = database
        self._is_open = False
        self._is_closed = False
        self._connecting = LoopLock()

    async def connect(self) -> None:
        """Open the database; create or migrate the tables. A second call does nothing; it also reopens a closed store.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014; it cannot be reached or is not ours.
        """
        await self._connect(reopens=True)

    async def _connect(self, *, reopens: bool) -> None:
        async with self._connecting:
            if self._is_open:
                return
            if self._is_closed and not reopens:
                raise self._closed_error()
            self._is_closed = False
            await self.database.open()
            if self._is_closed:  # meanwhile, by somebody who saw nothing to give back
                await self.database.close()
                raise self._closed_error()
            self._is_open = True

    def _closed_error(self) -> EventStoreConnectionError:
        return EventStoreConnectionError(f"{type(self).__name__} is closed; connect() opens it again")

    async def close(self) -> None:
        """Give the database back; a second call does nothing."""
        was_open, self._is_open, self._is_closed = self._is_open, False, True
        if was_open:
            await self.database.close()

    async def _ready(self) -> E:
        if not self._is_open:
            await self._connect(reopens=False)
        engine: E = self.database.engine
        return engine
