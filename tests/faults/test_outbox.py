"""Two relay processes, a broker that fails one time in three, and kill -9: at least once, in order per key."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults import outbox_relay
from tests.faults.outbox_relay import Relayed, make_store
from tests.postgres_schemas import RUN, EmptySchemas

pytestmark = pytest.mark.asyncio
KEYS = 10
METHOD = "spawn" if sys.platform == "win32" else "forkserver"


def start(*arguments: Any) -> Any:
    """Start a relay process."""
    context = multiprocessing.get_context(METHOD)
    process = context.Process(target=outbox_relay.main, args=arguments, daemon=True)
    process.start()
    return process


async def relay_and_kill(backend: str, where: str, path: Path, per_key: int, kills: int, seed: int) -> None:
    """Append while two relays run and are killed and replaced; then compare what arrived with what was appended."""
    chance = random.Random(seed)
    async with make_store(backend, where) as store, store.outbox() as box:
        relays = [start(backend, where, str(path), seed + number) for number in range(2)]
        try:
            pause = asyncio.create_task(append(store, per_key))
            for kill in range(kills):
                await asyncio.sleep(chance.uniform(0.3, 0.9))
                victim = chance.randrange(2)
                relays[victim].kill()
                relays[victim].join()
                relays[victim] = start(backend, where, str(path), seed + 10 + kill)
            await pause
            deadline = time.monotonic() + 120
            while (stats := await box.stats()).waiting or stats.set_aside:
                assert time.monotonic() < deadline, f"not delivered: {stats}"
                await asyncio.sleep(0.1)
        finally:
            for relay in relays:
                relay.kill()
                relay.join()
        check(path, {str(event.event_id) async for event in store.stream_all()}, per_key)


async def append(store: Any, per_key: int) -> None:
    """Append one event per key, again and again."""
    for number in range(per_key):
        await asyncio.gather(*(store.append(f"key-{key}", [Relayed(number=number)]) for key in range(KEYS)))
        await asyncio.sleep(0.005)


def check(path: Path, ids: set[str], per_key: int) -> None:
    """Every event arrived; first arrivals are in order per key; what came twice has the same id."""
    first: dict[str, list[int]] = {}
    seen: set[str] = set()
    for line in path.read_text().splitlines():
        key, entry_id, number = line.split(" ")
        if entry_id not in seen:
            seen.add(entry_id)
            first.setdefault(key, []).append(int(number))
    assert seen == ids
    assert first == {f"key-{key}": list(range(per_key)) for key in range(KEYS)}


async def test_sqlite_relays_survive_kills(tmp_path: Path) -> None:
    """On one SQLite file."""
    await relay_and_kill("sqlite", str(tmp_path / "events.db"), tmp_path / "arrived", 40, 2, seed=1)


async def test_postgres_relays_survive_kills(tmp_path: Path, postgres_url: str) -> None:
    """On one PostgreSQL database."""
    config = EmptySchemas(postgres_url, purpose="relay").config()
    where = f"{postgres_url} {config.schema_name}"
    await relay_and_kill("postgres", where, tmp_path / "arrived", 40, 2, seed=2)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
async def test_many_kills(tmp_path: Path, postgres_url: str, seed: int) -> None:
    """Longer, with other seeds."""
    await relay_and_kill("sqlite", str(tmp_path / "events.db"), tmp_path / "arrived", 300, 15, seed=seed * 100)
    where = f"{postgres_url} soak_{RUN}_{seed}"
    await relay_and_kill("postgres", where, tmp_path / "arrived-too", 300, 15, seed=seed * 100)
