"""Short lookups on the caller's own thread, as long as they are quick.

A lookup of a few rows by key takes 10 to 20 microseconds when its pages are in memory; handing it to another thread and
waking the event loop again costs several times that. Where a lookup turns out slow (a cold file on a slow disk), lookups
go to the reader threads for a while, so that the event loop is not held up.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from lexigram.events.stores.sqlite.connection import close_quietly, open_reader
from lexigram.events.stores.sqlite.settings import SqliteSettings

MAX_DIRECT_ROWS: Final = 64
"""A caller that may find more than this asks for the rest in a reader thread."""

_SLOW_SECONDS: Final = 0.01
_PAUSE_SECONDS: Final = 0.5


class DirectReader:
    """One connection for each thread that asks; it never waits for a lock."""

    def __init__(self, settings: SqliteSettings) -> None:
        self._settings = settings
        self._connections: dict[int, sqlite3.Connection] = {}
        self._paused_until = 0.0

    def call(self, fn: Callable[[sqlite3.Connection], Any]) -> tuple[Any] | None:
        """Return `fn(connection)` in a tuple, or None if a reader thread has to do it."""
        started = time.perf_counter()
        if started < self._paused_until:
            return None
        connection = self._connections.get(threading.get_ident())
        try:
            if connection is None:
                connection = self._connect()
            found = (fn(connection),)
        except sqlite3.Error:
            # The reader thread can wait for a lock, and reports what is really wrong.
            return None
        ended = time.perf_counter()
        if ended - started > _SLOW_SECONDS:
            self._paused_until = ended + _PAUSE_SECONDS
        return found

    def close(self) -> None:
        """Close every connection; nobody may be using one."""
        for connection in self._connections.values():
            close_quietly(connection)
        self._connections.clear()

    def _connect(self) -> sqlite3.Connection:
        connection = open_reader(self._settings)
        connection.execute("PRAGMA busy_timeout=0")
        self._connections[threading.get_ident()] = connection
        return connection
