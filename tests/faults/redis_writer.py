"""The processes that the Redis tests start: they append, and report what was acknowledged until they are killed."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection

from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.redis.event_store import RedisEventStore

WRITERS = 6


class Noted(DomainEvent):
    """One event of a batch: the batch's name, its size, and which of it this is."""

    batch: str
    size: int
    index: int


def batch(name: str, size: int) -> list[Noted]:
    """Return the events of a batch."""
    return [Noted(batch=name, size=size, index=index) for index in range(size)]


def write(url: str, namespace: str, name: str, count: int) -> None:
    """Append `count` batches from several coroutines."""

    async def main() -> None:
        async with RedisEventStore(url, namespace) as store:

            async def one(number: int) -> None:
                for n in range(number, count, WRITERS):
                    await store.append(f"shared-{n % 5}", batch(f"{name}/{n}", 1 + n % 3))

            await asyncio.gather(*(one(number) for number in range(WRITERS)))

    asyncio.run(main())


def write_many(url: str, namespace: str, batches: int, size: int) -> None:
    """Append batches from several coroutines as fast as they go."""

    async def main() -> None:
        async with RedisEventStore(url, namespace) as store:

            async def one(number: int) -> None:
                for n in range(number, batches, WRITERS):
                    await store.append(f"s{n % 50}", batch(str(n), size))

            await asyncio.gather(*(one(number) for number in range(WRITERS)))

    asyncio.run(main())


def write_until_killed(url: str, namespace: str, name: str, acks: Connection) -> None:
    """Append batches and units of work for ever; report the name of each that was acknowledged."""

    async def main() -> None:
        async with RedisEventStore(url, namespace) as store:

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
