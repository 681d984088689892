"""The MongoDB stores keep every promise of the contract suites, on FerretDB and on a real server where one is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient, MongoClient, ReadPreference

from lexigram.events.buses.dead_letter import DeadLetterEntry, DeadLetterStore
from lexigram.events.exceptions import ConcurrencyError, EventStoreConnectionError, EventValidationError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.messages.event import Event
from lexigram.events.sagas.mongodb import MongoDBSagaStore
from lexigram.events.sagas.store import SagaStore
from lexigram.events.sagas.types import SagaRecord
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.stores.mongodb.checkpoint_store import MongoDBCheckpointStore
from lexigram.events.stores.mongodb.config import MongoDBConfig
from lexigram.events.stores.mongodb.dead_letters import MongoDBDeadLetterStore
from lexigram.events.stores.mongodb.event_store import MongoDBEventStore
from lexigram.events.stores.mongodb.idempotency_store import MongoDBIdempotencyStore
from lexigram.events.stores.mongodb.snapshot_store import MongoDBSnapshotStore
from lexigram.events.testing.checkpoint_store import CheckpointStoreContract, IdempotencyStoreContract
from lexigram.events.testing.dead_letters import DurableDeadLetterStoreContract
from lexigram.events.testing.event_store import DurableEventStoreContract, EventStoreContract
from lexigram.events.testing.inbox import InboxContract
from lexigram.events.testing.outbox import OutboxContract
from lexigram.events.testing.saga_store import SagaStoreContract
from lexigram.events.testing.samples import added
from lexigram.events.testing.snapshot_store import SnapshotStoreContract


class OwnDatabase:
    """Gives each store of a test a database of its own, dropped at the end."""

    @pytest_asyncio.fixture(autouse=True)
    async def _databases(self, mongo_url: str) -> AsyncIterator[None]:
        self.url, self.made = mongo_url, list[str]()
        yield
        async with AsyncMongoClient[Any](mongo_url) as client:
            for name in self.made:
                await client.drop_database(name)

    def config(self) -> MongoDBConfig:
        self.made.append(f"lx_{uuid4().hex}")
        return MongoDBConfig(uri=self.url, database=self.made[-1], max_pool_size=4)


class TestMongoDBOutbox(OwnDatabase, OutboxContract):
    lease_seconds = 1.0

    async def make_store(self) -> MongoDBEventStore:
        return MongoDBEventStore(None, self.config())


class TestMongoDBInbox(OwnDatabase, InboxContract):
    async def make_stores(self) -> tuple[MongoDBEventStore, MongoDBIdempotencyStore]:
        events = MongoDBEventStore(None, self.config())
        return events, MongoDBIdempotencyStore(events)


class TestMongoDBEventStore(OwnDatabase, DurableEventStoreContract):
    async def make_store(self, **options: Any) -> MongoDBEventStore:
        return MongoDBEventStore(None, self.config(), **options)

    async def reopen(self, store: Any) -> MongoDBEventStore:
        await store.close()
        return MongoDBEventStore(store.mongo.settings)

    async def test_events_are_selected_by_the_type_they_were_given(self, store: Any) -> None:
        """Beside their class: by reading, and by conditions, also inside a unit of work."""
        await store.append("s", [Event(host="a"), Event(event_type="ping", host="b"), *added("c")])
        assert [e.host async for e in store.stream_by_type("ping")] == ["b"]
        assert [e.host async for e in store.stream_by_type([Event])] == ["a", "b"]
        condition = AppendCondition(EventQuery(types=["pong"]))
        with pytest.raises(ConcurrencyError):
            async with store.unit_of_work():
                await store.append("a", [Event(event_type="pong")], condition=condition)
                await store.append("b", [Event(event_type="pong")], condition=condition)
        outcomes = await asyncio.gather(
            *(store.append(s, [Event(event_type="pong")], condition=condition) for s in "xyz"), return_exceptions=True
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConcurrencyError", "ConcurrencyError", "int"]

    async def test_everything_is_written_and_read_by_a_majority(self, store: Any) -> None:
        """Whatever the address says: what is acknowledged, shown or built upon survives a failover."""
        commits = store.events
        assert commits.write_concern.document == {"w": "majority", "j": True}
        assert commits.read_concern.document == {"level": "majority"}
        assert commits.read_preference == ReadPreference.PRIMARY
        assert store._log.knowledge._commits.read_concern.document == {"level": "majority"}


class TestMongoDBEventStoreWithBinaryPayloads(OwnDatabase, EventStoreContract):
    async def make_store(self, **options: Any) -> MongoDBEventStore:
        return MongoDBEventStore(None, self.config(), codec=EventCodec(format="binary"), **options)


class TestMongoDBSnapshotStore(OwnDatabase, SnapshotStoreContract):
    async def make_store(self) -> MongoDBSnapshotStore:
        return MongoDBSnapshotStore(self.config())


class TestMongoDBCheckpointStore(OwnDatabase, CheckpointStoreContract):
    lease_seconds = 0.4

    async def make_store(self) -> MongoDBCheckpointStore:
        return MongoDBCheckpointStore(self.config())


class TestMongoDBIdempotencyStore(OwnDatabase, IdempotencyStoreContract):
    lease_seconds = 0.4

    async def make_store(self) -> MongoDBIdempotencyStore:
        return MongoDBIdempotencyStore(self.config())


class TestMongoDBSagaStore(OwnDatabase, SagaStoreContract):
    async def make_store(self) -> SagaStore:
        return MongoDBSagaStore(self.config())


class TestMongoDBDeadLetterStore(OwnDatabase, DurableDeadLetterStoreContract):
    async def make_store(self) -> DeadLetterStore:
        return MongoDBDeadLetterStore(self.config())

    async def reopen(self, store: Any) -> DeadLetterStore:
        await store.close()
        return MongoDBDeadLetterStore(store.mongo.settings)


async def test_logs_in_one_database_do_not_see_each_other(mongo_url: str) -> None:
    """Not even what compaction removed, whose counters they may share; a collection has one purpose."""
    database = f"lx_{uuid4().hex}"
    try:
        stores = [
            MongoDBEventStore(None, MongoDBConfig(uri=mongo_url, database=database, events_collection=name))
            for name in ("one", "two")
        ]
        async with stores[0] as one, stores[1] as two:
            await one.append("a", added("1", "2", "3"))
            assert await one.compact("a", 2) == 2
            assert await two.get_stream_version("a") == 0
            assert await two.append("a", added("1"), 0) == 1
            assert await two.get_stream_version("a") == 1
            assert await two.compact("a", 1) == 1
            assert [event.version for event in await one.read("a")] == [3]
            assert await one._removals() == {"a": 2}
            assert await two._removals() == {"a": 1}
    finally:
        async with AsyncMongoClient[Any](mongo_url) as client:
            await client.drop_database(database)
    with pytest.raises(EventValidationError, match="must differ"):
        MongoDBEventStore(None, MongoDBConfig(uri=mongo_url, events_collection="x", snapshots_collection="x"))
    with pytest.raises(EventValidationError, match="needs pymongo's AsyncMongoClient"):
        MongoDBEventStore(MongoClient(mongo_url, connect=False))


@pytest.mark.parametrize("derived", ["checkpoints", "counters", "sagas", "dead_letters"])
async def test_a_log_is_not_kept_in_a_collection_of_another_one(mongo_url: str, derived: str) -> None:
    """Whichever was there first, the other one is refused at once; it hung, or both wrote into one collection."""

    def store(database: str, name: str) -> MongoDBEventStore:
        names = {"events_collection": name, "counters_collection": f"{name}_counters"}
        return MongoDBEventStore(None, MongoDBConfig(uri=mongo_url, database=database, **names))

    async def use(events: MongoDBEventStore) -> None:
        async with events, MongoDBCheckpointStore(events) as checkpoints, MongoDBSagaStore(events) as sagas:
            async with MongoDBDeadLetterStore(events) as letters:
                await events.append("a", added("1", "2"))
                await events.compact("a", 1)
                await checkpoints.save_checkpoint("p", 1)
                await sagas.create(SagaRecord("s", "n"))
                await letters.save(DeadLetterEntry(entry_id="e", event=added("x")[0], handler_name="h", error="no"))

    databases = [f"lx_{uuid4().hex}" for _ in range(2)]
    try:
        async with asyncio.timeout(20):
            await use(store(databases[0], "g"))
            with pytest.raises(EventStoreConnectionError, match=f"'g_{derived}' holds something else than events"):
                await store(databases[0], f"g_{derived}").connect()
            async with store(databases[1], f"g_{derived}") as log:
                await log.append("a", added("1"))
                with pytest.raises(EventStoreConnectionError, match=f"'g_{derived}' holds the events of another log"):
                    await use(store(databases[1], "g"))
                assert await log.append("a", added("2")) == 2
    finally:
        async with AsyncMongoClient[Any](mongo_url) as client:
            for database in databases:
                await client.drop_database(database)
