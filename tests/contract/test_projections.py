"""Projections over all five backends keep every promise of the contract suite; documents take each event once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from lexigram.events import DomainEvent, InMemoryCheckpointStore, ProjectionConfig
from lexigram.events.exceptions import EventValidationError
from lexigram.events.projections.document import (
    DocumentProjection,
    DocumentStore,
    InMemoryDocuments,
    MongoDBDocuments,
    RedisDocuments,
    Versioned,
)
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.testing.projections import ProjectionContract
from tests.backends import address, open_store


class OverBackend(ProjectionContract):
    """Builds the store that `backend` names."""

    backend = "memory"

    @pytest.fixture(autouse=True)
    def _where(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.addresses = (address(self.backend, request, tmp_path, number) for number in count())

    async def make_store(self) -> AbstractEventStore:
        return open_store(self.backend, next(self.addresses))


class TestOverMemory(OverBackend):
    pass


class TestOverSqlite(OverBackend):
    backend = "sqlite"


class TestOverPostgres(OverBackend):
    backend = "postgres"


class TestOverMongoDB(OverBackend):
    backend = "mongodb"


class TestOverRedis(OverBackend):
    backend = "redis"


class Restocked(DomainEvent):
    sku: str
    amount: int


class Returned(Restocked):
    pass


class Withdrawn(DomainEvent):
    sku: str


def stock_in(documents: DocumentStore) -> DocumentProjection:
    """Return a read model of what is in stock."""
    stock = DocumentProjection("stock", documents)

    @stock.on(Restocked, key=lambda event: event.sku)
    def restocked(document: dict[str, Any], event: Restocked) -> dict[str, Any]:
        return {"count": document.get("count", 0) + event.amount, "last": event.event_type}

    @stock.on(Withdrawn, key=lambda event: event.sku)
    async def withdrawn(document: dict[str, Any], event: Withdrawn) -> None:
        return None

    return stock


@pytest_asyncio.fixture(params=["memory", "mongodb", "redis"])
async def documents(request: pytest.FixtureRequest) -> AsyncIterator[DocumentStore]:
    """An empty store of documents, on a real server."""
    async with AsyncExitStack() as stack:
        if request.param == "mongodb":
            from pymongo import AsyncMongoClient

            url = request.getfixturevalue("mongo_url")
            client = await stack.enter_async_context(AsyncMongoClient[Any](url))
            name = f"lx_{uuid4().hex}"
            stack.push_async_callback(client.drop_database, name)
            yield MongoDBDocuments(client[name]["stock"])
        elif request.param == "redis":
            from redis.asyncio import Redis

            redis = await stack.enter_async_context(Redis.from_url(request.getfixturevalue("redis_url")))
            await redis.set("doc[x]untouched", "1")
            yield RedisDocuments(redis, f"doc[x]*{uuid4().hex}:")
            assert await redis.delete("doc[x]untouched") == 1
        else:
            yield InMemoryDocuments()


async def test_an_event_that_is_delivered_again_changes_a_document_once(documents: DocumentStore) -> None:
    """In any mixture of repetitions; a deleted document does not come back by an old event."""
    store = InMemoryEventStore()
    changes: list[DomainEvent] = [
        Restocked(sku="tea", amount=5),
        Returned(sku="tea", amount=2),
        Restocked(sku="cups", amount=1),
        Withdrawn(sku="cups"),
        Restocked(sku="tea", amount=1),
    ]
    await store.append("s", changes)
    events = await store.read_all()
    stock, chance = stock_in(documents), random.Random(3)
    for event in events:
        for again in [event, *chance.choices(events[: event.sequence_number], k=4)]:
            await stock.apply(again)
    assert await stock.get("tea") == {"count": 8, "last": "Restocked"}
    assert await stock.get("cups") is None
    assert await documents.get("cups") == Versioned(None, 4)
    assert await documents.get("unknown") == Versioned(None, 0)


async def test_a_crash_between_document_and_checkpoint_counts_nothing_twice(documents: DocumentStore) -> None:
    """The checkpoint is stored less often than documents; a restart repeats events, and the sums are right."""
    store, checkpoints = InMemoryEventStore(), InMemoryCheckpointStore()
    for number in range(30):
        await store.append(f"s-{number % 3}", [Restocked(sku=f"sku-{number % 2}", amount=number)])
    for stored in (0, 11, 29):
        await checkpoints.delete_checkpoint("stock")
        await checkpoints.save_checkpoint("stock", stored)  # as processes that died before they stored it leave it
        manager = ProjectionManager(store, checkpoints, config=ProjectionConfig(batch_size=7))
        manager.register(stock_in(documents))
        async with manager:
            await manager.wait_for("stock", 30, timeout=30)
    sums = [sum(range(start, 30, 2)) for start in (0, 1)]
    assert [(await stock_in(documents).get(f"sku-{number}") or {})["count"] for number in (0, 1)] == sums


async def test_of_two_writers_at_once_the_older_one_is_refused(documents: DocumentStore) -> None:
    """Whatever order they come in, the document is that of the highest position."""
    written = await asyncio.gather(
        *(documents.put("k", {"n": n}, n) for n in random.Random(1).sample(range(1, 40), 30))
    )
    final = await documents.get("k")
    assert final.document == {"n": final.position}
    assert any(written)
    assert not await documents.put("k", {"n": 0}, final.position)
    assert await documents.put("k", None, final.position + 1)
    await documents.clear()
    assert await documents.get("k") == Versioned(None, 0)


async def test_values_come_back_as_they_were(documents: DocumentStore) -> None:
    """Text in any script, numbers and nested containers; in Redis every value that events may carry."""
    document: dict[str, Any] = {"ä": ["茶", 1, 2.5, None, True], "in": {"deep": {"er": []}}}
    if isinstance(documents, RedisDocuments):
        document["price"] = Decimal("1.50")
    assert await documents.put("k", document, 1)
    assert (await documents.get("k")).document == document


async def test_mistakes_are_named() -> None:
    """An empty name or prefix, no event class, one twice, an event that no store has numbered."""
    with pytest.raises(EventValidationError, match="needs a name"):
        DocumentProjection("", InMemoryDocuments())
    with pytest.raises(EventValidationError, match="prefix must not be empty"):
        RedisDocuments(None, "")
    stock = stock_in(InMemoryDocuments())
    with pytest.raises(EventValidationError, match="at least one event class"):
        stock.on(key=str)
    with pytest.raises(EventValidationError, match="Restocked is handled already"):
        stock.on(Restocked, key=str)(lambda document, event: None)
    with pytest.raises(EventValidationError, match="has no position"):
        await stock.apply(Restocked(sku="tea", amount=1))
