"""Reads on PostgreSQL touch what they return: no plan walks, joins or sorts the rest of the log for one page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events import PostgresEventStore
from lexigram.events.stores._primitives import ReadRequest
from lexigram.events.stores.condition import EventQuery
from lexigram.events.testing.samples import ItemAdded, ItemRemoved
from tests.postgres_schemas import EmptySchemas

EVENTS, LIMIT = 6_000, 50


@pytest_asyncio.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresEventStore]:
    """A log of many events in many streams, every hundredth with two tags of its own."""
    async with PostgresEventStore(EmptySchemas(postgres_url, purpose="plans").config()) as opened:
        for start in range(0, EVENTS, 100):
            events = [
                (ItemRemoved if number % 5 == 0 else ItemAdded)(
                    sku=str(number), tags=("rare", "seldom", "all") if number % 100 == 0 else ("all",)
                )
                for number in range(start, start + 100)
            ]
            await opened.append(f"s{start % 1_700}", events)
        yield opened


REQUESTS = {
    "all": ReadRequest(EVENTS // 2, LIMIT),
    "one type": ReadRequest(EVENTS // 2, LIMIT, query=EventQuery(ItemAdded)),  # type: ignore[arg-type]
    "two types": ReadRequest(EVENTS // 2, LIMIT, query=EventQuery([ItemAdded, ItemRemoved])),  # type: ignore[arg-type]
    "a tag": ReadRequest(EVENTS // 2, LIMIT, query=EventQuery(tags="all")),  # type: ignore[arg-type]
    "tags": ReadRequest(0, None, query=EventQuery(tags=["rare", "seldom"])),  # type: ignore[arg-type]
    "a tag, without limit": ReadRequest(0, None, query=EventQuery([ItemRemoved], "rare")),  # type: ignore[arg-type]
    "a partition": ReadRequest(EVENTS // 2, LIMIT, partition=(0, 2)),
    "a type in a partition": ReadRequest(EVENTS // 2, LIMIT, query=EventQuery(ItemAdded), partition=(1, 2)),  # type: ignore[arg-type]
    "with stream ids": ReadRequest(EVENTS // 2, LIMIT, with_stream_ids=True),
}


def touched(node: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield each scan of a plan with the rows that it has read, those filtered out included."""
    rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    if node["Node Type"].endswith("Scan"):
        yield node["Node Type"], rows * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from touched(child)


@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_page_reads_few_rows_more_than_it_returns(store: PostgresEventStore, analyzed: bool) -> None:
    """Of any kind, in the middle of the log, before the server has statistics and after."""
    names, registry = store.engine.names, store._registry
    if analyzed:
        for table in (names.events, names.streams, names.tags, names.types):
            await store.engine.execute(f"ANALYZE {table}")
    for kind, request in REQUESTS.items():
        query: Any = request.query
        resolved = ReadRequest(
            request.after,
            request.limit,
            query=None if query is None else query.resolve(registry),
            partition=request.partition,
            with_stream_ids=request.with_stream_ids,
        )
        sql, params = store._statements.page(resolved)
        for generic in ("force_custom_plan", "force_generic_plan"):
            async with store.engine.transaction() as connection:
                await connection.execute(f"SET LOCAL plan_cache_mode = {generic}")
                plan = await connection.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", *params)
            root = json.loads(plan)[0]["Plan"]
            assert 0 < root["Actual Rows"] <= EVENTS / 100
            for scan, rows in touched(root):
                assert rows <= 10 * LIMIT, f"{kind}: {scan} of {rows} rows ({generic})\n{json.dumps(root, indent=1)}"
