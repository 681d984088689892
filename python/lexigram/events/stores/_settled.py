"""Waiting for what must not be left half done."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

T = TypeVar("T")

_AGAIN_SECONDS = 5.0


async def settled(future: asyncio.Future[T]) -> T:
    """Wait for `future` to its end even if this task is cancelled meanwhile; the cancellation is raised afterwards.

    Used where the outcome must be known before anything else may happen: at commit and rollback.
    """
    cancelled = await outlasted(future)
    if cancelled is not None:
        raise cancelled
    return future.result()


async def outlasted(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for the success of `future` as `settled` does, and return the cancellation that came meanwhile, if any did.

    The caller raises it once he has done what has to follow the success. If `future` fails, it is raised here.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    failed = future.cancelled() or future.exception() is not None
    if failed:
        if cancelled is not None:
            raise cancelled
        future.result()
    return cancelled


def nobody_cancelled() -> bool:
    """Return whether a `CancelledError` just caught came out of the code called, because something it waited for was
    cancelled, and not from somebody who cancelled this task. Then it is a failure of that code like any other.
    """
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


def is_failure(error: BaseException) -> bool:
    """Return whether what user code has raised is a failure of that code, `Exception` or not, rather than the end of the
    program or of this task.
    """
    if isinstance(error, asyncio.CancelledError):
        return nobody_cancelled()
    return not isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


async def ended(task: asyncio.Task[Any]) -> None:
    """Wait for the end of a background task and raise what it raised; that it was cancelled is no error.

    If the caller is cancelled meanwhile, so is the task, and the cancellation is raised when the task has ended: a plain
    `await task` could not tell the two apart.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
            task.cancel()
    if not task.cancelled() and cancelled is None:
        task.result()
    if cancelled is not None:
        raise cancelled


async def stopped(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end, whatever it is; again now and then, as code inside may lose a cancellation.

    `asyncio.wait_for` does on Python 3.11 when its result comes in the same moment, and drivers use it.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_AGAIN_SECONDS)
