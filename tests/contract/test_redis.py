"""The Redis stores keep every promise of the contract suites, on a real server that syncs every write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events.buses.dead_letter_entry import DeadLetterEntry
from lexigram.events.exceptions import ConcurrencyError, EventStoreError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.sagas.redis import RedisSagaStore
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.stores.redis.checkpoint_store import RedisCheckpointStore
from lexigram.events.stores.redis.dead_letters import RedisDeadLetterStore
from lexigram.events.stores.redis.event_store import RedisEventStore
from lexigram.events.stores.redis.idempotency_store import RedisIdempotencyStore
from lexigram.events.stores.redis.log import RedisLog
from lexigram.events.stores.redis.snapshot_store import RedisSnapshotStore
from lexigram.events.testing.checkpoint_store import CheckpointStoreContract, IdempotencyStoreContract
from lexigram.events.testing.dead_letters import DurableDeadLetterStoreContract
from lexigram.events.testing.event_store import DurableEventStoreContract, EventStoreContract
from lexigram.events.testing.inbox import InboxContract
from lexigram.events.testing.outbox import OutboxContract
from lexigram.events.testing.saga_store import SagaStoreContract, a_record
from lexigram.events.testing.samples import ItemAdded, added, skus
from lexigram.events.testing.snapshot_store import SnapshotStoreContract


def namespace() -> str:
    """Return a namespace that no other test uses."""
    return f"test:{uuid4().hex}"


class OwnNamespace:
    """Gives each store of a test a namespace of its own on one server."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> None:
        self.url = redis_url


class TestRedisOutbox(OwnNamespace, OutboxContract):
    async def make_store(self) -> RedisEventStore:
        return RedisEventStore(self.url, namespace())


class TestRedisInbox(OwnNamespace, InboxContract):
    async def make_stores(self) -> tuple[RedisEventStore, RedisIdempotencyStore]:
        events = RedisEventStore(self.url, namespace())
        return events, RedisIdempotencyStore(events)


class TestRedisEventStore(OwnNamespace, DurableEventStoreContract):
    async def make_store(self, **options: Any) -> RedisEventStore:
        return RedisEventStore(self.url, namespace(), **options)

    async def reopen(self, store: Any) -> RedisEventStore:
        await store.close()
        return RedisEventStore(self.url, store.log.namespace)


class TestRedisEventStoreWithBinaryPayloads(OwnNamespace, EventStoreContract):
    async def make_store(self, **options: Any) -> RedisEventStore:
        return RedisEventStore(self.url, namespace(), codec=EventCodec(format="binary"), **options)


class TestRedisSnapshotStore(OwnNamespace, SnapshotStoreContract):
    async def make_store(self) -> RedisSnapshotStore:
        return RedisSnapshotStore(self.url, namespace())


class TestRedisCheckpointStore(OwnNamespace, CheckpointStoreContract):
    async def make_store(self) -> RedisCheckpointStore:
        return RedisCheckpointStore(self.url, namespace())


class TestRedisIdempotencyStore(OwnNamespace, IdempotencyStoreContract):
    async def make_store(self) -> RedisIdempotencyStore:
        return RedisIdempotencyStore(self.url, namespace())


class TestRedisDeadLetterStore(OwnNamespace, DurableDeadLetterStoreContract):
    async def make_store(self) -> RedisDeadLetterStore:
        return RedisDeadLetterStore(self.url, namespace())

    async def reopen(self, store: Any) -> RedisDeadLetterStore:
        await store.close()
        return RedisDeadLetterStore(self.url, store.log.namespace)


class TestRedisSagaStore(OwnNamespace, SagaStoreContract):
    async def make_store(self) -> RedisSagaStore:
        return RedisSagaStore(self.url, namespace())


@pytest.fixture
async def events(redis_url: str) -> AsyncIterator[RedisEventStore]:
    """A new event store whose namespace the other stores share."""
    async with RedisEventStore(redis_url, namespace()) as store:
        yield store


async def test_a_unit_of_work_covers_every_store_of_the_namespace(events: RedisEventStore) -> None:
    """Events, checkpoint, mark, snapshot, saga and dead letter are all there after the commit, none before."""
    async with (
        RedisCheckpointStore(events) as checkpoints,
        RedisIdempotencyStore(events) as marks,
        RedisSnapshotStore(events) as snapshots,
    ):
        sagas, letters = RedisSagaStore(events), RedisDeadLetterStore(events)
        letter = DeadLetterEntry.of(added("1")[0], "app.mail", ValueError("no"), 1)

        async def work() -> None:
            await events.append("a", added("1"))
            await checkpoints.save_checkpoint("orders", 7)
            assert await marks.claim("c", "m1")
            assert not await marks.claim("c", "m1")
            await marks.mark_processed("c", "m2")
            await snapshots.save("a", {"n": 1}, 1)
            await letters.save(letter)
            record = a_record()
            await sagas.save(record)
            record.error = "second"
            await sagas.save(record)

        async def there() -> list[Any]:
            saga = await sagas.load("s-1")
            return [
                await events.head(),
                await checkpoints.get_checkpoint("orders"),
                await marks.is_processed("c", "m1"),
                await marks.is_processed("c", "m2"),
                await snapshots.load("a"),
                await letters.get_count(),
                saga and (saga.error, saga.version),
            ]

        with pytest.raises(KeyError):
            async with events.unit_of_work():
                await work()
                raise KeyError
        nothing = [0, 0, False, False, None, 0, None]
        assert await there() == nothing
        async with events.unit_of_work():
            await work()
            # Only a saga is seen by its own unit of work: several events of one batch may change it.
            assert await there() == [*nothing[:-1], ("second", 2)]
        assert await there() == [1, 7, True, True, ({"n": 1}, 1), 1, ("second", 2)]
        assert letter.position == 1
        await sagas.close()
        await letters.close()


async def test_what_changed_between_check_and_commit_fails_the_whole_unit(events: RedisEventStore) -> None:
    """A lost lease, a claimed message, a saved saga: each found at the end, and nothing of the unit is written."""
    checkpoints, marks, sagas = RedisCheckpointStore(events), RedisIdempotencyStore(events), RedisSagaStore(events)
    await checkpoints.acquire_lock("orders", "a", timeout=0.02)
    epoch = await checkpoints.lock_epoch("orders")
    await sagas.save(a_record())
    mine, theirs = await sagas.load("s-1"), await sagas.load("s-1")
    assert mine is not None
    assert theirs is not None

    async def lose_the_lease() -> None:
        await asyncio.sleep(0.03)
        assert await checkpoints.acquire_lock("orders", "b")

    async def claim() -> None:
        assert await marks.claim("c", "m")

    async def save() -> None:
        await sagas.save(theirs)

    for inside, meanwhile in (
        (lambda: checkpoints.save_checkpoint("orders", 5, epoch=epoch), lose_the_lease),
        (lambda: marks.claim("c", "m"), claim),
        (lambda: sagas.save(mine), save),
    ):
        with pytest.raises(ConcurrencyError):
            async with events.unit_of_work():
                await events.append("a", added("1"))
                await inside()
                await asyncio.create_task(meanwhile(), context=Context())
        assert await events.head() == 0
    for store in (checkpoints, marks, sagas):
        await store.close()


async def test_sql_in_a_unit_of_work_is_a_clear_error(events: RedisEventStore) -> None:
    """There is none; the message says what to use."""
    async with events.unit_of_work() as unit:
        for call in (unit.execute("x"), unit.fetch_all("x"), unit.fetch_one("x"), unit.run(lambda connection: 1)):
            with pytest.raises(EventStoreError, match="SQL"):
                await call


async def test_the_published_names_work(events: RedisEventStore) -> None:
    """`load` excludes its version, `get_version` is the stream's version."""
    await events.append("a", added("1", "2", "3"))
    assert [event.sku for event in await events.load("a", after_version=1)] == ["2", "3"]
    assert [event.sku for event in await events.load("a")] == ["1", "2", "3"]
    assert await events.get_version("a") == 3


async def test_rare_matches_are_found_behind_thousands_of_candidates(events: RedisEventStore) -> None:
    """One call looks at ten thousand at most, so that nobody waits for it; the query goes on until the end."""
    for start in range(0, 24_000, 4000):
        tags = ("x",) if start < 12_000 else ("y",)
        await events.append("a", added(*map(str, range(start, start + 4000)), tags=tags))
    await events.append("b", added("both", tags=("x", "y")))
    assert skus(await events.query(tags=["x", "y"])) == ["both"]
    assert skus(await events.query(tags=["x", "y"], limit=1)) == ["both"]
    with pytest.raises(ConcurrencyError):
        await events.append("c", added("no"), condition=AppendCondition(EventQuery(tags=["x", "y"])))
    either = EventQuery(tags=["x", "y"]) | EventQuery(ItemAdded, "x")
    assert len(await events.query(either)) == 12_001
    assert await events.compact("a", 24_000) == 24_000
    assert skus(await events.read_all()) == ["both"]


async def test_what_was_removed_leaves_only_counters(events: RedisEventStore) -> None:
    """After everything has been removed only counters remain, so nothing grows with what is gone."""
    await events.append("a", [ItemAdded(sku="1", tags=("x", "y"))])
    await events.append("b", added("2"))
    before = await events.head()
    for stream in ("a", "b"):
        await events.delete_stream(stream)
    log = events.log
    assert isinstance(log, RedisLog)
    keys = {key.decode() for key in await log.connection.read("KEYS", f"*{log.namespace}*")}
    assert {key.removeprefix(log.prefix) for key in keys} == {"format", "head", "log", "removed", "versions"}
    assert await events.head() == before
