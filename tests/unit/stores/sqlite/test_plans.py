"""What a read costs follows what it returns: every statement uses an index, in order, without sorting the log."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores._primitives import ReadRequest
from lexigram.events.stores.condition import EventQuery
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.stores.sqlite.names import TableNames
from lexigram.events.stores.sqlite.statements import MAX_TYPE_ARMS, EventStatements
from lexigram.events.testing.samples import ItemAdded, ItemRemoved, added

STATEMENTS = EventStatements(TableNames(), text=True)


@pytest_asyncio.fixture
async def store() -> AsyncIterator[SqliteEventStore]:
    """A store that holds some events of several types and tags, analysed."""
    async with SqliteEventStore(":memory:") as store:
        for number in range(50):
            await store.append(f"s{number}", [*added("1", "2", tags=["x", f"t{number}"]), ItemRemoved(sku="1")])
        await store.engine.execute("ANALYZE")
        yield store


async def plan(store: SqliteEventStore, sql: str, params: object) -> str:
    """The steps SQLite takes, one per line."""
    rows = await store.engine.fetch_all(f"EXPLAIN QUERY PLAN {sql}", params)  # type: ignore[arg-type]
    return "\n".join(str(row[3]) for row in rows)


async def page_plan(store: SqliteEventStore, request: ReadRequest) -> str:
    """The plan of one page."""
    keys = {"a": [1], "b": [2], "c": [3]}
    statement = STATEMENTS.page(request, keys)
    assert statement is not None
    return await plan(store, *statement)


@pytest.mark.parametrize(
    "request_",
    [
        ReadRequest(10, 100),
        ReadRequest(10, 100, up_to=50),
        ReadRequest(10, 100, partition=(1, 4)),
        ReadRequest(10, 100, with_stream_ids=True),
    ],
)
async def test_a_page_of_the_log_starts_at_its_position(store: SqliteEventStore, request_: ReadRequest) -> None:
    """One search by position for the page, one by key for each row's type and stream."""
    steps = await page_plan(store, request_)
    assert "SEARCH e USING INTEGER PRIMARY KEY (rowid>?" in steps
    assert "SCAN e" not in steps
    assert "INDEX events" not in steps


async def test_types_are_merged_from_the_type_index(store: SqliteEventStore) -> None:
    """Each type in order from its part of the index, merged as far as the page goes; nothing is sorted."""
    resolved = EventQuery([ItemAdded, ItemRemoved]).resolve(store._registry)
    keys = await store.engine.read(store._log.type_keys)
    statement = STATEMENTS.page(ReadRequest(10, 100, query=resolved), keys)
    assert statement is not None
    steps = await plan(store, *statement)
    assert steps.count("USING COVERING INDEX events_by_type (type=? AND rowid>?)") == 2
    assert "MERGE (UNION)" in steps
    assert steps.count("TEMP B-TREE") <= 1, "at most the page itself"


async def test_tags_are_searched_in_the_tag_table(store: SqliteEventStore) -> None:
    """The first tag in order of position, the others and the type looked up."""
    resolved = EventQuery([ItemAdded], tags=["t1", "x"]).resolve(store._registry)
    keys = await store.engine.read(store._log.type_keys)
    statement = STATEMENTS.page(ReadRequest(10, 100, query=resolved), keys)
    assert statement is not None
    steps = await plan(store, *statement)
    assert "SEARCH g0 USING PRIMARY KEY (tag=? AND position>?)" in steps
    assert "SEARCH g1 USING PRIMARY KEY (tag=? AND position=?)" in steps
    assert "SCAN g" not in steps
    conflict = STATEMENTS.conflicts(resolved, keys, 10)
    assert conflict is not None
    assert "SCAN" not in await plan(store, *conflict)


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        (STATEMENTS.read, ("a", 1, 9, 9)),
        (STATEMENTS.stream, ("a",)),
        (STATEMENTS.streams, ("a",) * 50),
        (STATEMENTS.by_id, (b"x",)),
        (STATEMENTS.head, ()),
        (STATEMENTS.delete_events, (1, 9)),
    ],
)
async def test_lookups_by_key_scan_nothing(store: SqliteEventStore, sql: str, params: tuple[object, ...]) -> None:
    """Stream, id and head are found by index."""
    steps = await plan(store, sql, params)
    assert "SCAN e" not in steps
    assert "SCAN s" not in steps
    assert "TEMP B-TREE" not in steps


async def test_more_types_than_indexes_to_merge_are_filtered() -> None:
    """A query with a great many types still answers, and in order."""
    kinds = [type(f"Kind{number}", (DomainEvent,), {"__module__": __name__}) for number in range(MAX_TYPE_ARMS + 5)]
    async with SqliteEventStore(":memory:") as store:
        for kind in kinds:
            await store.append("a", [kind(), ItemRemoved(sku="1")])
        found = await store.query(kinds)
        assert [type(event) for event in found] == kinds
        assert len(await store.query(kinds, limit=7)) == 7
