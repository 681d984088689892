"""The life of a store: opened at its first use or by `connect`, closed by `close`, opened again only by `connect`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores._loop_lock import LoopLock

if TYPE_CHECKING:
    from types import TracebackType


class Closable:
    """Something for `async with`; a store in memory opens and closes nothing."""

    async def connect(self) -> None:
        """Open what the store needs; a second call does nothing."""

    async def close(self) -> None:
        """Release what the store holds; a second call does nothing."""

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()


class StoreLife(Closable, ABC):
    """Base of every store that holds something. Subclasses write `_open` and `_close`, and call `_ready` at each use.

    Whoever spoke last counts: a store that is closed while others open it is closed in the end, and they are told; one
    that is connected while others close it is open. Safe for many tasks, and for one event loop after the other.
    """

    _reopens = False
    """Whether use after `close` opens the store again, as in memory, instead of raising."""

    def __init__(self) -> None:
        self._is_open = False
        """Whether it can be used just so."""
        self._is_closed = False
        """Whether the last word was `close`."""
        self._has_opened = False
        """Whether there is something to give back."""
        self._opening = LoopLock()

    async def connect(self) -> None:
        """Open the store; create or migrate what it needs. A second call does nothing; it also reopens a closed store.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014; it cannot be reached, is not ours, or was closed meanwhile.
        """
        if self._is_open:
            return
        self._is_closed = False
        async with self._opening:
            if self._is_closed:
                raise self._closed_error()
            if self._is_open:
                return
            opens = not self._has_opened
            if opens:
                await self._open()
            try:
                lasts = await self._make()
                if self._is_closed:  # meanwhile, by somebody who saw nothing to give back
                    raise self._closed_error()
            except BaseException:
                if opens:
                    await self._close()
                raise
            self._has_opened, self._is_open = True, lasts

    async def close(self) -> None:
        """Release what the store holds; a second call does nothing. Use after it raises, until `connect`."""
        self._is_open, self._is_closed = False, True
        if self._has_opened:
            async with self._opening:
                if self._has_opened and self._is_closed:  # neither closed nor wanted again by somebody else meanwhile
                    self._has_opened = False
                    await self._close()

    async def _ready(self) -> Any:
        """Open the store at its first use; raise once it was closed."""
        if not self._is_open:
            if self._is_closed and not self._reopens:
                raise self._closed_error()
            await self.connect()

    def _closed_error(self) -> EventStoreConnectionError:
        return EventStoreConnectionError(f"{type(self).__name__} is closed; connect() opens it again")

    @abstractmethod
    async def _open(self) -> None:
        """Connect; create or migrate tables. If it raises, nothing is left open."""

    @abstractmethod
    async def _close(self) -> None:
        """Release everything."""

    async def _make(self) -> bool:
        """Create what a rollback of the current unit of work would take away; return whether it is there to stay.

        Called again at the next use as long as it is not.
        """
        return True
