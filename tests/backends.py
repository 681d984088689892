"""Empty stores of every backend for tests that are the same for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events.sagas.store import InMemorySagaStore, SagaStore
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.memory import InMemoryEventStore
from tests.postgres_schemas import EmptySchemas

BACKENDS = ("memory", "sqlite", "postgres", "mongodb", "redis")

MakeStore = Callable[..., AbstractAsyncContextManager[AbstractEventStore]]


def address(backend: str, request: pytest.FixtureRequest, tmp_path: Path, number: int) -> Any:
    """Return what the store class of a backend is built from, empty; the servers it needs are started."""
    if backend == "sqlite":
        return str(tmp_path / f"{uuid4().hex}.db")
    if backend == "postgres":
        return EmptySchemas(request.getfixturevalue("postgres_url"), purpose="b").config(number)
    if backend == "mongodb":
        from lexigram.events.stores.mongodb.config import MongoDBConfig

        url = request.getfixturevalue("mongo_url")
        return MongoDBConfig(uri=url, database=f"lx_{uuid4().hex}", max_pool_size=4)
    if backend == "redis":
        return (request.getfixturevalue("redis_url"), f"test:{uuid4().hex}")
    return None


def open_store(backend: str, where: Any, **options: Any) -> AbstractEventStore:
    """Return a store on an address; twice for two stores on the same events (not in memory)."""
    if backend == "sqlite":
        from lexigram.events.stores.sqlite import SqliteEventStore

        return SqliteEventStore(where, **options)
    if backend == "postgres":
        from lexigram.events.stores.postgres import PostgresEventStore

        return PostgresEventStore(where, **options)
    if backend == "mongodb":
        from lexigram.events.stores.mongodb.event_store import MongoDBEventStore

        return MongoDBEventStore(None, where, **options)
    if backend == "redis":
        from lexigram.events.stores.redis.event_store import RedisEventStore

        return RedisEventStore(*where, **options)
    return InMemoryEventStore(**options)


def saga_store(backend: str, store: Any) -> SagaStore:
    """Return the saga store in the event store's database."""
    if backend == "sqlite":
        from lexigram.events.sagas.sql import SqlSagaStore

        return SqlSagaStore(store)
    if backend == "postgres":
        from lexigram.events.sagas.postgres import PostgresSagaStore

        return PostgresSagaStore(store)
    if backend == "mongodb":
        from lexigram.events.sagas.mongodb import MongoDBSagaStore

        return MongoDBSagaStore(store)
    if backend == "redis":
        from lexigram.events.sagas.redis import RedisSagaStore

        return RedisSagaStore(store)
    return InMemorySagaStore()


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """`async with make_store(backend) as store`: an empty, open store, removed with what is in it."""
    numbers = count()

    @asynccontextmanager
    async def make(backend: str, **options: Any) -> AsyncIterator[AbstractEventStore]:
        where = address(backend, request, tmp_path, next(numbers))
        store = open_store(backend, where, **options)
        try:
            async with store:
                yield store
        finally:
            if backend == "mongodb":
                from pymongo import AsyncMongoClient

                async with AsyncMongoClient[Any](request.getfixturevalue("mongo_url")) as client:
                    await client.drop_database(where.database)

    return make
