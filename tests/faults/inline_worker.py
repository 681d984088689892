"""A process that appends with an inline projection: killed by `test_inline.py`."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

from lexigram.events import DurableProjection, ProjectionManager
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.registry import event_type
from tests.faults.projection_worker import open_store


@event_type("inline.paid")
class Paid(DomainEvent):
    account: str
    amount: int


def balances(table: str) -> DurableProjection:
    """Return the projection; a balance above 500 fails the append."""

    class Balances(DurableProjection):
        name = table
        handles = (Paid,)
        inline = True
        tables = (table,)
        schema = (f"CREATE TABLE IF NOT EXISTS {table} (account TEXT PRIMARY KEY, amount BIGINT, payments BIGINT)",)

        async def handle_event(self, event: Paid) -> None:
            if event.amount == 13:
                raise ValueError("unlucky")
            await self.db.execute(
                f"INSERT INTO {table} AS b VALUES ($1, $2, 1) ON CONFLICT (account) "
                "DO UPDATE SET amount = b.amount + excluded.amount, payments = b.payments + 1",
                event.account,
                event.amount,
            )

    return Balances()


async def append(store: Any, chance: random.Random) -> None:
    """Append for ever, several events at a time; some of them fail."""
    while True:
        account = f"a{chance.randrange(20)}"
        events = [Paid(account=account, amount=chance.randrange(14)) for _ in range(chance.randrange(1, 4))]
        try:
            await store.append(account, events)
        except Exception as error:
            if "unlucky" not in str(error):
                raise
        await asyncio.sleep(0)


async def main(backend: str, where: str, table: str) -> None:
    """Append from eight tasks until the input is closed."""
    async with open_store(backend, where) as store:
        manager = ProjectionManager(store)
        manager.register(balances(table))
        async with manager:
            print("ready", flush=True)
            tasks = [asyncio.create_task(append(store, random.Random())) for _ in range(8)]
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
