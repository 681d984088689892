"""What writer processes of the MongoDB tests do."""

from __future__ import annotations

import asyncio

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.mongodb.config import MongoDBConfig
from lexigram.events.stores.mongodb.event_store import MongoDBEventStore

EACH = 40
RACES = 8


class Counted(DomainEvent):
    """Says who wrote it and which of that writer's events it is."""

    writer: str
    number: int


def a_store(url: str, database: str) -> MongoDBEventStore:
    """Return a store with a connection of its own."""
    return MongoDBEventStore(None, MongoDBConfig(uri=url, database=database, max_pool_size=4))


async def write(url: str, database: str, name: str) -> None:
    """Append `EACH` events from four coroutines to streams that all writers share."""
    async with a_store(url, database) as store:

        async def one(part: int) -> None:
            for number in range(part, EACH, 4):
                await store.append(f"shared-{number % 3}", [Counted(writer=f"{name}{part}", number=number)])

        await asyncio.gather(*(one(part) for part in range(4)))


async def race(url: str, database: str, name: str) -> None:
    """Increase one counter stream by optimistic concurrency, again and again."""
    async with a_store(url, database) as store:
        won = 0
        while won < RACES:
            version = await store.get_stream_version("counter")
            try:
                await store.append("counter", [Counted(writer=name, number=won)], expected_version=version)
            except ConcurrencyError as error:
                assert error.expected_version == version
                assert (error.actual_version or 0) > version
            else:
                won += 1


def work(url: str, database: str, name: str) -> None:
    """The whole of a writer process."""
    asyncio.run(write(url, database, name))
    asyncio.run(race(url, database, name))
