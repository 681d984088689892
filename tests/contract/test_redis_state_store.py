"""`RedisEventStore` over the documents' `StateStoreProtocol` keeps every promise of the suite within one process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from lexigram.cache.backends.memory_state import MemoryStateStore
from lexigram.cache.stores.redis_state import RedisStateStore
from lexigram.contracts.infra.state import StateStoreProtocol
from lexigram.events.exceptions import (
    EventPersistenceError,
    EventStoreConnectionError,
    EventValidationError,
)
from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.redis.event_store import RedisEventStore
from lexigram.events.stores.redis.snapshot_store import RedisSnapshotStore
from lexigram.events.testing.event_store import DurableEventStoreContract, EventStoreContract
from lexigram.events.testing.samples import added, skus


class KeyValues(StateStoreProtocol):
    """A state store as simple as those of the framework: values are JSON, only get, set and delete are written."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.broken = ""

    async def get(self, key: str) -> Any | None:
        await asyncio.sleep(0)
        if self.broken == "get":
            raise OSError("gone")
        return json.loads(self.values[key]) if key in self.values else None

    async def set(self, key: str, value: Any, ttl: int | None = None) -> None:
        if self.broken == "before set":
            raise OSError("gone")
        await asyncio.sleep(0)
        self.values[key] = json.dumps(value)
        await asyncio.sleep(0)
        if self.broken == "after set":
            raise OSError("gone")


class TestRedisEventStoreOnAStateStore(DurableEventStoreContract):
    async def make_store(self, **options: Any) -> RedisEventStore:
        self.values = KeyValues()
        return RedisEventStore(self.values, "app:events", **options)

    async def reopen(self, store: Any) -> RedisEventStore:
        await store.close()
        return RedisEventStore(self.values, "app:events")


class TestRedisEventStoreOnAStateStoreWithBinaryPayloads(EventStoreContract):
    async def make_store(self, **options: Any) -> RedisEventStore:
        return RedisEventStore(KeyValues(), codec=EventCodec(format="binary"), **options)


async def test_an_append_is_one_value_so_a_crash_leaves_it_whole_or_not_there() -> None:
    """Whatever the state store does to one `set`, no half batch or half unit of work can be read."""
    values = KeyValues()
    async with RedisEventStore(values) as store:
        await store.append("a", added("1", "2", "3"))
        async with store.unit_of_work():
            await store.append("a", added("4"))
            await store.append("b", added("5"))
    assert sorted(values.values) == ["lexigram:events:commit:1", "lexigram:events:commit:2"]


@pytest.mark.parametrize("moment", ["before set", "after set"])
async def test_an_append_with_unknown_outcome_can_be_repeated(moment: str) -> None:
    """The same events again: stored once, whether the first try was executed or not."""
    values = KeyValues()
    async with RedisEventStore(values) as store:
        events = added("1", "2")
        values.broken = moment
        with pytest.raises(EventPersistenceError, match="unknown"):
            await store.append("a", events, expected_version=0)
        values.broken = ""
        assert await store.append("a", events, expected_version=0) == 2
        assert skus(await store.read_all()) == ["1", "2"]


async def test_a_state_store_out_of_reach_is_our_error() -> None:
    """Reading and opening alike."""
    values = KeyValues()
    values.broken = "get"
    with pytest.raises(EventStoreConnectionError, match="gone"):
        await RedisEventStore(values).connect()


async def test_a_reading_process_sees_what_the_writer_commits() -> None:
    """Another store on the same values, as in another process that only reads."""
    values = KeyValues()
    async with RedisEventStore(values) as writing, RedisEventStore(values) as reading:
        for n in range(70):
            await writing.append("a", added(str(n)))
        assert skus(await reading.read("a")) == [str(n) for n in range(70)]
        assert await reading.head() == 70


async def test_the_other_stores_need_a_real_server() -> None:
    """A state store keeps events only: an error that says so, not something in memory."""
    for other in (KeyValues(), RedisEventStore(KeyValues())):
        with pytest.raises(EventValidationError, match="store"):
            RedisSnapshotStore(other)
    with pytest.raises(EventValidationError, match="durable"):
        RedisEventStore(KeyValues(), require_durable=True)


class TestRedisEventStoreOverLexigramCache(DurableEventStoreContract):
    """lexigram-cache's state store on Redis, as published."""

    @pytest_asyncio.fixture(autouse=True)
    async def _state_store(self, redis_url: str) -> AsyncIterator[None]:
        self.states = RedisStateStore(redis_url, prefix=f"{uuid4().hex}:")
        self.names = (f"app{number}" for number in count())
        yield
        await (await self.states._get_client()).aclose()

    async def make_store(self, **options: Any) -> RedisEventStore:
        self.name = next(self.names)
        return RedisEventStore(self.states, self.name, **options)

    async def reopen(self, store: Any) -> RedisEventStore:
        await store.close()
        return RedisEventStore(self.states, self.name)


class TestRedisEventStoreOverLexigramCacheInMemory(DurableEventStoreContract):
    """lexigram-cache's state store in memory, as published; it lives as long as its object."""

    async def make_store(self, **options: Any) -> RedisEventStore:
        self.states = MemoryStateStore()
        return RedisEventStore(self.states, **options)

    async def reopen(self, store: Any) -> RedisEventStore:
        await store.close()
        return RedisEventStore(self.states)
