"""Three stores and twelve coroutines do everything at once to a few streams; afterwards every promise is checked."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.testing.samples import ItemAdded, ItemRemoved
from tests.faults.mongo_writer import a_store

QUERY = EventQuery(tags="x")


class Storm:
    """What was done, as far as it was acknowledged."""

    def __init__(self, stores: list[Any], seconds: float, seed: int) -> None:
        self.stores = stores
        self.end = time.monotonic() + seconds
        self.chance = random.Random(seed)
        self.stored: list[Any] = []
        self.decided: list[tuple[int, int]] = []

    def events(self) -> list[Any]:
        """Return one to five fresh events with any of three tags."""
        chance = self.chance
        made = []
        for _ in range(chance.choice((1, 1, 2, 5))):
            tags = tuple(chance.sample(["x", "y", "z"], chance.randrange(3)))
            made.append(chance.choice((ItemAdded, ItemRemoved))(sku=uuid4().hex, tags=tags))
        return made

    async def work(self, number: int) -> None:
        """Append in a random way until time is up."""
        ways = (self.plain, self.expecting, self.deciding, self.together, self.twice, self.cancelled)
        while time.monotonic() < self.end:
            events = self.events()
            try:
                await self.chance.choice(ways)(number, f"s{self.chance.randrange(4)}", events)
            except ConcurrencyError:
                continue
            self.stored += events

    async def plain(self, number: int, stream: str, events: list[Any]) -> None:
        await self.stores[number % 3].append(stream, events)

    async def expecting(self, number: int, stream: str, events: list[Any]) -> None:
        version = await self.stores[number % 3].get_stream_version(stream)
        assert await self.stores[number % 3].append(stream, events, version) == version + len(events)

    async def deciding(self, number: int, stream: str, events: list[Any]) -> None:
        head = await self.stores[number % 3].head()
        await self.stores[number % 3].append(stream, events, condition=AppendCondition(QUERY, head))
        self.decided.append((head, events[0].sequence_number))

    async def together(self, number: int, stream: str, events: list[Any]) -> None:
        beside = self.events()
        async with self.stores[number % 3].unit_of_work():
            await self.stores[number % 3].append(stream, events)
            await self.stores[number % 3].append(f"beside-{stream}", beside)
        assert beside[0].sequence_number == events[-1].sequence_number + 1
        self.stored += beside

    async def twice(self, number: int, stream: str, events: list[Any]) -> None:
        copies = [type(e)(sku=e.sku, tags=e.tags, event_id=e.event_id, occurred_at=e.occurred_at) for e in events]
        await asyncio.gather(
            self.stores[number % 3].append(stream, events), self.stores[(number + 1) % 3].append(stream, copies)
        )
        assert [e.sequence_number for e in copies] == [e.sequence_number for e in events]

    async def cancelled(self, number: int, stream: str, events: list[Any]) -> None:
        task = asyncio.create_task(self.stores[number % 3].append(stream, events))
        await asyncio.sleep(self.chance.random() * 0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self.stores[number % 3].append(stream, events)

    async def check(self) -> None:
        """Compare everything acknowledged with everything stored, documents included."""
        events = [event async for event in self.stores[0].stream_all(batch_size=500)]
        assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
        where = {event.event_id: event.sequence_number for event in events}
        assert len(where) == len(events), "every event is there once"
        assert all(where[event.event_id] == event.sequence_number for event in self.stored)
        tags = {event.sequence_number: event.tags for event in events}
        for head, position in self.decided:
            assert not any("x" in tags[between] for between in range(head + 1, position)), "conditions held"
        last, streams = 0, defaultdict[str, list[int]](list)
        for commit in await self.stores[0].events.find({}, sort=[("_id", 1)]).to_list(None):
            assert (commit["_id"], commit["q"]) == (last + 1, last + len(commit["e"])), "commits are a chain"
            last = commit["q"]
            for event in commit["e"]:
                streams[event["s"]].append(event["v"])
        for stream, versions in streams.items():
            assert versions == list(range(1, len(versions) + 1)), stream


async def run(url: str, seconds: float, seed: int) -> None:
    """Let it storm in a database of its own."""
    name = f"lx_{uuid4().hex}"
    stores = [a_store(url, name) for _ in range(3)]
    try:
        for store in stores:
            await store.connect()
        storm = Storm(stores, seconds, seed)
        await asyncio.gather(*map(storm.work, range(12)))
        assert storm.stored
        await storm.check()
    finally:
        for store in stores:
            await store.close()
        async with AsyncMongoClient[Any](url) as client:
            await client.drop_database(name)


async def test_everything_at_once_keeps_every_promise(mongo_url: str) -> None:
    """Plain, expecting, conditional, doubled, cancelled and joint appends of three stores."""
    await run(mongo_url, 3.0, seed=7)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_everything_at_once_for_long(mongo_url: str) -> None:
    """The same for ten minutes, another way each time."""
    await run(mongo_url, 600.0, seed=time.time_ns())
