"""The process that the replay test kills: replays dead letters into a file, one line per event."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from lexigram.contracts.core.result import Ok
from lexigram.events.buses.dead_letter_operations import DeadLetterOperations
from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.sqlite import SqliteCheckpointStore, SqliteDeadLetterStore

CONCURRENCY = 8


class Parked(DomainEvent):
    """What is parked."""

    number: int


class FileBus:
    """Handles events by writing a line, and remembers how many were handled at the same time."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._running = self.most = 0

    async def redeliver(self, event: Any, handler_name: str) -> Any:
        """Handle a replayed event."""
        self._running += 1
        self.most = max(self.most, self._running)
        os.write(self._file, f"{event.aggregate_id} {event.number}\n".encode())
        await asyncio.sleep(0)
        self._running -= 1
        return Ok(None)


async def replay(database: str, path: str) -> int:
    """Replay what is left and return how many events were handled at the same time at most."""
    bus = FileBus(path)
    async with SqliteDeadLetterStore(database) as letters, SqliteCheckpointStore(letters) as places:
        done = await DeadLetterOperations(letters, bus, places).replay("job", concurrency=CONCURRENCY)
        assert done.finished
        assert done.failed == 0
    return bus.most


def main(database: str, path: str) -> None:
    """Replay until done or killed."""
    asyncio.run(replay(database, path))
