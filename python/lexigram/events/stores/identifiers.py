"""Names that become part of a statement: tables, collections, Redis namespaces."""

from __future__ import annotations

import re
from typing import Final

from lexigram.events.constants import TABLE_NAME_PATTERN
from lexigram.events.exceptions import EventValidationError

_TABLE_NAME: Final = re.compile(TABLE_NAME_PATTERN)


def validate_table_name(table_name: str, field: str = "table_name") -> None:
    """Check that `table_name` is safe to quote into a statement on every backend.

    Args:
        table_name: Must match `[A-Za-z_][A-Za-z0-9_]{0,62}` (63 characters, PostgreSQL's limit).
        field: Name used in the error.

    Raises:
        EventValidationError: LEX_ERR_EVT_024. Source: semantics of stores, bad input.
    """
    if not isinstance(table_name, str) or _TABLE_NAME.fullmatch(table_name) is None:
        raise EventValidationError(
            f"{field} must match [A-Za-z_][A-Za-z0-9_]{{0,62}} (letters, digits, underscore), got {table_name!r}",
            field=field,
        )
