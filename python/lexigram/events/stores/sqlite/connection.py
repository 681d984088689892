"""Opens one configured connection. Source: sqlite.org/pragma.html, sqlite.org/wal.html."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from typing import Final

from lexigram.events.stores.sqlite.errors import is_busy
from lexigram.events.stores.sqlite.settings import SqliteSettings

_CACHED_STATEMENTS: Final = 512
_WRITER_CACHE_KIB: Final = 32_768
_READER_CACHE_KIB: Final = 8_192
_CHECKPOINT_PAGES: Final = 4_000


def open_writer(settings: SqliteSettings) -> sqlite3.Connection:
    """Open the connection that writes. It does not change the file yet; see `use_journal`."""
    connection = _open(settings)
    try:
        _configure(connection, settings, _WRITER_CACHE_KIB)
        # A larger write-ahead log writes each hot index page to the file less often; see docs/performance.
        connection.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        for name, value in settings.pragmas:
            connection.execute(f"PRAGMA {name}={value}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(settings: SqliteSettings) -> sqlite3.Connection:
    """Open a connection that cannot write."""
    connection = _open(settings)
    try:
        _configure(connection, settings, _READER_CACHE_KIB)
        for name, value in settings.pragmas:
            connection.execute(f"PRAGMA {name}={value}")
        connection.execute("PRAGMA query_only=1")
    except BaseException:
        connection.close()
        raise
    return connection


def use_journal(connection: sqlite3.Connection, settings: SqliteSettings) -> None:
    """Switch the file to the journal mode asked for; other processes may be doing the same."""
    if settings.in_memory:
        return
    deadline = time.monotonic() + settings.busy_timeout_seconds
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0].upper() == settings.journal_mode:
                return
            connection.execute(f"PRAGMA journal_mode={settings.journal_mode}")
            return
        except sqlite3.OperationalError as error:
            # The switch needs the file for itself and does not call the busy handler.
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


def close_quietly(connection: sqlite3.Connection) -> None:
    """Close the connection; a failing disk must not hide the error that led here."""
    with suppress(sqlite3.Error):
        connection.close()


def _open(settings: SqliteSettings) -> sqlite3.Connection:
    # Connections are opened, used and closed by one thread each; the flag only allows closing after that thread died.
    return sqlite3.connect(
        settings.path,
        timeout=settings.busy_timeout_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
        uri=settings.path.startswith("file:"),
    )


def _configure(connection: sqlite3.Connection, settings: SqliteSettings, cache_kib: int) -> None:
    connection.execute(f"PRAGMA cache_size=-{cache_kib}")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute(f"PRAGMA synchronous={settings.synchronous}")
