"""Calls of the MongoDB driver that nobody waits for any more."""

from __future__ import annotations

import asyncio

import pytest

from lexigram.events.exceptions import EventLoadError
from lexigram.events.stores.mongodb.errors import attempt


async def test_a_caller_that_is_cancelled_leaves_whatever_the_driver_does() -> None:
    """The call goes on to its end: `asyncio.wait_for` can lose a cancellation on Python 3.11, and leave sockets open."""
    entered, go_on = asyncio.Event(), asyncio.Event()
    calls: set[asyncio.Future[object]] = set()
    ended: list[str] = []

    async def deaf() -> None:
        entered.set()
        await go_on.wait()
        ended.append("answer")
        raise ConnectionError("nobody is told")

    task = asyncio.create_task(attempt(deaf, "reading", EventLoadError, 1.0, calls))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (len(calls), ended) == (1, [])
    go_on.set()
    await asyncio.wait(calls)
    await asyncio.sleep(0)
    assert (len(calls), ended) == (0, ["answer"])
