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
        async with self._connecting:
            if not self._is_open:
                await self.database.open()
                self._is_open, self._is_closed = True, False

    async def close(self) -> None:
        """Give the database back; a second call does nothing."""
        was_open, self._is_open, self._is_closed = self._is_open, False, True
        if was_open:
            await self.database.close()

    async def _ready(self) -> E:
        if not self._is_open:
            if self._is_closed:
                raise EventStoreConnectionError(f"{type(self).__name__} is closed; connect() opens it again")
            await self.connect()
        engine: E = self.database.engine
        return engine
