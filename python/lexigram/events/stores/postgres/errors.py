"""Turns the driver's errors into ours. Source: postgresql.org/docs/current/errcodes-appendix.html."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from lexigram.events.exceptions import (
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventStoreError,
    EventValidationError,
    SerializationError,
)
from lexigram.events.stores.postgres.append_function import FOREIGN_ROW, NO_HEAD, WRONG_ISOLATION

if TYPE_CHECKING:
    Failure = type[EventStoreError] | type[EventPersistenceError] | type[EventLoadError]

_LOST_CLASSES: Final = ("08", "57P")
_UNUSABLE: Final = frozenset({"53300", "3D000", "28000", "28P01", "25P03", "25P04"})
_AGAIN: Final = frozenset({"40001", "40P01"})
LOCK_NOT_AVAILABLE: Final = "55P03"
UNIQUE_VIOLATION: Final = "23505"
ABORTED: Final = "25P02"

_HINTS: Final = {
    FOREIGN_ROW: "only this library may write to its tables; remove the row or restore a backup",
    WRONG_ISOLATION: "remove default_transaction_isolation from the database, the role and the server's configuration",
    NO_HEAD: "restore a backup; without it positions cannot be given",
    UNIQUE_VIOLATION: "only this library may write to its tables; nothing was written",
    LOCK_NOT_AVAILABLE: "another writer held the log's lock too long; keep units of work short or raise lock_timeout",
    "57014": "the statement took longer than command_timeout; nothing was written",
    "53100": "the server's disk is full; free space, then try again",
    "25006": "the server is read-only, perhaps a standby; connect to the primary",
    "42501": "the role lacks a privilege on the tables",
    "42P01": "a table is missing; connect() creates it",
    "42883": "a function is missing; connect() creates it",
}


def is_lost(error: BaseException) -> bool:
    """Tell whether the connection is gone or was never there, so that the outcome of a statement is not known."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "").startswith(_LOST_CLASSES)
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, asyncpg.DataError)
    if isinstance(error, asyncpg.InternalClientError):
        # The driver's way of saying that a connection broke in the middle of an exchange.
        return True
    return isinstance(error, OSError | asyncio.IncompleteReadError | EOFError | TimeoutError)


def is_again(error: BaseException) -> bool:
    """Tell whether the server undid a transaction only because of its neighbours."""
    return sqlstate(error) in _AGAIN


def is_one_sided(error: BaseException) -> bool:
    """Tell whether the data of one append may be the reason, so that its neighbours could succeed without it."""
    return isinstance(error, asyncpg.DataError) or (sqlstate(error) or "").startswith(("22", "23", "54"))


def sqlstate(error: BaseException) -> str | None:
    """Return the server's code of an error, or None."""
    state: Any = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def clear_error(error: BaseException, where: str, failed: Failure) -> BaseException:
    """Return the error to raise instead of a driver's; any other error as it is.

    Args:
        where: The database as shown in messages, without secrets.
        failed: What failed: `EventStoreError`, `EventPersistenceError` or `EventLoadError`.
    """
    state = sqlstate(error)
    translated: BaseException
    if is_lost(error) or state in _UNUSABLE:
        translated = EventStoreConnectionError(f"{where} cannot be reached: {_text(error)}")
    elif state == LOCK_NOT_AVAILABLE:
        translated = EventStoreConnectionError(f"{where}: {_HINTS[state]} ({error})")
    elif state in ("22P05", "22030", "22P02") and failed is EventPersistenceError:
        translated = SerializationError(f"{where} cannot store a payload: {error}", field="payload")
    elif isinstance(error, asyncpg.DataError) and state is None:
        translated = EventValidationError(f"{where} cannot take a parameter: {error}", field="params")
    elif isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
        hint = _HINTS.get(state or "")
        translated = failed(f"{where}: {_text(error)}" + (f"; {hint}" if hint else ""))
    else:
        return error
    translated.__cause__ = error
    return translated


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
