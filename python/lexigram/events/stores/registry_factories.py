"""How each backend's event store is made from the configuration. Source: spec/reference-surface.md.

Imports are inside the functions: only the backend that was chosen is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lexigram.contracts.core.di import ContainerResolverProtocol
    from lexigram.events.config import EventsConfig
    from lexigram.events.stores.base import AbstractEventStore

__all__ = [
    "FACTORIES",
    "create_inmemory_store",
    "create_mongodb_store",
    "create_postgres_store",
    "create_redis_store",
    "create_sqlite_store",
]


def create_inmemory_store(config: EventsConfig, container: ContainerResolverProtocol | None) -> AbstractEventStore:
    """Return an in-memory event store with the limits of `config.memory`."""
    from lexigram.events.stores.memory import InMemoryEventStore

    return InMemoryEventStore(max_events_per_stream=config.memory.max_events_per_stream)


def create_sqlite_store(config: EventsConfig, container: ContainerResolverProtocol | None) -> AbstractEventStore:
    """Return a SQLite event store on the file of `config.sqlite`, or on `./events.db` without one."""
    from lexigram.events.config import SqliteConfig
    from lexigram.events.stores.sqlite import SqliteEventStore

    return SqliteEventStore(config.sqlite or SqliteConfig())


def create_redis_store(config: EventsConfig, container: ContainerResolverProtocol | None) -> AbstractEventStore:
    """Return a Redis event store on the server of `config.redis`."""
    from lexigram.events.config import RedisEventStoreConfig
    from lexigram.events.stores.redis import RedisEventStore

    return RedisEventStore(config.redis or RedisEventStoreConfig())


def create_mongodb_store(config: EventsConfig, container: ContainerResolverProtocol | None) -> AbstractEventStore:
    """Return a MongoDB event store on the server and database of `config.mongodb`.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, there is no such section.
    """
    from lexigram.events.exceptions import EventValidationError

    if config.mongodb is None:
        raise EventValidationError(
            "event_store_backend 'mongodb' needs events.mongodb.connection_string", field="events.mongodb"
        )
    from lexigram.events.stores.mongodb import MongoDBEventStore

    return MongoDBEventStore(None, config.mongodb)


def create_postgres_store(config: EventsConfig, container: ContainerResolverProtocol | None) -> AbstractEventStore:
    """Return a PostgreSQL event store on the server of `config.postgres`."""
    from lexigram.events.stores.postgres import PostgresEventStore

    return PostgresEventStore(config.postgres)


FACTORIES = {
    "memory": create_inmemory_store,
    "sqlite": create_sqlite_store,
    "redis": create_redis_store,
    "postgres": create_postgres_store,
    "mongodb": create_mongodb_store,
}
