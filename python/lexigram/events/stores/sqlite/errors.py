"""Turns the errors of SQLite that come from its surroundings into one clear error with the file and the fix.

Errors of a statement itself (a constraint, a syntax error) are the caller's and pass unchanged.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from lexigram.events.exceptions import (
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventStoreError,
)

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_REASONS: Final[dict[int, str]] = {
    sqlite3.SQLITE_FULL: "the disk is full, or the file has reached its maximum size; free space, then try again",
    sqlite3.SQLITE_READONLY: "it is read-only; make the file and its directory writable for this user",
    sqlite3.SQLITE_PERM: "access is denied; make the file and its directory writable for this user",
    sqlite3.SQLITE_IOERR: (
        "the operating system could not read or write it; check the disk, quotas and file size limits, then try again"
    ),
    sqlite3.SQLITE_NOTADB: (
        "it is not an SQLite database (or it is encrypted); choose another file name, this one was left untouched"
    ),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged; restore a backup, or salvage it with the `.recover` command of the sqlite3 shell"
    ),
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its directory exists and is writable for this user",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
    sqlite3.SQLITE_TOOBIG: "a value is larger than SQLite's limit of 1,000,000,000 bytes",
    sqlite3.SQLITE_PROTOCOL: "its locks do not work; do not put it on a network file system",
    sqlite3.SQLITE_NOLFS: "it is larger than this file system allows",
}


def is_busy(error: BaseException) -> bool:
    """Tell whether another connection held the lock."""
    return isinstance(error, sqlite3.Error) and _code(error) in _BUSY


def environment_error(
    error: BaseException, path: str, failed: type[EventStoreError] | type[EventPersistenceError] | type[EventLoadError]
) -> Exception | None:
    """Return the error to raise instead of `error`, or None if `error` is not about the file or the machine.

    Args:
        failed: What failed: `EventStoreConnectionError`, `EventPersistenceError` or `EventLoadError`.
    """
    if not isinstance(error, sqlite3.Error):
        return None
    code = _code(error)
    if code in _BUSY:
        translated: Exception = EventStoreConnectionError(
            f"SQLite file {path}: another process holds its lock; retry, or raise sqlite busy_timeout ({error})"
        )
    elif code in _REASONS:
        translated = failed(f"SQLite file {path}: {_REASONS[code]} ({error})")
    else:
        return None
    translated.__cause__ = error
    return translated


def write_error(error: BaseException, path: str) -> BaseException:
    """Return what a failed write raises: the clear error where the environment is at fault, else `error` itself."""
    return environment_error(error, path, EventPersistenceError) or error


def read_error(error: BaseException, path: str) -> BaseException:
    """Return what a failed read raises: the clear error where the environment is at fault, else `error` itself."""
    if isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_READONLY:
        refused = EventStoreError("a reading connection cannot write; use execute() or run()")
        refused.__cause__ = error
        return refused
    return environment_error(error, path, EventLoadError) or error


def _code(error: sqlite3.Error) -> int | None:
    """Return the primary result code; extended ones keep it in the low byte. None where Python raised by itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
