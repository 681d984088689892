"""Runs a coroutine up to its first suspension, and the rest later: no task where no handler waits.

A coroutine is always finished by the task that took its first step: `asyncio.timeout()` and task groups remember
that task. Source: findings on dispatch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from types import coroutine
from typing import Any


@coroutine
def one_turn() -> Generator[None, None, None]:
    """Let every task that is ready run once."""
    yield


@coroutine
def resume(coro: Coroutine[Any, Any, Any], yielded: Any, context: Context) -> Generator[Any, Any, Any]:
    """Finish `coro`, which has just yielded `yielded`, each of its steps in `context`."""
    run = context.run
    try:
        while True:
            try:
                value = yield yielded
            except GeneratorExit:
                run(coro.close)
                raise
            except BaseException as error:
                yielded = run(coro.throw, error)
            else:
                yielded = run(coro.send, value)
    except StopIteration as stop:
        return stop.value


@coroutine
def _resume_here(coro: Coroutine[Any, Any, Any], yielded: Any) -> Generator[Any, Any, Any]:
    """Finish `coro`, which has just yielded `yielded`, in the current context."""
    try:
        while True:
            try:
                value = yield yielded
            except GeneratorExit:
                coro.close()
                raise
            except BaseException as error:
                yielded = coro.throw(error)
            else:
                yielded = coro.send(value)
    except StopIteration as stop:
        return stop.value


async def within(coro: Coroutine[Any, Any, Any], seconds: float) -> Any:
    """Return what `coro` returns; the timer is armed only if it suspends.

    Raises:
        TimeoutError: It did not finish within `seconds` from its first suspension; it was cancelled.
    """
    try:
        yielded = coro.send(None)
    except StopIteration as stop:
        return stop.value
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            return await _resume_here(coro, yielded)
    except TimeoutError as error:
        if timer.expired():
            raise TimeoutError(f"not finished within {seconds:g} s") from error
        raise
