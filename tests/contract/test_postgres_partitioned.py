"""A log whose events table is partitioned keeps every promise of the contract suite, on a real server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.stores.postgres import PostgresEventStore
from lexigram.events.testing.event_store import EventStoreContract
from lexigram.events.testing.samples import ItemAdded, added, positions
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
        """Detached and dropped once its streams were compacted, which takes the events out; numbers stay as they are."""
        for number in range(9):
            await store.append("a", added(str(number)))
        assert await store.compact("a", 7) == 7
        schema = store.database.names.schema
        first = f'"{schema}"."events_first"'
        await store.engine.execute(f"ALTER TABLE {store.engine.names.events} DETACH PARTITION {first}")
        try:
            assert await store.append("a", added("x"), expected_version=9) == 10
            assert positions(await store.read_all()) == [8, 9, 10]
            assert await store.engine.fetch_all(f"SELECT * FROM {first}") == []
        finally:  # the next test has the same tables
            await store.engine.execute(
                f"ALTER TABLE {store.engine.names.events} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO (8)"
            )

    async def test_thousands_of_events_over_all_partitions_are_one_log(self, store: Any) -> None:
        """Written by many at once with retries among them; every way of reading sees each once, in order."""

        async def write(writer: int) -> None:
            for number in range(20):
                events = [ItemAdded(sku=f"{writer}", tags=(f"writer:{writer}",)) for _ in range(10)]
                await store.append(f"s{writer}", events, expected_version=number * 10)
                again = [copy(event) for event in events]
                for event in again:
                    object.__setattr__(event, "sequence_number", None)
                assert await store.append(f"s{writer}", again, expected_version=number * 10) == number * 10 + 10

        await asyncio.gather(*(write(writer) for writer in range(12)))
        assert positions(await store.read_all()) == list(range(1, 2401))
        assert [event.sequence_number async for event in store.stream_by_type(ItemAdded)] == list(range(1, 2401))
        for writer in range(12):
            stream = positions(await store.read(f"s{writer}"))
            assert stream == sorted(stream) == positions(await store.query(tags=[f"writer:{writer}"]))
            assert len(stream) == 200
        rows = await store.engine.fetch_all(
            f"SELECT tableoid::regclass::text, min(position), max(position), count(*) FROM {store.engine.names.events} GROUP BY 1"
        )
        assert sorted(tuple(row)[1:] for row in rows) == [(1, 7, 7), (8, 14, 7), (15, 2400, 2386)]


@pytest.mark.parametrize("word", ["PARTITION BY RANGE (position)", "ATTACH PARTITION", "DEFAULT"])
def test_the_documentation_says_how(word: str) -> None:
    """The page has the statements that the suite above ran."""
    assert word in documented()
