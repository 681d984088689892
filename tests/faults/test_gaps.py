"""No reader skips an event: on every backend, while writers hold their work open, fail, and overtake each other."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import DomainEvent, event_type
from tests.backends import BACKENDS, address, open_store

EVENTS = 100_000
LONG = {"memory": 10_000_000, "sqlite": 10_000_000, "postgres": 10_000_000, "mongodb": 1_000_000, "redis": 1_000_000}


@event_type("gaps.noted")
class Noted(DomainEvent):
    number: int


async def write(store: Any, chance: random.Random, goal: int) -> None:
    """Append batches of one to five hundred events until the log is as long as it should be."""
    while await store.head() < goal:
        for _ in range(10):
            size = chance.choice([1, 1, 10, 100, 500])
            await store.append(f"s{chance.randrange(50)}", [Noted(number=n) for n in range(size)])
            await asyncio.sleep(0)


async def hold_open(store: Any, chance: random.Random, goal: int) -> int:
    """Write in units of work that are held open while others go on, every third rolled back; return the events lost so."""
    undone = 0
    for turn in itertools.count(1):
        try:
            async with store.unit_of_work():
                await store.append(f"u{chance.randrange(5)}", [Noted(number=1), Noted(number=2)])
                await asyncio.sleep(chance.uniform(0.0, 0.02))
                await store.append(f"u{chance.randrange(5)}", [Noted(number=3)])
                if turn % 3 == 0:
                    undone += 3
                    raise InterruptedError
        except InterruptedError:
            pass
        if turn >= 3 and await store.head() >= goal:
            break
        await asyncio.sleep(chance.uniform(0.02, 0.08))
    return undone


async def follow(store: Any, goal: int) -> None:
    """Read live: each position is the one after the last."""
    last = 0
    async with aclosing(store.subscribe(batch_size=500)) as events:
        async for event in events:
            assert event.sequence_number == last + 1
            last += 1
            if last >= goal:
                return


async def page(store: Any, goal: int, chance: random.Random) -> None:
    """Read pages of any size up to the head: what is at or below it never comes later."""
    last = 0
    while last < goal:
        head = await store.head()
        for event in await store.read_all(last, chance.choice([1, 7, 500, 5000])):
            assert event.sequence_number == last + 1
            last += 1
        if last < head:
            assert await store.read_all(last, 1), f"position {last + 1} cannot be read, the head was {head}"
        else:
            await asyncio.sleep(chance.uniform(0.0, 0.01))  # a reader that never rests would keep the server busy


async def storm(backend: str, where: Any, goal: int) -> None:
    """Two stores write, two of the writers hold their work open, and two read meanwhile."""
    chance = random.Random(5)
    first = open_store(backend, where, **({"max_events_per_stream": goal} if backend == "memory" else {}))
    second = first if backend == "memory" else open_store(backend, where)
    async with first, second:
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(second, goal))
            group.create_task(page(first, goal, random.Random(6)))
            for number in range(8):
                group.create_task(write((first, second)[number % 2], chance, goal))
            held = [group.create_task(hold_open((first, second)[number % 2], chance, goal)) for number in range(2)]
        assert sum(task.result() for task in held) >= 6
        assert await first.get_events_count() == await second.head()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", BACKENDS)
async def test_nothing_is_skipped_while_writers_hold_their_work_open(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Order is kept, positions have no gap, and an event at or below the head can be read."""
    await storm(backend, address(backend, request, tmp_path, 90), EVENTS)


SLOW_INSERT = """
CREATE OR REPLACE FUNCTION {schema}.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON {events} FOR EACH ROW WHEN (NEW.payload::text LIKE '%"number":-1%') EXECUTE FUNCTION {schema}.slow()
"""
SLOW_SCRIPT = """local function now() local t = redis.call('TIME'); return t[1] * 1000 + t[2] / 1000 end
local begun = now()
while now() < begun + 100 do end"""


async def append_slowly(backend: str, store: Any, stream: str) -> None:
    """Append an event by a statement that takes the server, or the one that writes to the file, a tenth of a second."""
    append = store.append(stream, [Noted(number=-1)])
    if backend == "sqlite":
        await asyncio.gather(append, store.engine.run(lambda _: time.sleep(0.1)))
    elif backend == "redis":
        await asyncio.gather(append, store.log.connection.read("EVAL", SLOW_SCRIPT, 0))
    else:
        await append


@pytest.mark.parametrize("backend", ["sqlite", "postgres", "redis"])
async def test_nothing_is_skipped_behind_a_slow_statement(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """It holds the others up or is overtaken; either way what readers have seen is followed by what comes next."""
    goal, chance = 5_000, random.Random(7)
    where = address(backend, request, tmp_path, 95)
    async with open_store(backend, where) as first, open_store(backend, where) as second:
        if backend == "postgres":
            names = first.engine.names  # type: ignore[attr-defined]
            for statement in SLOW_INSERT.format(events=names.events, schema=where.schema_name).strip().split(";\n"):
                await first.engine.execute(statement)  # type: ignore[attr-defined]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(follow(second, goal))
                group.create_task(page(first, goal, random.Random(8)))
                for number in range(4):
                    group.create_task(write((first, second)[number % 2], chance, goal))
                begun = time.monotonic()
                for number in range(6):
                    await append_slowly(backend, (first, second)[number % 2], f"slow{number}")
                assert time.monotonic() - begun >= 0.6, "they are slow"
            slow = [event for event in await first.read_all() if event.number == -1]
            assert len(slow) == 6
        finally:
            if backend == "postgres":
                await first.engine.execute(f"DROP TRIGGER slow ON {names.events}")  # type: ignore[attr-defined]


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("backend", BACKENDS)
async def test_nothing_is_skipped_in_a_long_log(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The same with millions of events."""
    await storm(backend, address(backend, request, tmp_path, 91), LONG[backend])
