"""Turns the driver's errors into ours, and tells which of them may pass if one tries again."""

from __future__ import annotations

from typing import Any

from redis import exceptions

from lexigram.events.exceptions import (
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventStoreError,
)

FAILURES = (exceptions.RedisError, OSError, TimeoutError)
"""Everything that the driver raises for reasons outside the program."""

_LOST = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    OSError,
    TimeoutError,
)
_FINAL = (exceptions.AuthenticationError, exceptions.AuthorizationError)


def may_pass(error: BaseException) -> bool:
    """Tell whether the server was out of reach or not ready, so that the same call may succeed soon."""
    if isinstance(error, _FINAL):
        return False
    return isinstance(error, _LOST) or str(error).startswith(("BUSY ", "LOADING", "MASTERDOWN", "CLUSTERDOWN"))


def clear_error(error: BaseException, what: str, *, writing: bool = False) -> EventStoreError | Any:
    """Return what is raised instead of a driver's error.

    Args:
        what: Where it happened: address and namespace, without credentials.
        writing: Whether something was to be changed, which then may or may not have happened if the link was lost.
    """
    if isinstance(error, exceptions.ClusterCrossSlotError):
        clear: Any = EventStoreError(f"{what}: keys lie in several slots; let no proxy change the keys ({error})")
    elif may_pass(error) or isinstance(error, _FINAL):
        unknown = "; whether it was stored is unknown, and the same events can be appended again" if writing else ""
        clear = EventStoreConnectionError(f"{what}: {_text(error)}{unknown}")
    elif isinstance(error, exceptions.OutOfMemoryError) or "OOM" in str(error):
        clear = EventPersistenceError(f"{what}: memory is full (maxmemory); nothing was written ({error})")
    elif str(error).startswith("MISCONF"):
        clear = EventPersistenceError(f"{what}: the server cannot write to its disk; nothing was written ({error})")
    elif writing:
        clear = EventPersistenceError(f"{what}: {_text(error)}")
    else:
        clear = EventLoadError(f"{what}: {_text(error)}")
    clear.__cause__ = error
    return clear


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
