"""How many durable appends per second MongoDB takes, against the bare driver inserting the same documents.

Floor and store are measured in short slices, in turn, and the medians over the rounds are compared. The floor of one
writer is `insert_one` of a document of the same content into a collection with the same indexes; that of many is as
many tasks doing so at once. Run alone, with a server of its own: `python tools/services.py run mongo -- python -m
benches.mongo_rates`; or against the server that LEXIGRAM_TEST_MONGO_URL names.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from pymongo import AsyncMongoClient, WriteConcern

from benches.figures import Figure, show
from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.mongodb.config import MongoDBConfig
from lexigram.events.stores.mongodb.documents import INDEXES
from lexigram.events.stores.mongodb.event_store import MongoDBEventStore

ROUNDS = 5
SECONDS = 0.4
NOTE = "a payload of about two hundred bytes in all, which is what events of real programs tend to have"
WRITERS = (1, 8, 64)


class LinePlaced(DomainEvent):
    """An event of ordinary size."""

    order: str
    number: int
    note: str


def mongo_rates(url: str, rounds: int = ROUNDS) -> dict[str, Any]:
    """Return medians over the rounds, appends per second: for each number of writers the driver's floor and ours."""
    return asyncio.run(_measure(url, rounds))


async def _measure(url: str, rounds: int) -> dict[str, Any]:
    name = f"lx_bench_{uuid4().hex}"
    found: dict[int, dict[str, list[float]]] = {writers: {"floor": [], "ours": []} for writers in WRITERS}
    async with AsyncMongoClient[Any](url, maxPoolSize=64) as client:
        try:
            floor = client[name].get_collection("floor", write_concern=WriteConcern("majority", j=True))
            for keys, options in INDEXES:
                await floor.create_index(keys, **options)
            async with MongoDBEventStore(None, MongoDBConfig(uri=url, database=name)) as store:
                await store.append("template", [_event(0)])
                template = await store.events.find_one({})
                positions = itertools.count(1)

                async def insert(writer: int, number: int) -> None:
                    await floor.insert_one(_document(template, next(positions), writer, number))

                async def append(writer: int, number: int) -> None:
                    await store.append(f"order-{writer}", [_event(number)])

                for _ in range(rounds):
                    for writers in WRITERS:
                        found[writers]["floor"].append(await _slice(writers, insert))
                        found[writers]["ours"].append(await _slice(writers, append))
        finally:
            await client.drop_database(name)
    return {
        f"{writers} writers": {way: round(statistics.median(rates)) for way, rates in ways.items()}
        for writers, ways in found.items()
    }


def _event(number: int) -> LinePlaced:
    return LinePlaced(order="o-1", number=number, note=NOTE)


def _document(template: dict[str, Any], position: int, writer: int, number: int) -> dict[str, Any]:
    """Return a commit of one event that differs from the template in everything that is indexed."""
    stream_id, version = f"order-{writer}", position
    event = {**template["e"][0], "i": uuid4().bytes, "s": stream_id, "v": version, "p": position}
    append = {"s": stream_id, "v": version, "l": version}
    return {**template, "_id": position, "q": position, "a": [append], "e": [event]}


async def _slice(writers: int, write: Callable[[int, int], Awaitable[None]]) -> float:
    """Return writes per second of as many tasks in one short slice."""
    end, done = time.perf_counter() + SECONDS, 0

    async def one(writer: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await write(writer, done)
            done += 1

    start = time.perf_counter()
    await asyncio.gather(*map(one, range(writers)))
    return done / (time.perf_counter() - start)


def main() -> None:
    """Print one line for each number of writers."""
    url = os.environ.get("LEXIGRAM_TEST_MONGO_URL")
    if not url:
        raise SystemExit("run: python tools/services.py run mongo -- python -m benches.mongo_rates")
    for name, rates in mongo_rates(url).items():
        print(f"{name}: driver {rates['floor']:,}/s, store {rates['ours']:,}/s")
        ratio = rates["ours"] / rates["floor"]
        show(Figure(f"MongoDB: appends, {name}, against the bare driver", ratio, "x", at_least=0.5))


if __name__ == "__main__":
    main()
