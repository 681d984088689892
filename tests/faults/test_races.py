"""Many coroutines and several stores race on one stream, on every backend: one winner for each version."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import ConcurrencyError
from tests.backends import BACKENDS, address, open_store
from tests.faults.batches import batch, check_log

COROUTINES = 64
WINS = 3


async def race(first: Any, second: Any) -> None:
    """Have all append to one stream by optimistic concurrency until each has won three times."""
    winners: dict[int, str] = {}
    conflicts = 0

    async def run(number: int) -> None:
        nonlocal conflicts
        store = (first, second)[number % 2]
        won, version = 0, 0
        while won < WINS:
            try:
                name = f"{number}.{won}"
                stored = await store.append("hot", batch(name, 1), expected_version=version)
            except ConcurrencyError as error:
                assert error.expected_version == version
                assert error.actual_version is not None
                assert error.actual_version > version
                conflicts, version = conflicts + 1, error.actual_version
            else:
                assert stored == version + 1
                assert stored not in winners, "nobody else was told that this version is theirs"
                winners[stored] = name
                won, version = won + 1, stored
            await asyncio.sleep(0)

    async with first, second:
        await asyncio.gather(*(run(number) for number in range(COROUTINES)))
        assert conflicts > COROUTINES, "they did race"
        events = await first.read("hot")
        assert {event.version: event.batch for event in events} == winners
        assert len(events) == COROUTINES * WINS, "the sum of the successes"
        await check_log(second)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_of_64_racing_coroutines_one_wins_each_version(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Losers get both versions and try again, the winner is told the next one, and nobody has won twice."""
    where = address(backend, request, tmp_path, 93)
    first = open_store(backend, where)
    await race(first, first if backend == "memory" else open_store(backend, where))
