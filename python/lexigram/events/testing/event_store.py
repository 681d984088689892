"""The contract suite of event stores: every promise a test. Subclass `EventStoreContract` and write `make_store`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.testing._store_append import AppendContract
from lexigram.events.testing._store_boundary import BoundaryContract
from lexigram.events.testing._store_life import LifeContract, UnitOfWorkContract
from lexigram.events.testing._store_log import LogContract
from lexigram.events.testing._store_read import ReadContract
from lexigram.events.testing.samples import added, positions, skus, versions


class EventStoreContract(AppendContract, ReadContract, LogContract, BoundaryContract, LifeContract, UnitOfWorkContract):
    """Everything that an event store promises."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make_store(self, **options: Any) -> AbstractEventStore:
        """Return a new, empty store; pass `options` (`schema_evolution`) to its constructor."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[AbstractEventStore]:
        """A new, empty store, closed after the test."""
        async with await self.make_store() as store:
            yield store


class DurableEventStoreContract(EventStoreContract):
    """What stores promise beyond it whose events outlive the store object."""

    @abstractmethod
    async def reopen(self, store: AbstractEventStore) -> AbstractEventStore:
        """Close `store` and return another one on the same data."""

    async def test_use_after_close_raises(self) -> None:
        """Every method answers with the same clear error; connect() opens it again."""
        store = await self.make_store()
        await store.connect()
        await store.append("a", added("1"))
        await store.close()
        for call in (
            store.append("a", added("2")),
            store.read("a"),
            store.read_all(),
            store.head(),
            store.get_stream_ids(),
            store.compact("a", 1),
            anext(aiter(store.subscribe())),
            anext(aiter(store.stream_all())),
        ):
            with pytest.raises(EventStoreConnectionError):
                await call
        assert (await store.health_check()).error is not None
        await store.connect()
        assert skus(await store.read("a")) == ["1"]
        await store.close()

    async def test_everything_is_there_after_reopening(self) -> None:
        """Events, versions, positions, tags, removed versions and the head survive."""
        store = await self.make_store()
        await store.append("a", added("1", "2", "3", tags=["x"]))
        await store.append("b", added("4"))
        await store.compact("a", 2)
        await store.delete_stream("b")
        written = await store.read_all()
        store = await self.reopen(store)
        try:
            assert await store.read_all() == written
            assert versions(written) == positions(written) == [3]
            assert await store.head() == 4
            assert await store.get_stream_version("b") == 1
            assert skus(await store.query(tags="x")) == ["3"]
            assert await store.append("b", added("5"), expected_version=1) == 2
            assert await store.append("a", written) == 3
            assert await store.head() == 5
        finally:
            await store.close()
