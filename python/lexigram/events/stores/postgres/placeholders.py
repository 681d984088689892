"""Statements written with `?`, as the stores share them, in PostgreSQL's numbered form."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import count
from typing import Final

_PARTS: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\$\d+|\?", re.DOTALL)


@lru_cache(maxsize=1024)
def numbered(sql: str) -> str:
    """Return `sql` with `?` as `$1`, `$2`, …; one that has numbered parameters already is left as it is.

    Question marks in literals, names and comments are kept; so are operators such as `@?` in a numbered statement.
    """
    if "?" not in sql or any(match[0].startswith("$") for match in _PARTS.finditer(sql)):
        return sql
    numbers = count(1)
    return _PARTS.sub(lambda match: f"${next(numbers)}" if match[0] == "?" else match[0], sql)
