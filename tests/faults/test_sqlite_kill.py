"""A writer process killed at a random moment loses nothing that was acknowledged and leaves nothing half done."""

from __future__ import annotations

import ast
import asyncio
import multiprocessing
import random
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from tests.faults import sqlite_writer
from tests.faults.sqlite_writer import Ack, Written

RUNS_ON_ONE_FILE = 5
METHOD = "spawn" if sys.platform == "win32" else "forkserver"


def kill_a_writer(path: str, run: int, chance: random.Random) -> list[Ack]:
    """Start a writer, kill it a random time after its first acknowledgement, return everything it acknowledged."""
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload([sqlite_writer.__name__])
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=sqlite_writer.main, args=(path, run, writing), daemon=True)
    process.start()
    writing.close()
    acks: list[Ack] = []
    end: float | None = None
    try:
        while end is None or time.monotonic() < end:
            if reading.poll(0.001 if end is not None else 30):
                acks.append(Ack(*ast.literal_eval(reading.recv_bytes().decode())))
                end = end or time.monotonic() + chance.uniform(0.0, 0.08)
    finally:
        process.kill()
        process.join()
    try:
        while True:
            acks.append(Ack(*ast.literal_eval(reading.recv_bytes().decode())))
    except (EOFError, OSError):
        reading.close()
    return acks


async def check_the_file(path: str, acks: list[Ack]) -> int:
    """Compare everything in the file with everything acknowledged; return the number of events."""
    async with SqliteEventStore(path) as store:
        events: list[Written] = [event async for event in store.stream_all(batch_size=5000)]
        head = await store.head()
        streams = {stream_id: await store.read(stream_id) for stream_id in await store.get_stream_ids()}
        check = await store.engine.fetch_one("PRAGMA integrity_check")
    assert check == ("ok",)
    assert [event.sequence_number for event in events] == list(range(1, head + 1)), "positions are gap-free"
    assert len({event.event_id for event in events}) == len(events), "every event is there once"
    for stream_id, stored in streams.items():
        assert [event.version for event in stored] == list(range(1, len(stored) + 1)), f"versions of {stream_id}"
    batches: dict[str, list[Written]] = defaultdict(list)
    for event in events:
        batches[event.batch].append(event)
    for name, batch in batches.items():
        assert [event.index for event in batch] == list(range(batch[0].size)), f"batch {name} is torn or out of order"
        assert batch[-1].sequence_number == batch[0].sequence_number + batch[0].size - 1, f"{name} is contiguous"
    for ack in acks:
        batch = batches[ack.batch]
        assert len(batch) == ack.size, f"acknowledged batch {ack.batch} is missing"
        assert (batch[-1].version, batch[-1].sequence_number) == (ack.version, ack.last_position)
        assert streams[ack.stream_id][ack.version - 1].event_id == batch[-1].event_id
    for name in batches:
        assert not name.endswith("+") or name[:-1] in batches, f"unit of work of {name} is torn"
    return len(events)


def kill_writers_of_one_file(path: str, seed: str) -> None:
    """Kill several writers in a row and check the file after every one."""
    chance, acks = random.Random(seed), []
    for run in range(RUNS_ON_ONE_FILE):
        acks += kill_a_writer(path, run, chance)
        assert asyncio.run(check_the_file(path, acks)) >= sum(ack.size for ack in acks)


def kill_many(directory: Path, kills: int, seed: object) -> None:
    """Kill `kills` writers, on several files at a time because most of the time is spent waiting for the disk."""
    with ThreadPoolExecutor(4) as threads:
        files = range(kills // RUNS_ON_ONE_FILE)
        for _ in threads.map(
            lambda file: kill_writers_of_one_file(str(directory / f"events{file}.db"), f"{seed}/{file}"), files
        ):
            pass


@pytest.mark.slow
def test_fifty_killed_writers_lose_nothing(tmp_path: Path) -> None:
    """Every acknowledged append is there once, in order; no batch is torn; positions and versions have no gap."""
    kill_many(tmp_path, 50, seed=3)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_thousand_killed_writers_lose_nothing(tmp_path: Path) -> None:
    """The same, long enough to hit rare moments: checkpoints of the log, growth of the file, first creation."""
    kill_many(tmp_path, 1000, seed=time.time_ns())
