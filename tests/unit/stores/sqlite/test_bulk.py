"""Insertion of many rows with few executions."""

from __future__ import annotations

import sqlite3

import pytest

from lexigram.events.stores.sqlite.bulk import BulkInsert


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 500])
def test_all_rows_are_stored_in_order_by_few_statements(count: int) -> None:
    """64 rows each, then halves of that."""
    connection, statements = sqlite3.connect(":memory:", isolation_level=None), list[str]()
    connection.execute("CREATE TABLE pairs (key INTEGER PRIMARY KEY, text TEXT)")
    connection.set_trace_callback(statements.append)
    BulkInsert("INSERT INTO pairs (key, text)", "(?, CAST(? AS TEXT))").run(
        connection, [value for key in range(count) for value in (key, b"%d" % key)]
    )
    assert len(statements) <= count // 64 + 6
    rows = connection.execute("SELECT key, text FROM pairs ORDER BY rowid").fetchall()
    connection.close()
    assert rows == [(key, str(key)) for key in range(count)]
