"""Turns the driver's errors into ours: what is the server's absence, what may have happened anyway, what is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from bson.errors import BSONError
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from lexigram.events.exceptions import (
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventStoreError,
)

T = TypeVar("T")
Failed = type[EventLoadError] | type[EventPersistenceError] | type[EventStoreConnectionError]

DRIVER_ERRORS: Final = (PyMongoError, BSONError, OverflowError)

_REFUSED: Final = frozenset({2, 9, 13, 14, 18, 20, 26, 50, 59, 72, 115, 121, 8000, 10334, 11000, 11001, 17280})
"""Codes by which a server says that it has not done what was asked and never will: bad values, no permission, too large.

Any other failure of a write may have happened behind a connection that broke on the way (FerretDB reports the loss of
its own database as an internal error), so the outcome is found out and not guessed."""

_PASSING: Final = frozenset({1, 6, 7, 8, 64, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436})
"""Codes of a server that is starting, stopping, changing its role or cut off from its own parts."""

_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0


def is_transient(error: BaseException) -> bool:
    """Tell whether the same operation may succeed when it is tried again."""
    if isinstance(error, ConnectionFailure | WriteConcernError):
        return True
    return isinstance(error, OperationFailure) and error.code in _PASSING


def is_refused(error: BaseException) -> bool:
    """Tell whether a write that failed with this certainly has not happened and never will."""
    if is_transient(error) or isinstance(error, ExecutionTimeout):
        return False
    return not isinstance(error, OperationFailure) or error.code in _REFUSED


def clear_error(
    error: BaseException, what: str, failed: Failed
) -> EventStoreError | EventLoadError | EventPersistenceError:
    """Return our error for one of the driver: what was tried, and what the driver said.

    Args:
        what: The action, as in "appending events".
        failed: Raised where the server answered with a refusal.
    """
    text = f"MongoDB: {what} failed: {_short(error)}"
    if isinstance(error, ConnectionFailure | InvalidOperation | ConfigurationError):
        return EventStoreConnectionError(text)
    return failed(text)


async def attempt(
    call: Callable[[], Awaitable[T]],
    what: str,
    failed: Failed,
    seconds: float,
    calls: set[asyncio.Future[Any]] | None = None,
) -> T:
    """Await `call()`; while the connection is lost, again, for up to `seconds`. Only for what may be done twice.

    Args:
        calls: Holds the calls under way, those that nobody waits for any more included.

    Raises:
        EventStoreConnectionError: LEX_ERR_EVT_014, the server stayed away.
    """
    end, pause = time.monotonic() + seconds, _PAUSE_SECONDS
    while True:
        try:
            return await _in_task(call, set() if calls is None else calls)
        except DRIVER_ERRORS as error:
            if not is_transient(error) or time.monotonic() + pause > end:
                raise clear_error(error, what, failed) from error
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _in_task(call: Callable[[], Awaitable[T]], calls: set[asyncio.Future[Any]]) -> T:
    """Await `call()` in a task of its own: a caller that is cancelled leaves at once, and the call goes on to its end.

    The driver can lose a cancellation (its `asyncio.wait_for` does on Python 3.11), and the caller would go on; or leave
    a socket open.
    """
    task = asyncio.ensure_future(call())
    calls.add(task)
    task.add_done_callback(calls.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # so that nobody is warned of it
        raise


def _short(error: BaseException) -> str:
    """Return what the driver said without its appendix (topology, full reply)."""
    text = str(error).split(", full error:")[0].split(", Timeout:")[0]
    return f"{type(error).__name__}: {text[:300]}"
