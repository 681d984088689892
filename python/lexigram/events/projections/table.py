"""A read model that is one table, for the simple case: each event says which row changes how. Source: design, projections."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lexigram.events.exceptions import EventValidationError, ProjectionBuildError
from lexigram.events.projections.base import check_new, settled
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.projections.read_model import check_versioned
from lexigram.events.stores._validation import check_number
from lexigram.events.stores.identifiers import validate_table_name

__all__ = ["Add", "Delete", "TableProjection"]

_TYPE: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9_ ]{0,40}(\(\d+(, ?\d+)?\))?( NOT NULL)?( DEFAULT [-'A-Za-z0-9_.]{1,40})?"
)


@dataclass(frozen=True, slots=True)
class Add:
    """A number to be added to what the column holds (0 in a new row)."""

    amount: Any


@dataclass(frozen=True, slots=True)
class Delete:
    """The row with this key is to be removed."""

    key: Any


class TableProjection(DurableProjection):
    """Keeps one table up to date, exactly once, on SQLite and PostgreSQL.

    Functions registered with `on` get an event and return the columns that it changes, with the key among them: the row is
    inserted or, where it exists, these columns are updated. They may return `Delete(key)`, a list of such changes, or None.

    Args:
        table: Name of the table and of the projection; created when the projection starts.
        key: The column that identifies a row.
        columns: SQL type by column, the key included.
        name: Name of the projection, where it is not that of the table.
        version: From 1, where several versions of the table are to exist at once (`BlueGreenRebuild`); 0 = never.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, naming the argument.

    Example:
        orders = TableProjection("orders", "id", {"id": "TEXT", "total": "INTEGER", "status": "TEXT"})

        @orders.on(OrderPlaced)
        def placed(event: OrderPlaced) -> dict[str, object]:
            return {"id": event.order_id, "total": event.total, "status": "placed"}
    """

    def __init__(
        self, table: str, key: str, columns: Mapping[str, str], *, name: str | None = None, version: int = 0
    ) -> None:
        super().__init__()
        validate_table_name(table)
        for column, sql_type in columns.items():
            validate_table_name(column)
            if not isinstance(sql_type, str) or not _TYPE.fullmatch(sql_type):
                raise EventValidationError(f"columns: {column!r} has no plain SQL type: {sql_type!r}", field="columns")
        if key not in columns:
            raise EventValidationError(f"the key {key!r} is not among the columns {list(columns)}", field="key")
        self.table, self.key, self.columns = table, key, dict(columns)
        self.tables = (table,)  # type: ignore[misc]  # of this object, not of the class
        definitions = ", ".join(
            f'"{column}" {sql_type}{" PRIMARY KEY" if column == key else ""}' for column, sql_type in columns.items()
        )
        self.schema = (f'CREATE TABLE IF NOT EXISTS "{{{table}}}" ({definitions})',)  # type: ignore[misc]
        self._name = table if name is None else name
        if check_number(version, "version"):
            check_versioned(self.tables, self.schema)
            self.read_model, self.version = self._name, version  # type: ignore[misc]
        self._functions: dict[type[Any], Callable[[Any], Any]] = {}
        self._statements: dict[tuple[tuple[str, bool], ...], str] = {}

    @property
    def name(self) -> str:
        """The name given at construction, with the version where there are versions."""
        return f"{self._name}@{self.version}" if self._has_versions else self._name

    @property
    def handles(self) -> tuple[type[Any], ...]:
        """The classes registered by `on`."""
        return tuple(self._functions)

    def on(self, event_type: type[Any]) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        """Return a decorator: the function, plain or asynchronous, says what an event of this class (or a subclass) changes.

        Raises:
            EventValidationError: LEX_ERR_EVT_024; the class has its function already.
        """

        def decorate(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            check_new(event_type, self._functions)
            self._functions[event_type] = function
            self._routes = None
            return function

        return decorate

    async def handle_event(self, event: Any) -> None:
        """Write what the function of the event's class, or of its nearest parent class, returns."""
        function = next((self._functions[base] for base in type(event).__mro__ if base in self._functions), None)
        if function is None:
            return
        changes = await settled(function(event))
        for change in changes if isinstance(changes, list) else [changes]:
            if isinstance(change, Delete):
                await self.db.execute(f'DELETE FROM "{{{self.table}}}" WHERE "{self.key}" = $1', change.key)
            elif isinstance(change, Mapping):
                await self._upsert(change)
            elif change is not None:
                raise ProjectionBuildError(
                    f"{function.__name__} of {self.name!r} must return columns, Delete, a list of them or None, "
                    f"not {type(change).__name__}"
                )

    async def _upsert(self, row: Mapping[str, Any]) -> None:
        unknown = [column for column in row if column not in self.columns]
        if unknown or row.get(self.key) is None:  # SQLite would take NULL for a key, again and again
            reason = f"unknown columns {unknown}" if unknown else f"no key {self.key!r}"
            raise ProjectionBuildError(f"a row of {self.table!r} has {reason}: {list(row)}")
        shape = tuple((column, isinstance(value, Add)) for column, value in row.items())
        statement = self._statements.get(shape)
        if statement is None:
            statement = self._statements[shape] = self._statement(shape)
        values = [value.amount if isinstance(value, Add) else value for value in row.values()]
        await self.db.execute(statement, values)

    def _statement(self, shape: tuple[tuple[str, bool], ...]) -> str:
        columns = ", ".join(f'"{column}"' for column, _ in shape)
        marks = ", ".join(f"${number}" for number in range(1, len(shape) + 1))
        updates = ", ".join(
            f'"{column}" = coalesce(t."{column}", 0) + excluded."{column}"'
            if adds
            else f'"{column}" = excluded."{column}"'
            for column, adds in shape
            if column != self.key
        )
        action = f"DO UPDATE SET {updates}" if updates else "DO NOTHING"
        return f'INSERT INTO "{{{self.table}}}" AS t ({columns}) VALUES ({marks}) ON CONFLICT ("{self.key}") {action}'
