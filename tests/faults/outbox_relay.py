"""The relay process that the outbox tests kill: delivers to a file, failing one time in three."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.outbox import AbstractOutboxPublisher, OutboxEntry, OutboxRelay


class Relayed(DomainEvent):
    """What is delivered."""

    number: int


class FileBroker(AbstractOutboxPublisher):
    """Writes a line per delivery; one in three fails, half of those after the line was written."""

    def __init__(self, path: str, seed: int) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._random = random.Random(seed)

    async def send(self, entry: OutboxEntry) -> None:
        """Write the line, in one call, so that lines of several processes do not mix."""
        fails = self._random.random() < 1 / 3
        if fails and self._random.random() < 0.5:
            raise RuntimeError("refused")
        os.write(self._file, f"{entry.key} {entry.entry_id} {entry.event.number}\n".encode())
        await asyncio.sleep(0)
        if fails:
            raise RuntimeError("confirmation lost")


def make_store(backend: str, where: str) -> Any:
    """Return the event store of a backend: a path, or DSN and schema with a space between."""
    if backend == "sqlite":
        from lexigram.events.stores.sqlite import SqliteEventStore

        return SqliteEventStore(where)
    from lexigram.events.config import PostgresEventStoreConfig
    from lexigram.events.stores.postgres import PostgresEventStore

    dsn, schema = where.split(" ")
    return PostgresEventStore(PostgresEventStoreConfig(dsn=dsn, schema_name=schema, pool_min_size=1))


def main(backend: str, where: str, path: str, seed: int) -> None:
    """Relay until killed."""
    asyncio.run(_relay(backend, where, path, seed))


async def _relay(backend: str, where: str, path: str, seed: int) -> None:
    async with make_store(backend, where) as store:
        options: dict[str, Any] = {"lease_seconds": 1.0, "backoff_seconds": 0.02, "poll_interval": 0.1}
        relay = OutboxRelay(store.outbox(), FileBroker(path, seed), batch_size=40, **options)
        await relay.start()
        await asyncio.Event().wait()
