"""The stores that go with an event store: choosing a backend chooses it for all of them.

The functions import inside themselves: only the backend that was chosen is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexigram.events.buses.dead_letter import DeadLetterStore
    from lexigram.events.config import EventsConfig
    from lexigram.events.sagas.store import SagaStore
    from lexigram.events.stores._snapshots import AbstractSnapshotStore
    from lexigram.events.stores.base import AbstractCheckpointStore, AbstractEventStore, AbstractIdempotencyStore

__all__ = [
    "COMPANIONS",
    "StoreSet",
    "inmemory_stores",
    "mongodb_stores",
    "postgres_stores",
    "redis_stores",
    "sqlite_stores",
]


@dataclass(frozen=True, slots=True)
class StoreSet:
    """All stores of one backend, in the order in which they are opened."""

    events: AbstractEventStore
    snapshots: AbstractSnapshotStore
    checkpoints: AbstractCheckpointStore
    idempotency: AbstractIdempotencyStore
    dead_letters: DeadLetterStore
    sagas: SagaStore

    def __iter__(self) -> Any:
        return iter((self.events, self.snapshots, self.checkpoints, self.idempotency, self.dead_letters, self.sagas))


def inmemory_stores(events: AbstractEventStore, config: EventsConfig) -> StoreSet:
    """Return in-memory stores beside `events`."""
    from lexigram.events.buses.dead_letter import InMemoryDeadLetterStore
    from lexigram.events.sagas.store import InMemorySagaStore
    from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
    from lexigram.events.stores.idempotency import InMemoryIdempotencyStore
    from lexigram.events.stores.memory import InMemorySnapshotStore

    return StoreSet(
        events,
        InMemorySnapshotStore(max_snapshots_per_aggregate=config.snapshots.max_snapshots_per_aggregate),
        InMemoryCheckpointStore(),
        InMemoryIdempotencyStore(),
        InMemoryDeadLetterStore(),
        InMemorySagaStore(),
    )


def sqlite_stores(events: AbstractEventStore, config: EventsConfig) -> StoreSet:
    """Return SQLite stores on the same file and engine as `events`."""
    from lexigram.events.sagas.sql import SqlSagaStore
    from lexigram.events.stores.sqlite import (
        SqliteCheckpointStore,
        SqliteDeadLetterStore,
        SqliteIdempotencyStore,
        SqliteSnapshotStore,
    )

    return StoreSet(
        events,
        SqliteSnapshotStore(events),
        SqliteCheckpointStore(events),
        SqliteIdempotencyStore(events),
        SqliteDeadLetterStore(events),
        SqlSagaStore(events),
    )


def redis_stores(events: AbstractEventStore, config: EventsConfig) -> StoreSet:
    """Return Redis stores in the same namespace and on the same connections as `events`."""
    from lexigram.events.sagas.redis import RedisSagaStore
    from lexigram.events.stores.redis import (
        RedisCheckpointStore,
        RedisDeadLetterStore,
        RedisIdempotencyStore,
        RedisSnapshotStore,
    )

    return StoreSet(
        events,
        RedisSnapshotStore(events),
        RedisCheckpointStore(events),
        RedisIdempotencyStore(events),
        RedisDeadLetterStore(events),
        RedisSagaStore(events),
    )


def mongodb_stores(events: AbstractEventStore, config: EventsConfig) -> StoreSet:
    """Return MongoDB stores in the same database and on the same connections as `events`."""
    from lexigram.events.sagas.mongodb import MongoDBSagaStore
    from lexigram.events.stores.mongodb import (
        MongoDBCheckpointStore,
        MongoDBDeadLetterStore,
        MongoDBIdempotencyStore,
        MongoDBSnapshotStore,
    )

    return StoreSet(
        events,
        MongoDBSnapshotStore(events),
        MongoDBCheckpointStore(events),
        MongoDBIdempotencyStore(events),
        MongoDBDeadLetterStore(events),
        MongoDBSagaStore(events),
    )


def postgres_stores(events: AbstractEventStore, config: EventsConfig) -> StoreSet:
    """Return PostgreSQL stores on the same connections and tables as `events`."""
    from lexigram.events.sagas.postgres import PostgresSagaStore
    from lexigram.events.stores.postgres import (
        PostgresCheckpointStore,
        PostgresDeadLetterStore,
        PostgresIdempotencyStore,
        PostgresSnapshotStore,
    )

    return StoreSet(
        events,
        PostgresSnapshotStore(events),
        PostgresCheckpointStore(events),
        PostgresIdempotencyStore(events),
        PostgresDeadLetterStore(events),
        PostgresSagaStore(events),
    )


COMPANIONS: dict[str, Callable[[AbstractEventStore, EventsConfig], StoreSet]] = {
    "memory": inmemory_stores,
    "sqlite": sqlite_stores,
    "mongodb": mongodb_stores,
    "redis": redis_stores,
    "postgres": postgres_stores,
}
