"""Versions of a read model: each has tables of its own, readers see one of them through views, one row says which.

A version never changes where it writes. A switch changes views and row in one transaction that no batch of any version
overlaps, in whatever process it runs. Source: design, section projections.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.exceptions import ConcurrencyError, EventValidationError, ProjectionBuildError
from lexigram.events.projections.read_model_sql import ReadModelSql, sql_of
from lexigram.events.stores.unit_of_work import UnitOfWork, current_unit_of_work

if TYPE_CHECKING:
    from lexigram.events.projections.durable import DurableProjection

_NAMED: Final = re.compile(r"\{(\w+)\}")
_MADE: Final = re.compile(
    r"\s*CREATE\s+(?:UNIQUE\s+)?(?:TABLE|INDEX)\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?(\S+)", re.IGNORECASE
)
_VERSIONED_TABLE: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")


@lru_cache(maxsize=512)
def named(sql: str, tables: tuple[str, ...], suffix: str) -> str:
    """Return a statement with `{table}` replaced by the name of this version's table.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; a versioned projection names a table without braces.
    """
    if suffix:
        for table in tables:
            if re.search(rf'\b(FROM|JOIN|INTO|UPDATE|TABLE|EXISTS)\s+"?{table}\b', sql, re.IGNORECASE):
                raise EventValidationError(
                    f"write {{{table}}} for the table {table!r} of this version; "
                    f"the bare name is the view that readers use: {sql}",
                    field="sql",
                )
    return _NAMED.sub(lambda match: f"{match[1]}{suffix}" if match[1] in tables else match[0], sql)


def check_versioned(tables: Sequence[str], schema: Sequence[str]) -> None:
    """Refuse definitions of which two versions could not exist side by side.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, naming what is wrong.
    """
    for table in tables:
        if not _VERSIONED_TABLE.fullmatch(table):
            raise EventValidationError(
                f"a versioned table needs a name of at most 48 lower-case letters, digits and _, not {table!r}",
                field="tables",
            )
    for statement in schema:
        made = _MADE.match(statement)
        if made is not None and not any(f"{{{table}}}" in made[1] for table in tables):
            raise EventValidationError(
                f"each version needs a {made[1]} of its own: put {{table}} into the name, as in "
                f"CREATE INDEX {{{tables[0] if tables else 'table'}}}_by_date",
                field="schema",
            )


@dataclass(frozen=True)
class ReadModelState:
    """What the row of a read model says.

    Args:
        active: The version that readers see.
        switches: Position and version: effects of events after the position belong to the version.
        tables: The tables of each version that exists, under the names that readers use.
        dropped: Versions that were dropped; their numbers are not used again.
    """

    active: int
    switches: tuple[tuple[int, int], ...]
    tables: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    dropped: frozenset[int] = frozenset()

    @classmethod
    def of(cls, active: int, details: str) -> ReadModelState:
        """Return the state that a row holds."""
        found = json.loads(details)
        return cls(
            int(active),
            tuple((int(position), int(version)) for position, version in found["switches"]),
            {int(version): tuple(tables) for version, tables in found["tables"].items()},
            frozenset(found["dropped"]),
        )

    @property
    def details(self) -> str:
        """Everything but the active version, as the row holds it."""
        tables = {str(version): list(names) for version, names in self.tables.items()}
        return json.dumps({"switches": self.switches, "tables": tables, "dropped": sorted(self.dropped)})

    @property
    def seen(self) -> frozenset[int]:
        """The versions that readers have seen at some time."""
        return frozenset(version for _, version in self.switches)

    def before(self, version: int) -> int | None:
        """Return the version, if it still exists, that readers saw before they were switched to this one.

        That they came back to it from a later one, which was rolled back, does not count.
        """
        pairs = pairwise(number for _, number in self.switches)
        found = [earlier for earlier, later in pairs if later == version and earlier in self.tables]
        return next((earlier for earlier in reversed(found) if earlier < version), found[-1] if found else None)

    def speaks_at(self, position: int) -> int:
        """Return the version to which the effects of the event at a position belong: exactly one."""
        return next((version for after, version in reversed(self.switches) if position > after), self.switches[0][1])

    def switched(self, version: int, position: int) -> ReadModelState:
        """Return the state after a switch, effects handed over at a position."""
        return replace(self, active=version, switches=(*self.switches, (position, version)))

    def without(self, version: int) -> ReadModelState:
        """Return the state after a version was dropped."""
        tables = {number: names for number, names in self.tables.items() if number != version}
        return replace(self, tables=tables, dropped=self.dropped | {version})


class ReadModel:
    """The row and the views of one read model, in the event store's database.

    Args:
        store: The event store; SQLite or PostgreSQL.
        name: Name of the read model, the same for all versions.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; the store keeps no tables.
    """

    def __init__(self, store: Any, name: str) -> None:
        self.name = name
        self.sql: ReadModelSql = sql_of(store)
        registry = self.sql.registry
        self._select = f"SELECT version, details FROM {registry} WHERE name = ?"
        self._insert = f"INSERT INTO {registry} (name, version, details) VALUES (?, ?, ?)"
        self._update = f"UPDATE {registry} SET version = ?, details = ? WHERE name = ?"

    async def state(self, reader: Any) -> ReadModelState | None:
        """Return the state as `reader` (an engine, or a unit of work) sees it; None before the first version began."""
        row = await reader.fetch_one(self._select, (self.name,))
        return None if row is None else ReadModelState.of(row[0], row[1])

    async def save(self, unit: UnitOfWork, state: ReadModelState) -> None:
        """Store the state; the registry is locked."""
        await unit.execute(self._update, (state.active, state.details, self.name))

    async def check(self, version: int) -> ReadModelState:
        """Return the state in the current transaction, and keep switches out until it ends.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004; the version was dropped meanwhile.
        """
        return self._checked(await self.state(current_unit_of_work()), version)

    def look(self, connection: Any, version: int) -> ReadModelState:
        """The same as `check` on SQLite's writing connection, in its thread."""
        row = connection.execute(self._select, (self.name,)).fetchone()
        return self._checked(None if row is None else ReadModelState.of(row[0], row[1]), version)

    def _checked(self, state: ReadModelState | None, version: int) -> ReadModelState:
        if state is None or version not in state.tables:
            raise ConcurrencyError(f"Version {version} of the read model {self.name!r} was dropped")
        return state

    async def begin(self, projection: DurableProjection) -> None:
        """Prepare the database for the tables of a version, in the current transaction; then they are made.

        Raises:
            ProjectionBuildError: LEX_ERR_EVT_015; this version was dropped.
        """
        unit = current_unit_of_work()
        assert unit is not None
        await self.sql.create_registry(unit)
        state = await self.state(unit)
        if state is not None and projection.version in state.dropped:
            raise ProjectionBuildError(
                f"Version {projection.version} of the read model {self.name!r} was dropped; "
                "take it out of the program, or give it the next number"
            )
        if state is None:
            await self._adopt(unit, projection)

    async def register(self, projection: DurableProjection) -> None:
        """Note a version whose tables are made; readers see the first one at once, others after a switch."""
        unit = current_unit_of_work()
        assert unit is not None
        version, tables = projection.version, tuple(projection.tables)
        state = await self.state(unit)
        if state is not None and state.tables.get(version) == tables:
            return
        await self.sql.lock(unit)
        state = await self.state(unit)
        if state is None:
            state = ReadModelState(version, ((0, version),), {version: tables})
            await unit.execute(self._insert, (self.name, version, state.details))
            for table in tables:
                await self.sql.point(unit, table, projection._physical(table))
            return
        state = replace(state, tables={**state.tables, version: tables})
        await self.save(unit, state)
        if version == state.active:  # it has got one more table
            for table in tables:
                await self.sql.point(unit, table, projection._physical(table))

    async def point(self, unit: UnitOfWork, before: ReadModelState, after: ReadModelState) -> None:
        """Let readers see another version; the registry is locked."""
        for table in set(before.tables.get(before.active, ())) - set(after.tables[after.active]):
            await unit.execute(f'DROP VIEW IF EXISTS "{table}"')
        for table in after.tables[after.active]:
            await self.sql.point(unit, table, versioned(table, after.active))
        await self.save(unit, after)

    async def _adopt(self, unit: UnitOfWork, projection: DurableProjection) -> None:
        """Take over tables and positions of the same projection from before it had versions."""
        adopted = False
        for table in projection.tables:
            if await self.sql.is_table(unit, table) and not await self.sql.is_table(unit, projection._physical(table)):
                await unit.execute(f'ALTER TABLE "{table}" RENAME TO "{projection._physical(table)}"')
                adopted = True
        if adopted:
            checkpoints = self.sql.checkpoints
            rows = await unit.fetch_all(
                f"SELECT name, position FROM {checkpoints} WHERE position IS NOT NULL AND (name = ? OR name LIKE ?)",
                (self.name, f"{self.name}/%"),
            )
            for name, position in rows:
                await unit.execute(
                    f"INSERT INTO {checkpoints} (name, position) VALUES (?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET position = excluded.position",
                    (projection.name + name.removeprefix(self.name), position),
                )


def versioned(table: str, version: int) -> str:
    """Return the name of a version's table."""
    return f"{table}__v{version}"
