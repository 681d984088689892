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


def hold(url: str, schema: str, ready: Connection) -> None:
    """Append in a unit of work that may take a second, say so, and go on with something else."""

    async def main() -> None:
        async with PostgresEventStore(config(url, schema)) as store, store.unit_of_work(timeout_seconds=1.0):
            await store.append("held", batch("held", 1))
            ready.send_bytes(b"ready")
            await asyncio.sleep(600)

    asyncio.run(main())
