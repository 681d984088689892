"""The processes that the PostgreSQL tests start: they append, and report what was acknowledged."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection

from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.postgres import PostgresEventStore

WRITERS = 6


class Posted(DomainEvent):
    """One event of a batch: the batch's name, its size, and which of it this is."""

    batch: str
    size: int
    index: int


def batch(name: str, size: int) -> list[Posted]:
    """Return the events of a batch."""
    return [Posted(batch=name, size=size, index=index) for index in range(size)]


def config(url: str, schema: str) -> PostgresEventStoreConfig:
    """Return a small configuration."""
    return PostgresEventStoreConfig(dsn=url, schema_name=schema, pool_min_size=1, pool_max_size=4)


def write(url: str, schema: str, name: str, count: int) -> None:
    """Append `count` batches from several coroutines."""

    async def main() -> None:
        async with PostgresEventStore(config(url, schema)) as store:

            async def one(number: int) -> None:
                for n in range(number, count, WRITERS):
                    await store.append(f"shared-{n % 5}", batch(f"{name}/{n}", 1 + n % 3))

            await asyncio.gather(*(one(number) for number in range(WRITERS)))

    asyncio.run(main())


def write_until_killed(url: str, schema: str, name: str, acks: Connection) -> None:
    """Append batches and units of work for ever; report the name of each that was acknowledged."""

    async def main() -> None:
        async with PostgresEventStore(config(url, schema)) as store:

            async def one(number: int) -> None:
                for n in range(1_000_000):
                    key = f"{name}/{number}/{n}"
                    if n % 4 == 3:
                        async with store.unit_of_work():
                            await store.append(f"s{n % 5}", batch(key, 3))
                            await store.append(f"beside-{n % 5}", batch(f"{key}+", 1))
                    else:
                        await store.append(f"s{n % 5}", batch(key, 1 + n % 7))
                    acks.send_bytes(key.encode())

            await asyncio.gather(*(one(number) for number in range(WRITERS)))

    asyncio.run(main())
