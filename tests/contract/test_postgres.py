"""The PostgreSQL stores keep every promise of the contract suites, on a real server, with each form of payload."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple, TypeVar

import asyncpg
import pytest
import pytest_asyncio

from lexigram.events.buses.dead_letter import DeadLetterStore
from lexigram.events.config import PostgresEventStoreConfig, SqliteConfig
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.sagas.postgres import PostgresSagaStore
from lexigram.events.sagas.store import SagaStore
from lexigram.events.stores.postgres import (
    PostgresCheckpointStore,
    PostgresDeadLetterStore,
    PostgresEventStore,
    PostgresIdempotencyStore,
    PostgresSnapshotStore,
)
from lexigram.events.testing.checkpoint_store import CheckpointStoreContract, IdempotencyStoreContract
from lexigram.events.testing.dead_letters import DurableDeadLetterStoreContract
from lexigram.events.testing.event_store import DurableEventStoreContract, EventStoreContract
from lexigram.events.testing.inbox import InboxContract
from lexigram.events.testing.outbox import RowOutboxContract
from lexigram.events.testing.saga_store import SagaStoreContract, a_record
from lexigram.events.testing.samples import added
from lexigram.events.testing.snapshot_store import SnapshotStoreContract
from lexigram.sql.providers.postgres_provider import PostgresProvider
from tests.postgres_schemas import EmptySchemas

S = TypeVar("S")


class OwnSchema:
    """Gives each store of a test tables of its own."""

    payload = "json"

    @pytest.fixture(autouse=True)
    def _configs(self, postgres_url: str) -> None:
        schemas = EmptySchemas(postgres_url, self.payload)
        self.configs: Iterator[PostgresEventStoreConfig] = (schemas.config(number) for number in count())
        self._made: list[Any] = []

    @pytest_asyncio.fixture(autouse=True)
    async def _close(self, _configs: None) -> AsyncIterator[None]:
        yield
        for store in self._made:
            await store.close()

    def made(self, store: S) -> S:
        """Close this store after the test."""
        self._made.append(store)
        return store


class TestPostgresOutbox(OwnSchema, RowOutboxContract):
    async def make_store(self) -> PostgresEventStore:
        return PostgresEventStore(next(self.configs))


class TestPostgresOutboxJsonb(TestPostgresOutbox):
    payload = "jsonb"


class TestPostgresOutboxBinary(TestPostgresOutbox):
    payload = "binary"

    async def test_rows_carry_the_full_event(self, outbox: Any) -> None:
        """As elsewhere; the payload is binary."""
        (event,) = added("a")
        await outbox.store.append("order-1", [event])
        (entry,) = await outbox.get_pending(limit=10)
        assert (entry.event, entry.key) == (event, "order-1")


class TestPostgresInbox(OwnSchema, InboxContract):
    async def make_stores(self) -> tuple[PostgresEventStore, PostgresIdempotencyStore]:
        events = PostgresEventStore(next(self.configs))
        return events, PostgresIdempotencyStore(events)


class TestPostgresEventStore(OwnSchema, DurableEventStoreContract):
    async def make_store(self, **options: Any) -> PostgresEventStore:
        self.config = next(self.configs)
        return PostgresEventStore(self.config, **options)

    async def reopen(self, store: Any) -> PostgresEventStore:
        await store.close()
        return PostgresEventStore(self.config)


class TestPostgresEventStoreWithJsonb(OwnSchema, EventStoreContract):
    payload = "jsonb"

    async def make_store(self, **options: Any) -> PostgresEventStore:
        return PostgresEventStore(next(self.configs), **options)


class TestPostgresEventStoreWithBinaryPayloads(OwnSchema, EventStoreContract):
    payload = "binary"

    async def make_store(self, **options: Any) -> PostgresEventStore:
        return PostgresEventStore(next(self.configs), codec=EventCodec(format="binary"), **options)


class TestPostgresDeadLetterStore(OwnSchema, DurableDeadLetterStoreContract):
    async def make_store(self) -> DeadLetterStore:
        self.config = next(self.configs)
        return self.made(PostgresDeadLetterStore(self.config))

    async def reopen(self, store: Any) -> DeadLetterStore:
        await store.close()
        return self.made(PostgresDeadLetterStore(self.config))


class TestSagaStoreOnPostgres(OwnSchema, SagaStoreContract):
    async def make_store(self) -> SagaStore:
        return self.made(PostgresSagaStore(next(self.configs)))

    async def test_a_save_in_a_unit_of_work_is_undone_with_it(self) -> None:
        """Sagas and events of one database share the transaction."""
        async with PostgresEventStore(next(self.configs)) as events:
            sagas = PostgresSagaStore(events)
            await sagas.initialize()
            with pytest.raises(ValueError, match="no"):
                async with events.unit_of_work():
                    await sagas.save(a_record())
                    await events.append("a", added("1"))
                    raise ValueError("no")
            assert await sagas.load("s-1") is None
            assert await events.head() == 0
            async with events.unit_of_work():
                await sagas.save(a_record())
                assert await sagas.load("s-1") is not None
            assert await sagas.load("s-1") is not None
            await sagas.close()


class TestPostgresSnapshotStore(OwnSchema, SnapshotStoreContract):
    async def make_store(self) -> PostgresSnapshotStore:
        return self.made(PostgresSnapshotStore(next(self.configs)))


class TestPostgresCheckpointStore(OwnSchema, CheckpointStoreContract):
    async def make_store(self) -> PostgresCheckpointStore:
        return self.made(PostgresCheckpointStore(next(self.configs)))


class TestPostgresIdempotencyStore(OwnSchema, IdempotencyStoreContract):
    async def make_store(self) -> PostgresIdempotencyStore:
        return self.made(PostgresIdempotencyStore(next(self.configs)))


class Configured(NamedTuple):
    """A provider that says where its database is, and the tables to use there."""

    config: PostgresEventStoreConfig
    provider: Any


class TestPostgresEventStoreWithThePublishedProvider(OwnSchema, DurableEventStoreContract):
    """The constructor of the documents: a configuration of tables, and the framework's provider for the address."""

    async def make_store(self, **options: Any) -> PostgresEventStore:
        config = next(self.configs)
        assert config.dsn is not None
        published: Any = PostgresProvider
        provider = published(config.dsn.get_secret_value())
        tables = PostgresEventStoreConfig(schema_name=config.schema_name, pool_min_size=1)
        self.configured = Configured(tables, provider)
        return PostgresEventStore(tables, provider, **options)

    async def reopen(self, store: Any) -> PostgresEventStore:
        await store.close()
        return PostgresEventStore(*self.configured)


def test_a_provider_without_an_address_is_refused() -> None:
    """The error says what to give instead."""
    with pytest.raises(EventValidationError, match=r"config\.dsn") as caught:
        PostgresEventStore(None, object())  # type: ignore[arg-type]
    assert caught.value.field == "provider"
    with pytest.raises(EventValidationError, match="needs a dsn"):
        PostgresEventStore()
    with pytest.raises(EventValidationError, match=r"config must be a postgresql:// DSN .* got SqliteConfig"):
        PostgresEventStore(SqliteConfig())


async def test_a_pool_may_be_given_wherever_the_address_may_be(postgres_url: str) -> None:
    """As configuration, as provider, or by its name; it stays open."""
    schemas = EmptySchemas(postgres_url, purpose="pool")
    tables, heads = PostgresEventStoreConfig(schema_name=schemas.config(0).schema_name), []
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=4) as pool:
        for store in (
            PostgresEventStore(pool, table_prefix=f"{tables.schema_name}_"),
            PostgresEventStore(tables, pool),
            PostgresEventStore(tables, pool=pool),
        ):
            async with store:
                await store.append("s", added("1"))
                heads.append(await store.head())
        assert heads == [1, 1, 2]
        assert await pool.fetchval("SELECT 1") == 1


async def test_a_table_name_may_be_as_long_as_the_server_allows(postgres_url: str) -> None:
    """The tables beside it keep names of their own; one name for two tables is refused."""
    config = EmptySchemas(postgres_url, purpose="long").config(0)
    for name in ("x" * 63, "x" * 62 + "y"):
        async with PostgresEventStore(replace(config, events_table=name)) as store:
            assert await store.append("s", added("1")) == 1
            assert await store.head() == 1
    with pytest.raises(EventValidationError, match="must differ"):
        PostgresEventStore(replace(config, events_table="one", snapshots_table="one"))
