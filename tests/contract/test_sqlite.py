"""The SQLite stores keep every promise of the contract suites: in a file, in memory, and with binary payloads."""

from __future__ import annotations

import asyncio
from contextvars import Context
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.sqlite.checkpoint_store import SqliteCheckpointStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.stores.sqlite.idempotency_store import SqliteIdempotencyStore
from lexigram.events.stores.sqlite.snapshot_store import SqliteSnapshotStore
from lexigram.events.testing.checkpoint_store import CheckpointStoreContract, IdempotencyStoreContract
from lexigram.events.testing.event_store import DurableEventStoreContract, EventStoreContract
from lexigram.events.testing.samples import added, positions
from lexigram.events.testing.snapshot_store import SnapshotStoreContract


class OwnFile:
    """Gives each store of a test a file of its own."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.paths = (str(tmp_path / f"events{number}.db") for number in count())


class TestSqliteEventStore(OwnFile, DurableEventStoreContract):
    async def make_store(self, **options: Any) -> SqliteEventStore:
        return SqliteEventStore(next(self.paths), **options)

    async def reopen(self, store: Any) -> SqliteEventStore:
        await store.close()
        return SqliteEventStore(store.database.path)


class TestSqliteEventStoreWithBinaryPayloads(OwnFile, EventStoreContract):
    async def make_store(self, **options: Any) -> SqliteEventStore:
        return SqliteEventStore(next(self.paths), codec=EventCodec(format="binary"), **options)


class TestSqliteEventStoreInMemory(EventStoreContract):
    async def make_store(self, **options: Any) -> SqliteEventStore:
        return SqliteEventStore(":memory:", **options)

    async def test_appends_become_visible_together_at_the_end(self, store: AbstractEventStore) -> None:
        """There is one connection, so the block itself sees its events; nobody else gets a turn before its end."""
        events = added("1", "2")
        async with store.unit_of_work():
            await store.append("a", events)
            outside = asyncio.create_task(store.head(), context=Context())
            assert await store.head() == 2
            await asyncio.sleep(0.02)
            assert not outside.done()
            assert events[0].sequence_number is None
        assert await outside == 2
        assert positions(events) == [1, 2]


class TestSqliteSnapshotStore(OwnFile, SnapshotStoreContract):
    async def make_store(self) -> SqliteSnapshotStore:
        return SqliteSnapshotStore(next(self.paths))


class TestSqliteCheckpointStore(OwnFile, CheckpointStoreContract):
    async def make_store(self) -> SqliteCheckpointStore:
        return SqliteCheckpointStore(next(self.paths))


class TestSqliteIdempotencyStore(OwnFile, IdempotencyStoreContract):
    async def make_store(self) -> SqliteIdempotencyStore:
        return SqliteIdempotencyStore(next(self.paths))
