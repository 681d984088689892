"""The MongoDB stores keep their promises over lexigram-nosql's document store, and over a client of the application's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores.mongodb.event_store import MongoDBEventStore
from lexigram.events.stores.mongodb.snapshot_store import MongoDBSnapshotStore
from lexigram.events.testing.event_store import DurableEventStoreContract
from lexigram.events.testing.samples import added
from lexigram.events.types import Snapshot
from lexigram.nosql.backends.mongodb.backend import MongoDBDocumentStore
from lexigram.nosql.config import MongoDBConfig as DocumentStoreConfig


class TestEventStoreOverDocumentStore(DurableEventStoreContract):
    @pytest_asyncio.fixture(autouse=True)
    async def _providers(self, mongo_url: str) -> AsyncIterator[None]:
        self.url, self.made = mongo_url, list[Any]()
        yield
        for provider in self.made:
            if not provider.is_connected():
                await provider.connect()
            await provider._client.drop_database(provider._database_name)
            await provider.disconnect()

    async def make_store(self, **options: Any) -> MongoDBEventStore:
        config = DocumentStoreConfig(uri=self.url, database=f"lx_{uuid4().hex}", min_pool_size=0, max_pool_size=4)
        self.made.append(MongoDBDocumentStore(config))
        return MongoDBEventStore(self.made[-1], None, **options)

    async def reopen(self, store: Any) -> MongoDBEventStore:
        await store.close()
        return MongoDBEventStore(self.made[-1], None)


async def test_a_client_of_the_application_is_used_and_left_open(mongo_url: str) -> None:
    """Collections have the configured names; closing the store leaves the client to its owner."""
    async with AsyncMongoClient[Any](mongo_url) as client:
        database = client[f"lx_{uuid4().hex}"]
        try:
            async with MongoDBEventStore(database) as store, MongoDBSnapshotStore(store) as snapshots:
                await store.append("a", added("1"))
                await snapshots.save(Snapshot(aggregate_id="a", aggregate_type="A", version=1, state={"n": 1}))
            assert await database["domain_events"].count_documents({}) == 1
            assert await database["snapshots"].count_documents({}) == 1
        finally:
            await client.drop_database(database.name)


class Documents:
    """A document store that is not MongoDB."""

    def is_connected(self) -> bool:
        return True

    def collection(self, name: str) -> None:
        return None


async def test_a_document_store_without_a_mongodb_database_is_refused() -> None:
    """Its collections promise neither atomic commits nor durability, so nothing is built on them."""
    with pytest.raises(EventValidationError, match="exposes no MongoDB database") as caught:
        await MongoDBEventStore(Documents()).connect()
    assert caught.value.field == "document_store"
    with pytest.raises(EventValidationError, match="needs an address"):
        MongoDBEventStore()
