"""The process that the crash tests kill: several coroutines append batches and report every acknowledged one."""

from __future__ import annotations

import asyncio
import random
from multiprocessing.connection import Connection
from typing import NamedTuple

from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.sqlite.event_store import SqliteEventStore

WRITERS = 8


class Written(DomainEvent):
    """One event of a batch: the batch's name, its size, and which of it this is."""

    batch: str
    size: int
    index: int


class Ack(NamedTuple):
    """What the store answered."""

    stream_id: str
    batch: str
    size: int
    version: int
    last_position: int


def main(path: str, run: int, acks: Connection) -> None:
    """Append until killed."""
    asyncio.run(_write(path, run, acks))


async def _write(path: str, run: int, acks: Connection) -> None:
    async with SqliteEventStore(path) as store:
        await asyncio.gather(*(_writer(store, run, number, acks) for number in range(WRITERS)))


async def _writer(store: SqliteEventStore, run: int, number: int, acks: Connection) -> None:
    chance = random.Random(f"{run}/{number}")
    # Streams are shared by writers and by later runs, so that numbering goes on across crashes.
    for count in range(1_000_000):
        stream_id = f"s{chance.randrange(12)}"
        batch, size = f"{run}/{number}/{count}", chance.choice((1, 1, 2, 5, 40))
        events = [Written(batch=batch, size=size, index=index) for index in range(size)]
        if chance.random() < 0.2:
            async with store.unit_of_work():
                version = await store.append(stream_id, events)
                await store.append(f"beside-{stream_id}", [Written(batch=f"{batch}+", size=1, index=0)])
        else:
            version = await store.append(stream_id, events)
        acks.send_bytes(repr(tuple(Ack(stream_id, batch, size, version, events[-1].sequence_number or 0))).encode())
