"""The saga store contract over memory and SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexigram.events.exceptions import EventValidationError
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.sagas.store import InMemorySagaStore, SagaStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.testing.saga_store import SagaStoreContract, a_record
from tests.contract.test_sqlite_providers import OverMinimalProvider, OverPublishedProvider


class TestInMemorySagaStore(SagaStoreContract):
    async def make_store(self) -> SagaStore:
        return InMemorySagaStore()


class TestSqlSagaStoreOverMinimalProvider(OverMinimalProvider, SagaStoreContract):
    async def make_store(self) -> SagaStore:
        return SqlSagaStore(self.provider())


class TestSqlSagaStoreOverPublishedProvider(OverPublishedProvider, SagaStoreContract):
    async def make_store(self) -> SagaStore:
        return SqlSagaStore(self.provider())


class TestSqlSagaStore(SagaStoreContract):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = tmp_path / "sagas.db"

    async def make_store(self) -> SagaStore:
        return SqlSagaStore(str(self.path))

    async def test_none_is_no_database(self) -> None:
        """The error names the argument; `./events.db` is no default here."""
        with pytest.raises(EventValidationError) as caught:
            SqlSagaStore(None)
        assert caught.value.field == "db"

    async def test_sagas_survive_reopening(self, store: SagaStore) -> None:
        """Another store on the same file finds them."""
        record = a_record()
        await store.save(record)
        await store.close()
        again = SqlSagaStore(str(self.path))
        assert await again.load("s-1") == record
        await again.close()

    async def test_a_save_in_a_unit_of_work_is_undone_with_it(self) -> None:
        """Sagas and events of one file share the transaction."""
        async with SqliteEventStore(str(self.path)) as events:
            sagas = SqlSagaStore(events)
            await sagas.initialize()
            with pytest.raises(ValueError, match="no"):
                await save_and_fail(events, sagas)
            assert await sagas.load("s-1") is None
            async with events.unit_of_work():
                await sagas.save(a_record())
                assert await sagas.load("s-1") is not None
            assert await sagas.load("s-1") is not None
            await sagas.close()


async def save_and_fail(events: SqliteEventStore, sagas: SagaStore) -> None:
    async with events.unit_of_work():
        await sagas.save(a_record())
        raise ValueError("no")
