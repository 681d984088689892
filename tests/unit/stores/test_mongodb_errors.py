"""Calls of the MongoDB driver."""

from __future__ import annotations

import asyncio

import pytest

from lexigram.events.exceptions import EventLoadError
from lexigram.events.stores.mongodb.errors import attempt


async def test_a_caller_that_is_cancelled_leaves_even_if_the_driver_does_not_notice() -> None:
    """As `asyncio.wait_for` does on Python 3.11 when the answer comes in the same moment."""
    entered, went_on = asyncio.Event(), asyncio.Event()

    async def deaf() -> str:
        entered.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            went_on.set()
        return "answer"

    task = asyncio.create_task(attempt(deaf, "reading", EventLoadError, 1.0))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(went_on.wait(), 1)
