"""The Redis stores keep every promise of the contract suites, on a real server that syncs every write."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from lexigram.events.messages.codec import EventCodec
from lexigram.events.stores.redis.event_store import RedisEventStore
from lexigram.events.testing.event_store import DurableEventStoreContract, EventStoreContract


def namespace() -> str:
    """Return a namespace that no other test uses."""
    return f"test:{uuid4().hex}"


class OwnNamespace:
    """Gives each store of a test a namespace of its own on one server."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> None:
        self.url = redis_url


class TestRedisEventStore(OwnNamespace, DurableEventStoreContract):
    async def make_store(self, **options: Any) -> RedisEventStore:
        return RedisEventStore(self.url, namespace(), **options)

    async def reopen(self, store: Any) -> RedisEventStore:
        await store.close()
        return RedisEventStore(self.url, store.log.namespace)


class TestRedisEventStoreWithBinaryPayloads(OwnNamespace, EventStoreContract):
    async def make_store(self, **options: Any) -> RedisEventStore:
        return RedisEventStore(self.url, namespace(), codec=EventCodec(format="binary"), **options)
