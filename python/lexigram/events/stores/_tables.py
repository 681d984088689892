"""Base of the small stores on a shared SQL database: they connect at the first use."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from lexigram.events.stores._life import StoreLife

E = TypeVar("E")


class StoreTables(StoreLife, Generic[E]):
    """Opens the database at the first use and gives it back on `close`; `E` is its engine."""

    database: Any
    """Has `open()`, `close()` and `engine`."""

    def _use(self, database: Any) -> None:
        StoreLife.__init__(self)
        self.database = database

    async def _open(self) -> None:
        await self.database.open()

    async def _close(self) -> None:
        await self.database.close()

    async def _ready(self) -> E:
        if not self._is_open:
            await super()._ready()
        engine: E = self.database.engine
        return engine
