"""The processes that the Redis tests start: they append, and report what was acknowledged until they are killed."""

from __future__ import annotations

import asyncio

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
