"""Insertion of many rows with few executions.

`sqlite3` gives up the interpreter for each execution and then waits for its turn: with `executemany` once for every row.
While other threads are busy, a batch of 500 rows would wait 500 times; all rows of one statement wait once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

_ROWS: Final = (64, 32, 16, 8, 4, 2, 1)
"""Rows of one statement. Few sizes, so that all of them stay prepared, and fewer than 999 parameters each."""


class BulkInsert:
    """Inserts any number of rows into one table.

    Args:
        into: The statement up to VALUES.
        row: The values of one row in parentheses, with a `?` for each parameter.
    """

    __slots__ = ("_columns", "_statements")

    def __init__(self, into: str, row: str) -> None:
        self._columns = row.count("?")
        self._statements = [(rows, f"{into} VALUES {', '.join([row] * rows)}") for rows in _ROWS]

    def run(self, connection: sqlite3.Connection, values: Sequence[Any]) -> None:
        """Insert rows whose parameters follow each other; a constraint leaves the rows before it to be undone."""
        start, end = 0, len(values)
        for rows, sql in self._statements:
            size = rows * self._columns
            while end - start >= size:
                connection.execute(sql, values[start : start + size])
                start += size
