"""spec/api-reference.md: MongoDBEventStore and MongoDBSnapshotStore."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest_asyncio
from pymongo import AsyncMongoClient

from lexigram.events import DomainEvent
from lexigram.events.stores.mongodb.config import MongoDBConfig
from lexigram.events.stores.mongodb.event_store import MongoDBEventStore
from lexigram.events.stores.mongodb.snapshot_store import MongoDBSnapshotStore
from lexigram.events.types import Snapshot
from lexigram.nosql.backends.mongodb.backend import MongoDBDocumentStore
from lexigram.nosql.config import MongoDBConfig as DocumentStoreConfig


class OrderPlacedInMongo(DomainEvent):
    total: int


@pytest_asyncio.fixture
async def database(mongo_url: str) -> AsyncIterator[str]:
    name = f"lx_{uuid4().hex}"
    yield name
    async with AsyncMongoClient[Any](mongo_url) as client:
        await client.drop_database(name)


async def test_mongodb_event_store(mongo_url: str, database: str) -> None:
    """`MongoDBEventStore(document_store, config)`, connect, `save` with an expected version, close."""
    document_store = MongoDBDocumentStore(DocumentStoreConfig(uri=mongo_url, database=database, min_pool_size=0))
    config = MongoDBConfig(uri=mongo_url, events_collection="orders")
    event = OrderPlacedInMongo(total=5)
    store = MongoDBEventStore(document_store, config)
    await store.connect()
    try:
        await store.save("order-123", [event], expected_version=0)
        assert await store.read("order-123") == [event]
        assert await store.find_by_type("OrderPlacedInMongo", limit=10, offset=0) == [event]
        assert await document_store.collection("orders").count_documents({}) == 1
    finally:
        await store.close()
        await document_store.disconnect()


async def test_mongodb_snapshot_store(mongo_url: str, database: str) -> None:
    """`MongoDBSnapshotStore(config)`, `save(Snapshot)`, `get_latest`."""
    config = MongoDBConfig(uri=mongo_url, database=database)
    store = MongoDBSnapshotStore(config)
    await store.connect()
    await store.save(Snapshot(aggregate_id="order-123", aggregate_type="Order", version=100, state={"total": 5}))
    snapshot = await store.get_latest("order-123")
    assert snapshot is not None
    assert (snapshot.version, snapshot.state) == (100, {"total": 5})
    await store.close()
