"""Wakes readers when another process commits: by a change stream where the server really has them."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final

from pymongo.errors import OperationFailure

from lexigram.events.stores._settled import ended
from lexigram.events.stores.mongodb.errors import DRIVER_ERRORS, is_transient

if TYPE_CHECKING:
    from lexigram.events.stores._wakeup import Wakeup
    from lexigram.events.stores.mongodb.database import MongoDatabase

_INSERTIONS: Final = [{"$match": {"operationType": "insert"}}, {"$project": {"_id": 1}}]
_PAUSE_SECONDS: Final = 1.0


class ChangeSignal:
    """Listens from the first reader that follows the log until the store is closed. A signal only wakes: which events there are, the log says.

    Attributes:
        is_supported: None until it was tried; False where the server refuses change streams.
    """

    def __init__(self, database: MongoDatabase, wakeup: Wakeup) -> None:
        self.is_supported: bool | None = None
        self._database = database
        self._wakeup = wakeup
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen until `stop`; does nothing while it listens already or the server has refused."""
        if self.is_supported is not False and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._listen(), name="mongodb-changes")

    async def stop(self) -> None:
        """Stop listening."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await ended(task)

    async def _listen(self) -> None:
        while self.is_supported is not False:
            try:
                await self._follow()
            except DRIVER_ERRORS as error:
                if isinstance(error, OperationFailure) and (self.is_supported is None or not is_transient(error)):
                    # The only proof is the attempt: what a server says of itself does not tell.
                    self.is_supported = False
                    return
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self) -> None:
        stream: Any = self._database.collection().watch(_INSERTIONS)
        if inspect.isawaitable(stream):
            stream = await stream
        async with stream:
            self.is_supported = True
            # What was committed before the stream began is not announced.
            self._wakeup.notify()
            async for _ in stream:
                self._wakeup.notify()
