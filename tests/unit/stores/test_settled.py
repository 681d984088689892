"""Waiting for background tasks tells their end from one's own."""

from __future__ import annotations

import asyncio

import pytest

from lexigram.events import InMemoryEventStore
from lexigram.events.stores._settled import ended, stopped
from lexigram.events.stores.outbox import OutboxRelay
from lexigram.events.testing.samples import SuiteItemAdded
from lexigram.events.testing.unreliable_broker import UnreliableBroker


async def _slow_to_end(log: list[str]) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        log.append("ended")


async def test_a_cancelled_background_task_is_no_error() -> None:
    """What was stopped on purpose has simply ended; what failed raises."""
    log: list[str] = []
    task = asyncio.create_task(_slow_to_end(log))
    await asyncio.sleep(0)
    task.cancel()
    await ended(task)
    assert log == ["ended"]

    async def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await ended(asyncio.create_task(fails()))


async def test_a_cancellation_of_the_caller_is_raised_when_the_task_has_ended() -> None:
    """It is neither swallowed nor does it leave the task behind."""
    log: list[str] = []
    task = asyncio.create_task(_slow_to_end(log))
    stopping = asyncio.create_task(ended(task))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert log == ["ended"]


async def test_stopping_a_relay_can_be_cancelled_and_leaves_none_behind() -> None:
    """The relay has ended, its publisher is closed, and the caller is cancelled."""

    class Broker(UnreliableBroker):
        is_closed = False

        async def send(self, entry: object) -> None:
            await asyncio.sleep(60)

        async def close(self) -> None:
            self.is_closed = True

    store, broker = InMemoryEventStore(), Broker()
    async with store.outbox() as box:
        before = asyncio.all_tasks()
        relay = OutboxRelay(box, broker)
        await relay.start()
        await store.append("a", [SuiteItemAdded(sku="tea")])
        await asyncio.sleep(0.01)
        stopping = asyncio.create_task(relay.stop())
        await asyncio.sleep(0.01)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert asyncio.all_tasks() == before
        assert broker.is_closed


async def test_a_task_that_loses_a_cancellation_is_stopped_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is waited for, and what it raised is its own affair."""
    monkeypatch.setattr("lexigram.events.stores._settled._AGAIN_SECONDS", 0.01)
    lost: list[int] = []

    async def deaf() -> None:
        while len(lost) < 3:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost.append(1)
        raise KeyError("in the end")

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(stopped(task), 5)
    assert task.done()
    assert isinstance(task.exception(), KeyError)
    await stopped(task)
