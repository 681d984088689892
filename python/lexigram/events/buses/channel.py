"""A bounded channel between tasks: first come, first served, and safe under cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic

from lexigram.events._core import ChannelBase, get_shortcut, put_shortcut
from lexigram.events.exceptions import EventValidationError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)  # so that `BoundedChannel(64)` is complete for type checkers
else:
    from typing import TypeVar

    T = TypeVar("T")

_NOTHING = object()


class BoundedChannel(ChannelBase, Generic[T]):
    """Passes items from those who `put` to those who `get`, in order, holding at most `capacity` of them.

    Nobody who waits is overtaken. Whoever is cancelled while it waits has put or taken nothing. It belongs to one event
    loop at a time; like an `asyncio.Queue` it is not for use from several threads.

    Args:
        capacity: Most items held, from 1.

    Raises:
        EventValidationError: `capacity` is below 1 (LEX_ERR_EVT_024).
    """

    @put_shortcut
    async def put(self, item: T) -> None:
        """Put an item behind the others, waiting for room if there is none.

        Raises:
            ChannelClosedError: Nothing is accepted any more.
        """
        if self.put_nowait(item):
            return
        future = asyncio.get_running_loop().create_future()
        self._enlist_putter(future)
        try:
            await future
        except BaseException:
            self._leave_putter(future)
            raise
        self._enter(item)

    @get_shortcut
    async def get(self) -> T:
        """Take the oldest item, waiting for one if there is none.

        Raises:
            ChannelClosedError: The channel is closed and empty.
        """
        item: Any = self._take(_NOTHING)
        taken: T = item if item is not _NOTHING else await self._get_later(0)
        return taken

    async def get_many(self, limit: int) -> list[T]:
        """Take 1 to `limit` of the oldest items, waiting if there is none.

        Raises:
            ChannelClosedError: The channel is closed and empty.
            EventValidationError: `limit` is below 1.
        """
        if limit < 1:
            raise EventValidationError(f"limit must be at least 1, not {limit}", field="limit")
        items: list[T] = self._take_many(limit) or await self._get_later(limit)
        return items

    async def close(self) -> None:
        """Accept nothing more; what is there can still be taken. Those who wait get ChannelClosedError."""
        self._close()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to get at the moment."""
        return len(self) == 0

    send = put
    receive = get

    async def _get_later(self, limit: int) -> Any:
        """Get one item, or a list of up to `limit`, as soon as there is one."""
        future = asyncio.get_running_loop().create_future()
        if not self._enlist_getter(future):
            raise self._closed_error()
        try:
            await future
        except BaseException:
            self._leave_getter(future)
            raise
        return self._collect(future, limit)

    @staticmethod
    def _closed_error() -> Exception:
        from lexigram.concurrency.exceptions import ChannelClosedError

        return ChannelClosedError("The channel is closed")
