"""A table projection keeps one table, exactly once, on the databases that have tables."""

from __future__ import annotations

from typing import Any

import pytest

from lexigram.events import DomainEvent, EventValidationError, ProjectionManager
from lexigram.events.projections.table import Add, Delete, TableProjection
from tests.backends import MakeStore, make_store

__all__ = ["make_store"]

COLUMNS = {"id": "TEXT", "items": "INTEGER", "status": "TEXT"}


class Placed(DomainEvent):
    order: str


class ItemAdded(DomainEvent):
    order: str
    count: int = 1


class Shipped(DomainEvent):
    order: str


class Merged(DomainEvent):
    into: str
    order: str


def orders() -> TableProjection:
    """Return a projection of every kind of change."""
    table = TableProjection("orders", "id", COLUMNS)

    @table.on(Placed)
    def placed(event: Placed) -> dict[str, Any]:
        return {"id": event.order, "items": 0, "status": "placed"}

    @table.on(ItemAdded)
    async def item_added(event: ItemAdded) -> dict[str, Any]:
        return {"id": event.order, "items": Add(event.count)}

    @table.on(Shipped)
    def shipped(event: Shipped) -> dict[str, Any]:
        return {"id": event.order, "status": "shipped"}

    @table.on(Merged)
    def merged(event: Merged) -> list[Any]:
        return [Delete(event.order), {"id": event.into, "status": "merged"}]

    return table


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
async def test_rows_are_inserted_updated_added_to_and_removed(make_store: MakeStore, backend: str) -> None:
    """The table says what the events say, after a rebuild too."""
    async with make_store(backend) as store, ProjectionManager(store) as manager:
        manager.register(orders())
        await store.append("a", [Placed(order="a"), ItemAdded(order="a"), ItemAdded(order="a", count=4)])
        await store.append("b", [Placed(order="b"), ItemAdded(order="b"), Shipped(order="b")])
        await store.append("c", [ItemAdded(order="c", count=2), Merged(into="a", order="c")])
        for _ in range(2):
            await manager.wait_for("orders", await store.head(), timeout=10)
            rows = await store.engine.fetch_all("SELECT id, items, status FROM orders ORDER BY id")  # type: ignore[attr-defined]
            assert [tuple(row) for row in rows] == [("a", 5, "merged"), ("b", 1, "shipped")]
            await manager.rebuild("orders")


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"id": "a", "price": 3}, r"unknown columns \['price'\]"),
        ({"id": None}, "no key 'id'"),
        ({"items": 1}, "no key 'id'"),
    ],
)
async def test_a_wrong_row_faults_the_projection_and_says_what_is_wrong(
    make_store: MakeStore, backend: str, row: dict[str, Any], wrong: str
) -> None:
    """With the table and the column; nothing is half written."""
    table = TableProjection("orders", "id", COLUMNS)
    table.on(Placed)(lambda event: row)
    async with make_store(backend) as store, ProjectionManager(store) as manager:
        manager.register(table)
        await store.append("a", [Placed(order="a")])
        with pytest.raises(Exception, match=wrong):
            await manager.wait_for("orders", 1, timeout=10)
        assert await store.engine.fetch_all("SELECT * FROM orders") == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("no table", "id", COLUMNS), "table"),
        (("orders", "number", COLUMNS), "key"),
        (("orders", "id", {"id": "TEXT; DROP TABLE x"}), "columns"),
        (("orders", "id", {"id": "TEXT", "a b": "TEXT"}), "a b"),
    ],
)
def test_bad_definitions_are_refused_by_name(arguments: Any, field: str) -> None:
    """Before anything is created."""
    with pytest.raises(EventValidationError, match=field):
        TableProjection(*arguments)
