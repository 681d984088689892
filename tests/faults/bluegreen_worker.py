"""A process that runs versions of a read model: killed while it builds one, by `test_bluegreen.py`."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lexigram.events import DurableProjection, ProjectionConfig, ProjectionManager
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.registry import event_type
from tests.faults.projection_worker import open_store

LEASE_SECONDS = 0.6
PARTITIONS = 4


@event_type("bluegreen.moved")
class Moved(DomainEvent):
    account: str
    amount: int


def balances(backend: str, model: str, number: int) -> DurableProjection:
    """Return a version of a read model in two tables; every row says which version has made it."""
    balance, moves = model, f"{model}_moves"

    class Balances(DurableProjection):
        read_model = model
        version = number
        handles = (Moved,)
        tables = (balance, moves)
        schema = (
            f"CREATE TABLE IF NOT EXISTS {{{balance}}} (account TEXT PRIMARY KEY, amount BIGINT, made_by INTEGER)",
            f"CREATE TABLE IF NOT EXISTS {{{moves}}} (account TEXT PRIMARY KEY, amount BIGINT, made_by INTEGER)",
        )

    upsert = (
        "ON CONFLICT (account) DO UPDATE SET amount = b.amount + excluded.amount, made_by = excluded.made_by",
        f"{number}",
    )

    class SqliteBalances(Balances):
        def project_batch(self, connection: Any, events: Sequence[Moved]) -> None:
            for table, sums in added_up(events, balance, moves).items():
                sql = self.sql(f"INSERT INTO {{{table}}} AS b VALUES (?, ?, {upsert[1]}) {upsert[0]}")
                connection.executemany(sql, sums)

    class PostgresBalances(Balances):
        async def project_batch(self, connection: Any, events: Sequence[Moved]) -> None:
            for table, sums in added_up(events, balance, moves).items():
                sql = f"INSERT INTO {{{table}}} AS b SELECT *, {upsert[1]} FROM unnest($1::text[], $2::bigint[])"
                accounts, amounts = zip(*sums, strict=True)
                await connection.execute(self.sql(f"{sql} {upsert[0]}"), accounts, amounts)

    return SqliteBalances() if backend == "sqlite" else PostgresBalances()


def added_up(events: Sequence[Moved], balance: str, moves: str) -> dict[str, list[tuple[str, int]]]:
    """Return what a batch adds to the rows of both tables."""
    amounts, counts = Counter[str](), Counter[str]()
    for event in events:
        amounts[event.account] += event.amount
        counts[event.account] += 1
    return {balance: sorted(amounts.items()), moves: sorted(counts.items())}


def manager(store: Any, backend: str, model: str, versions: Sequence[int]) -> ProjectionManager:
    """Return a worker of the group with these versions."""
    config = ProjectionConfig(shared=True, partitions=PARTITIONS, lease_seconds=LEASE_SECONDS)
    found = ProjectionManager(store, config=config)
    for version in versions:
        found.register(balances(backend, model, version))
    return found


async def main(backend: str, where: str, model: str, versions: str) -> None:
    """Work until the input is closed."""
    numbers = [int(number) for number in versions.split(",")]
    async with open_store(backend, where) as store, manager(store, backend, model, numbers):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
