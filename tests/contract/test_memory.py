"""The in-memory stores keep every promise of the contract suites."""

from __future__ import annotations

from typing import Any

from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.stores.idempotency import InMemoryIdempotencyStore
from lexigram.events.stores.memory import InMemoryEventStore, InMemorySnapshotStore
from lexigram.events.testing.checkpoint_store import CheckpointStoreContract, IdempotencyStoreContract
from lexigram.events.testing.event_store import EventStoreContract
from lexigram.events.testing.snapshot_store import SnapshotStoreContract


class TestInMemoryEventStore(EventStoreContract):
    async def make_store(self, **options: Any) -> InMemoryEventStore:
        return InMemoryEventStore(**options)


class TestInMemorySnapshotStore(SnapshotStoreContract):
    async def make_store(self) -> InMemorySnapshotStore:
        return InMemorySnapshotStore()


class TestInMemoryCheckpointStore(CheckpointStoreContract):
    async def make_store(self) -> InMemoryCheckpointStore:
        return InMemoryCheckpointStore()


class TestInMemoryIdempotencyStore(IdempotencyStoreContract):
    async def make_store(self) -> InMemoryIdempotencyStore:
        return InMemoryIdempotencyStore()
