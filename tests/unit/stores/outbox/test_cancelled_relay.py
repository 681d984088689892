"""A relay that ends at any await loses nothing, keeps order per key, and leaves nothing stuck."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from lexigram.events import DomainEvent, SqlSagaStore
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.outbox import OutboxRelay
from lexigram.events.stores.sqlite import SqliteEventStore
from lexigram.events.testing.scheduler import simulate
from lexigram.events.testing.unreliable_broker import UnreliableBroker


class StepTaken(DomainEvent):
    """An event of these tests."""

    number: int


async def cancelled_after(turns: int, store: AbstractEventStore, poison: bool) -> bool:
    """Cancel a relay after so many turns of the event loop, let another finish, check; tell whether it was cancelled."""
    async with store, store.outbox() as box:
        for number in range(4):
            for key in ("a", "b"):
                await store.append(key, [StepTaken(number=number)])
        broker = UnreliableBroker(0.2, 0, seed=turns)
        bad = (await box.get_pending())[2].entry_id
        if poison:
            broker.refuses.add(bad)
        options = {"lease_seconds": 0.02, "backoff_seconds": 0.01}
        task = asyncio.create_task(OutboxRelay(box, broker, **options).process_pending())
        for _ in range(turns):
            await asyncio.sleep(0)
        cancelled = task.cancel()
        await asyncio.wait((task,))
        broker.refuses.clear()
        other = OutboxRelay(box, broker, **options)
        async with asyncio.timeout(30):
            while (stats := await box.stats()).waiting or stats.set_aside:
                await other.process_pending()
                await asyncio.sleep(0.005)
        firsts = {key: [e.number for e in events] for key, events in broker.first_deliveries().items()}
        assert firsts == {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}, f"cancelled after {turns} turns"
    return cancelled


@pytest.mark.parametrize("poison", [False, True])
async def test_a_relay_can_be_cancelled_at_every_await_in_memory(poison: bool) -> None:
    """The turns of the event loop are tried one after the other, until the relay ends before it is cancelled."""
    for turns in range(0, 400, 5 if poison else 1):
        if not await cancelled_after(turns, InMemoryEventStore(), poison):
            return


async def test_a_relay_can_be_cancelled_on_sqlite(tmp_path: Path) -> None:
    """The same on a file, at some of the turns."""
    for turns in (1, 3, 8, 40, 400):
        await cancelled_after(turns, SqliteEventStore(str(tmp_path / f"{turns}.db")), True)


def test_two_relays_of_one_process_never_claim_a_lane_twice() -> None:
    """Whatever the order in which their claims are taken, every entry of a claim is in it once."""

    async def main() -> list[list[str]]:
        store = InMemoryEventStore()
        async with store.outbox() as box:
            for number in range(3):
                for key in "abcdefghi":
                    await store.append(key, [StepTaken(number=number)])
            batches = await asyncio.gather(box.claim("one", 50, 30.0), box.claim("two", 50, 30.0))
            return [[entry.entry_id for entry in batch.entries] for batch in batches]

    for seed in range(10):
        first, second = simulate(main, seed=seed)
        assert len(set(first)) == len(first)
        assert len({*first, *second}) == len(first) + len(second) == 27


async def test_an_outbox_that_cannot_be_opened_gives_its_database_back(tmp_path: Path) -> None:
    """Closing the event store then ends the last user of the file: its threads are gone."""
    path = str(tmp_path / "events.db")
    async with SqliteEventStore(path) as store:
        box = store.outbox()

        async def fails() -> None:
            raise KeyError("no table")

        box._open = fails  # type: ignore[method-assign]
        with pytest.raises(KeyError):
            await box.connect()
    assert not [thread.name for thread in threading.enumerate() if path in thread.name]


async def test_a_saga_store_that_cannot_be_opened_gives_its_database_back(tmp_path: Path) -> None:
    """The same where its table is in the way."""
    path = str(tmp_path / "events.db")
    async with SqliteEventStore(path) as store:
        await store.engine.execute("CREATE VIEW event_sagas AS SELECT 1 AS saga_id")
        with pytest.raises(sqlite3.OperationalError):
            await SqlSagaStore(store).initialize()
    assert not [thread.name for thread in threading.enumerate() if path in thread.name]
