"""How the committer lays out batches, on a server and a clock that are played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lexigram.events.messages.codec import EncodedEvent
from lexigram.events.stores.postgres import committer as module
from lexigram.events.stores.postgres.committer import Committer
from lexigram.events.stores.postgres.requests import AppendRequest

WRITERS, TURNS = 64, 12


class Clock:
    """The time, and how much of it the event loop's thread has worked; both advance only as told."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.used = 1000.0, 1.0
        patch.setattr(module, "monotonic", lambda: self.now)
        patch.setattr(module, "thread_time", lambda: self.used)

    def work(self, seconds: float) -> None:
        """Keep the thread busy for so long."""
        self.now += seconds
        self.used += seconds


async def batches(clock: Clock, work: float, commit: Callable[[int], float]) -> list[int]:
    """Return the sizes of the batches of 64 writers.

    Args:
        work: Seconds that this process works for each append.
        commit: Returns how many seconds the server takes for a commit of so many.
    """
    sizes: list[int] = []

    async def call(_: Any, __: bool, arrays: tuple[Sequence[Any], ...]) -> Any:
        started, count = clock.now, len(arrays[4])
        sizes.append(count)
        for _turn in range(5):  # meanwhile the callers of the other half work
            await asyncio.sleep(0)
        clock.now = max(clock.now, started + commit(count))
        return [0] * count, [1] * count, [1] * count, 0, None, None, None

    async def connect() -> str:
        return "a connection"

    async def disconnect(_: Any, __: bool) -> None:
        return None

    async def never(_: Any, __: tuple[Any, ...]) -> None:
        raise AssertionError

    committer = Committer(
        connect, disconnect, call, never, binary=True, where="", reconnect_seconds=0, committed=lambda _: None
    )
    committer.start(await connect())

    async def write(writer: int) -> None:
        for turn in range(TURNS):
            clock.work(work)
            event = EncodedEvent(bytes([writer, turn] * 8), "Type", "Type", 0, (), b"{}")
            await committer.append(AppendRequest(f"s{writer}", [event], None, None))

    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    await committer.stop()
    return sizes


@pytest.mark.parametrize("per_append", [10e-6, 20e-6, 27e-6])
async def test_client_and_server_take_turns_with_halves(monkeypatch: pytest.MonkeyPatch, per_append: float) -> None:
    """Where both work on each append; also where the server works longer on one, as it does with tags."""
    sizes = await batches(Clock(monkeypatch), 20e-6, lambda count: 250e-6 + count * per_append)
    assert set(sizes[3:]) == {WRITERS // 2}


async def test_a_commit_that_takes_long_is_one_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk or network: halves would wait for it twice."""
    sizes = await batches(Clock(monkeypatch), 20e-6, lambda count: 10e-3 + count * 20e-6)
    assert set(sizes) == {WRITERS}


async def test_halves_are_joined_when_the_disk_becomes_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although one half is always on its way."""
    clock = Clock(monkeypatch)
    begun = clock.now
    sizes = await batches(clock, 20e-6, lambda count: (10e-3 if clock.now > begun + 0.01 else 250e-6) + count * 20e-6)
    assert WRITERS // 2 in sizes
    assert sizes[-2:] == [WRITERS] * 2
