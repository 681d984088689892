"""What several tests of the engine need."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

from lexigram.events.stores.sqlite.engine import SqliteEngine
from lexigram.events.stores.sqlite.event_store import SqliteEventStore


def engine_of(store: SqliteEventStore) -> SqliteEngine:
    """The engine, as the class that it is here."""
    assert isinstance(store.engine, SqliteEngine)
    return store.engine


def database_threads() -> list[str]:
    """Names of the engines' threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sqlite-")]


async def hold_the_writer(engine: SqliteEngine) -> tuple[asyncio.Task[None], threading.Event]:
    """Keep the writer thread busy until the event is set, so that what follows waits in its queue."""
    go, busy = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait(_connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(busy.set)
        assert go.wait(10)

    task = asyncio.create_task(engine.run(wait))
    await busy.wait()
    return task, go
