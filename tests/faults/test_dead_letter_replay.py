"""A bulk replay that is killed goes on where it was, in order, without flooding the handlers."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.buses.dead_letter import DeadLetterEntry
from lexigram.events.stores.sqlite import SqliteDeadLetterStore
from tests.faults import replay_worker
from tests.faults.replay_worker import CONCURRENCY, Parked

pytestmark = pytest.mark.asyncio
LANES = 50
METHOD = "spawn" if sys.platform == "win32" else "forkserver"


async def park(database: str, count: int) -> None:
    """Store `count` pending entries of a few dozen aggregates."""
    async with SqliteDeadLetterStore(database) as letters:
        for first in range(0, count, 500):
            entries = (
                DeadLetterEntry.of(
                    Parked(aggregate_id=f"order-{number % LANES}", number=number), "app.mail", ValueError("x"), 4
                )
                for number in range(first, min(first + 500, count))
            )
            for entry in entries:
                await letters.save(entry)


async def replay_and_kill(tmp_path: Path, count: int, kills: int, wait: float) -> None:
    """Kill the replay again and again, let it end, and compare what was handled with what was parked."""
    database, path = str(tmp_path / "letters.db"), tmp_path / "handled"
    await park(database, count)
    context: Any = multiprocessing.get_context(METHOD)
    chance = random.Random(count)
    for _ in range(kills):
        process = context.Process(target=replay_worker.main, args=(database, str(path)), daemon=True)
        process.start()
        await asyncio.sleep(chance.uniform(wait, 2 * wait))
        process.kill()
        process.join()
    killed_at = len(path.read_text().splitlines()) if path.exists() else 0
    assert await replay_worker.replay(database, str(path)) <= CONCURRENCY
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    times = Counter(int(number) for _, number in lines)
    assert times.keys() == set(range(count))
    # Only what was in hand when a process was killed is handled again.
    assert len(lines) - count <= kills * CONCURRENCY
    assert killed_at <= count + kills * CONCURRENCY
    firsts: dict[str, list[int]] = {}
    for lane, number in lines:
        known = firsts.setdefault(lane, [])
        if int(number) not in known[-CONCURRENCY:]:
            known.append(int(number))
    assert all(known == sorted(known) for known in firsts.values())


async def test_a_killed_replay_goes_on(tmp_path: Path) -> None:
    """5,000 parked events, killed twice."""
    await replay_and_kill(tmp_path, 5000, 2, 0.7)


@pytest.mark.soak
@pytest.mark.timeout(7200)
async def test_380000_parked_events(tmp_path: Path) -> None:
    """As many as a bad night leaves behind."""
    await replay_and_kill(tmp_path, 380_000, 5, 20.0)
