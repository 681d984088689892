"""On PostgreSQL the tables of projections are in the log's schema, found without its name, whatever is elsewhere."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from lexigram.events import (
    BlueGreenRebuild,
    DomainEvent,
    DurableProjection,
    PostgresEventStore,
    ProjectionManager,
    TableProjection,
)
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.projections.table import Add


class Sold(DomainEvent):
    item: str
    cents: int


def table_of(name: str, **options: Any) -> TableProjection:
    """Return a projection with one table."""
    projection = TableProjection(name, "item", {"item": "TEXT", "cents": "BIGINT"}, **options)

    @projection.on(Sold)
    def sold(event: Sold) -> dict[str, Any]:
        return {"item": event.item, "cents": Add(event.cents)}

    return projection


def by_hand(table: str) -> DurableProjection:
    """Return a projection with SQL of its own, whose table is of this name."""

    class Sales(DurableProjection):
        name = table
        handles = (Sold,)
        tables = (table,)
        schema = (
            f"CREATE TABLE IF NOT EXISTS {table} (item TEXT PRIMARY KEY, cents BIGINT NOT NULL)",
            f"CREATE INDEX IF NOT EXISTS {table}_by_cents ON {table} (cents)",
        )

        async def handle_event(self, event: Sold) -> None:
            await self.db.execute(
                f"INSERT INTO {table} AS s VALUES ($1, $2) ON CONFLICT (item) DO UPDATE SET cents = s.cents + excluded.cents",
                event.item,
                event.cents,
            )

    return Sales()


async def places(url: str, name: str) -> list[tuple[str, int]]:
    """Return the schemas with a table or view of this name, and how many rows it shows."""
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch(
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relname = $1 AND c.relkind IN ('r', 'v') ORDER BY 1",
            name,
        )
        return [(row[0], await connection.fetchval(f'SELECT count(*) FROM "{row[0]}"."{name}"')) for row in found]
    finally:
        await connection.close()


def config(url: str, **options: Any) -> PostgresEventStoreConfig:
    """Return a log in a new schema."""
    return PostgresEventStoreConfig(dsn=url, schema_name=f"Log_{uuid4().hex[:8]}", pool_min_size=1, **options)


@pytest.mark.parametrize("make", [table_of, by_hand])
async def test_two_logs_of_one_database_have_tables_of_their_own(postgres_url: str, make: Any) -> None:
    """Of the same name; reading through the store finds the right one, after a restart too."""
    name = f"sales_{uuid4().hex[:8]}"
    configs = [config(postgres_url), config(postgres_url)]
    for count in (1, 2):
        for number, one in enumerate(configs):
            async with PostgresEventStore(one) as store, ProjectionManager(store) as projections:
                projections.register(make(name))
                await store.append("till", [Sold(item="tea", cents=10**number)])
                await projections.wait_for(name, await store.head(), timeout=10)
                assert await store.engine.fetch_all(f"SELECT cents FROM {name}") == [(count * 10**number,)]
                async with store.unit_of_work() as unit:
                    await unit.run(lambda connection: connection.execute("SELECT 1"))
                    assert await unit.fetch_one(f"SELECT cents FROM {name}") == (count * 10**number,)
                assert await store.engine.fetch_all(f"SELECT cents FROM {name}") == [(count * 10**number,)]
    assert await places(postgres_url, name) == [
        (schema, 1) for schema in sorted(str(one.schema_name) for one in configs)
    ]


async def test_a_table_that_is_elsewhere_already_is_used_on(postgres_url: str) -> None:
    """Made by an earlier release, or by the application; no second, empty one appears beside it."""
    name = f"sales_{uuid4().hex[:8]}"
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"CREATE TABLE public.{name} (item TEXT PRIMARY KEY, cents BIGINT NOT NULL)")
    try:
        async with PostgresEventStore(config(postgres_url)) as store, ProjectionManager(store) as projections:
            projections.register(by_hand(name))
            await store.append("till", [Sold(item="tea", cents=1)])
            await projections.wait_for(name, 1, timeout=10)
        assert await places(postgres_url, name) == [("public", 1)]
    finally:
        await connection.execute(f"DROP TABLE public.{name}")
        await connection.close()


async def test_versions_and_their_view_are_in_the_schema(postgres_url: str) -> None:
    """Built, verified, switched, rolled back, dropped: nothing of it elsewhere."""
    name = f"sales_{uuid4().hex[:8]}"
    where = config(postgres_url)
    async with PostgresEventStore(where) as store, ProjectionManager(store) as projections:
        projections.register(table_of(name, version=1))
        await store.append("till", [Sold(item="tea", cents=1), Sold(item="mug", cents=2)])
        rebuild = BlueGreenRebuild(projections, table_of(name, version=2))
        await rebuild.build()
        for against in ("log", "old"):
            report = await rebuild.verify(against)
            assert report.ok
        await rebuild.switch(report)
        await rebuild.roll_back()
        await rebuild.switch(report)
        assert await places(postgres_url, name) == [(where.schema_name, 2)]
        plan = await rebuild.plan_drop(1)
        await rebuild.drop(1, plan.token)
        connection = await asyncpg.connect(postgres_url)
        schemas = await connection.fetch(
            "SELECT DISTINCT relnamespace::regnamespace::text FROM pg_class WHERE relname LIKE $1", f"%{name}%"
        )
        await connection.close()
        assert [row[0].strip('"') for row in schemas] == [where.schema_name]


async def test_with_a_pool_of_the_application(postgres_url: str) -> None:
    """Its sessions stay as they are; units of work, and so projections, find the tables."""
    name = f"sales_{uuid4().hex[:8]}"
    where = config(postgres_url)
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=6) as pool:
        async with PostgresEventStore(where, pool=pool) as store, ProjectionManager(store) as projections:
            projections.register(by_hand(name))
            await store.append("till", [Sold(item="tea", cents=1)])
            await projections.wait_for(name, 1, timeout=10)
            async with store.unit_of_work() as unit:
                assert await unit.fetch_one(f"SELECT cents FROM {name}") == (1,)
            paths = {await pool.fetchval("SELECT current_setting('search_path')") for _ in range(8)}
            assert paths == {'"$user", public'}
    assert await places(postgres_url, name) == [(where.schema_name, 1)]


async def test_other_connections_find_the_tables_after_one_statement(postgres_url: str) -> None:
    """`session_sql` does for a connection of the application what the store does for its own; each time a pool lends one."""
    name = f"sales_{uuid4().hex[:8]}"
    async with PostgresEventStore(config(postgres_url)) as store, ProjectionManager(store) as projections:
        projections.register(by_hand(name))
        await store.append("till", [Sold(item="tea", cents=3)])
        await projections.wait_for(name, 1, timeout=10)

        async def prepare(connection: Any) -> None:
            await connection.execute(store.session_sql)

        async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1, setup=prepare) as pool:
            for _ in range(2):
                assert await pool.fetchval(f"SELECT cents FROM {name}") == 3
            assert await pool.fetchval("SELECT current_setting('search_path')") == (
                f'"$user", public, "{store.database.names.schema}"'
            )
    async with PostgresEventStore(postgres_url, table_prefix=name) as plain:
        connection = await asyncpg.connect(postgres_url)
        assert await connection.fetchval(plain.session_sql) == '"$user", public'
        await connection.close()
