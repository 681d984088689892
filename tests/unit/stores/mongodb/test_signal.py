"""Change streams only wake readers; whether a server has them is tried, not believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pymongo.errors import AutoReconnect, OperationFailure

from lexigram.events.stores._wakeup import Wakeup
from lexigram.events.stores.mongodb import signal
from lexigram.events.stores.mongodb.signal import ChangeSignal


class Stream:
    """A change stream that announces what a queue holds; an exception in it is raised."""

    def __init__(self, changes: asyncio.Queue[Any]) -> None:
        self.changes = changes

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            change = await self.changes.get()
            if isinstance(change, Exception):
                raise change
            yield change


class Database:
    """Stands for the collection too; `watch` fails with the first of `failures` while there are any."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.changes: asyncio.Queue[Any] = asyncio.Queue()
        self.watched = 0

    def collection(self) -> Database:
        return self

    async def watch(self, pipeline: list[dict[str, Any]]) -> Stream:
        self.watched += 1
        if self.failures:
            raise self.failures.pop(0)
        return Stream(self.changes)


async def test_each_insertion_wakes_the_readers() -> None:
    """The beginning wakes them once, because of what was committed just before it; then every change does."""
    database, wakeup = Database(), Wakeup()
    changes: Any = database
    listening = ChangeSignal(changes, wakeup)
    listening.start()
    listening.start()
    await asyncio.sleep(0.01)
    assert (listening.is_supported, wakeup.count, database.watched) == (True, 1, 1)
    for number in range(3):
        database.changes.put_nowait(number)
    await asyncio.sleep(0.01)
    assert wakeup.count == 4
    await listening.stop()
    await listening.stop()


async def test_a_refusal_is_final_and_a_lost_connection_is_not(monkeypatch: Any) -> None:
    """A server that refuses is asked once; one that is away is asked again, also when the stream breaks later."""
    refusing: Any = Database(OperationFailure("only supported on replica sets", 40573))
    listening = ChangeSignal(refusing, Wakeup())
    for _ in range(2):
        listening.start()
        await asyncio.sleep(0.01)
    assert (listening.is_supported, refusing.watched) == (False, 1)
    monkeypatch.setattr(signal, "_PAUSE_SECONDS", 0.0)
    away: Any = Database(AutoReconnect("away"))
    listening = ChangeSignal(away, Wakeup())
    listening.start()
    await asyncio.sleep(0.01)
    assert (listening.is_supported, away.watched) == (True, 2)
    away.changes.put_nowait(AutoReconnect("cut"))
    await asyncio.sleep(0.01)
    assert (listening.is_supported, away.watched) == (True, 3)
    await listening.stop()
