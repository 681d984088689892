"""The tables of one log, by name. Several logs share a database under different schemas, prefixes or table names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from zlib import crc32

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores.identifiers import validate_table_name

_LONGEST: Final = 63
"""Characters that PostgreSQL keeps of a name."""


@dataclass(frozen=True, slots=True)
class TableNames:
    """Quoted names of tables, indexes and functions.

    Args:
        schema: Schema they are in; None = where the connection's `search_path` finds or creates them.
        prefix: Put before each name.
        events_table: The table of events; the tables beside it are named after it (`events` gives `event_streams`).
        snapshots_table: The table of snapshots.
    """

    schema: str | None = None
    prefix: str = ""
    events_table: str = "events"
    snapshots_table: str = "snapshots"

    def __post_init__(self) -> None:
        if self.schema is not None:
            validate_table_name(self.schema, "schema_name")
        validate_table_name(f"{self.prefix}{self.events_table}", "events_table")
        validate_table_name(f"{self.prefix}{self.snapshots_table}", "snapshots_table")
        if self.events_table == self.snapshots_table:
            raise EventValidationError(
                f"events_table and snapshots_table must differ, both are {self.events_table!r}", field="snapshots_table"
            )

    def _beside(self, name: str) -> str:
        base = f"{self.prefix}{self.events_table.removesuffix('s')}"
        if len(base) + len(name) < _LONGEST:
            return f"{base}_{name}"
        # The server would cut the end, which tells the tables apart.
        mark = f"{crc32(base.encode()):08x}"
        return f"{base[: _LONGEST - len(mark) - len(name) - 2]}_{mark}_{name}"

    def _qualified(self, name: str) -> str:
        return f'"{name}"' if self.schema is None else f'"{self.schema}"."{name}"'

    def index(self, name: str) -> str:
        """Return the quoted name of an index, which is always in its table's schema."""
        return f'"{self._beside(name.removeprefix("event_"))}"'

    def beside(self, name: str) -> str:
        """Return the quoted name of another table or function of this log."""
        return self._qualified(self._beside(name))

    def of_outbox(self, name: str, suffix: str = "") -> str:
        """Return the quoted name of an outbox's table or function; the usual one is named after the log."""
        if name == "event_outbox":
            return self.beside(f"outbox{suffix}")
        return self._qualified(f"{self.prefix}{name}{suffix}")

    @property
    def events(self) -> str:
        """One row per event, by global position."""
        return self._qualified(f"{self.prefix}{self.events_table}")

    @property
    def snapshots(self) -> str:
        """Aggregate states by version."""
        return self._qualified(f"{self.prefix}{self.snapshots_table}")

    @property
    def meta_name(self) -> str:
        """Name of the table `meta` as the catalogue has it."""
        return self._beside("meta")

    @property
    def meta(self) -> str:
        """Schema version."""
        return self.beside("meta")

    @property
    def head(self) -> str:
        """One row: the highest position assigned."""
        return self.beside("head")

    @property
    def streams(self) -> str:
        """One row per stream: its key, its id, and the version that survives compaction."""
        return self.beside("streams")

    @property
    def types(self) -> str:
        """One row per event type: its key and its names."""
        return self.beside("types")

    @property
    def tags(self) -> str:
        """One row per tag of an event."""
        return self.beside("tags")

    @property
    def checkpoints(self) -> str:
        """Positions of projections and who owns them."""
        return self.beside("checkpoints")

    @property
    def idempotency(self) -> str:
        """Messages that a consumer has processed."""
        return self.beside("idempotency")

    @property
    def dead_letters(self) -> str:
        """Events that a handler could not handle."""
        return self.beside("dead_letters")

    @property
    def sagas(self) -> str:
        """States of sagas."""
        return self.beside("sagas")

    @property
    def append(self) -> str:
        """The function that stores a batch of appends."""
        return self.beside("append_v2")

    @property
    def append_next(self) -> str:
        """The function that stores a batch which was numbered by the client."""
        return self.beside("append_next_v2")

    @property
    def matches(self) -> str:
        """The function that finds an event which an append condition watches."""
        return self.beside("matches_v1")


def find_also(schema: str, *, is_local: bool = False) -> str:
    """Return the statement by which tables of a schema are found without its name, behind those that were found before.

    Args:
        is_local: To the end of the transaction; False = of the session.
    """
    local = "true" if is_local else "false"
    return f"""SELECT set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), '"{schema}"'), {local})"""
