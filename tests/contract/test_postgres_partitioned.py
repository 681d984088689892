"""A log whose events table is partitioned keeps every promise of the contract suite, on a real server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.stores.postgres import PostgresEventStore
from lexigram.events.testing.event_store import EventStoreContract
from lexigram.events.testing.samples import added, positions
from tests.postgres_schemas import EmptySchemas

PAGE = Path(__file__).parent.parent.parent / "docs" / "stores-postgres.md"


def documented() -> str:
    """Return the SQL that the documentation gives for partitioning a log."""
    found = re.search(r"<!-- partitioning -->\n+```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


async def partition(config: PostgresEventStoreConfig) -> None:
    """Make the tables, then run the documented conversion with small partitions, unless that has been done."""
    async with PostgresEventStore(config) as store:
        fetch = store.engine.fetch_all
        await fetch("SELECT 1")
        kind = await fetch(
            "SELECT c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = $1 AND c.relname = 'events'",
            (config.schema_name,),
        )
        if kind[0][0] == "p":
            return
        import asyncpg

        connection = await asyncpg.connect(config.dsn.get_secret_value())
        try:
            await connection.execute(f'SET search_path TO "{config.schema_name}"')
            await connection.execute(documented().replace("1000001", "8").replace("2000001", "15"))
        finally:
            await connection.close()


class TestPartitionedPostgresEventStore(EventStoreContract):
    @pytest_asyncio.fixture(autouse=True)
    async def _configs(self, postgres_url: str) -> AsyncIterator[None]:
        schemas, self.number = EmptySchemas(postgres_url, purpose="parts"), 0
        self.schemas = schemas
        yield

    async def make_store(self, **options: Any) -> PostgresEventStore:
        config = self.schemas.config(self.number)
        self.number += 1
        await partition(config)
        return PostgresEventStore(config, **options)

    async def test_events_are_spread_over_the_partitions(self, store: Any) -> None:
        """By position; readers see one log."""
        for number in range(20):
            await store.append(f"s{number % 3}", added(str(number)))
        rows = await store.engine.fetch_all(
            f"SELECT tableoid::regclass::text, count(*) FROM {store.engine.names.events} GROUP BY 1"
        )
        assert sorted(row[1] for row in rows) == [6, 7, 7]
        assert positions(await store.read_all()) == list(range(1, 21))

    async def test_an_old_partition_can_be_taken_away(self, store: Any) -> None:
        """After its streams were compacted, which takes the events out; the versions stay."""
        for number in range(9):
            await store.append("a", added(str(number)))
        assert await store.compact("a", 7) == 7
        await store.engine.fetch_all(f"SELECT 1 FROM {store.engine.names.events}")
        assert await store.append("a", added("x"), expected_version=9) == 10
        assert positions(await store.read_all()) == [8, 9, 10]


@pytest.mark.parametrize("word", ["PARTITION BY RANGE (position)", "ATTACH PARTITION", "DEFAULT"])
def test_the_documentation_says_how(word: str) -> None:
    """The page has the statements that the suite above ran."""
    assert word in documented()
