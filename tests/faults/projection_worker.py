"""A process that runs its share of the projections of one database until it is ended; killed and stopped by a test."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from lexigram.events import PostgresEventStore, ProjectionConfig, ProjectionManager, SqliteEventStore
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.registry import event_type
from lexigram.events.projections.durable import DurableProjection

LEASE_SECONDS = 0.6


@event_type("workers.moved")
class Moved(DomainEvent):
    account: str
    amount: int


class Balances(DurableProjection):
    """Adds amounts up, which shows an event applied twice or not at all."""

    name = "balances"
    handles = (Moved,)
    tables = ("balances",)
    schema = ("CREATE TABLE IF NOT EXISTS balances (account TEXT PRIMARY KEY, amount BIGINT, moves BIGINT)",)

    async def handle_event(self, event: Moved) -> None:
        await self.db.execute(
            "INSERT INTO balances AS b VALUES ($1, $2, 1) "
            "ON CONFLICT (account) DO UPDATE SET amount = b.amount + excluded.amount, moves = b.moves + 1",
            event.account,
            event.amount,
        )


class Count(DurableProjection):
    """Moves per account. Each partition has rows of its own: two that share one would wait for each other."""

    name = "count"
    handles = (Moved,)
    tables = ("counts",)
    schema = ("CREATE TABLE IF NOT EXISTS counts (account TEXT PRIMARY KEY, moves BIGINT)",)

    async def handle_event(self, event: Moved) -> None:
        sql = "INSERT INTO counts AS c VALUES ($1, 1) ON CONFLICT (account) DO UPDATE SET moves = c.moves + 1"
        await self.db.execute(sql, event.account)


def open_store(backend: str, where: str) -> Any:
    """Return the store on an address: a file, or URL and schema."""
    if backend == "sqlite":
        return SqliteEventStore(where)
    url, schema = where.split("|")
    return PostgresEventStore(PostgresEventStoreConfig(dsn=url, schema_name=schema, pool_min_size=1, pool_max_size=4))


def manager(store: Any, partitions: int) -> ProjectionManager:
    """Return a worker of the group, with both projections."""
    config = ProjectionConfig(shared=True, partitions=partitions, lease_seconds=LEASE_SECONDS, batch_size=20)
    found = ProjectionManager(store, config=config)
    for projection in (Balances(), Count()):
        found.register(projection)
    return found


async def main(backend: str, where: str, partitions: int) -> None:
    """Work until the input is closed."""
    async with open_store(backend, where) as store, manager(store, partitions):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
