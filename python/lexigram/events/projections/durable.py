"""Projections whose rows live in the event store's database: rows and checkpoint commit together."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from lexigram.events.exceptions import EventValidationError, ProjectionBuildError
from lexigram.events.projections.base import ProjectionProtocol
from lexigram.events.projections.read_model import ReadModelState, check_versioned, named, versioned
from lexigram.events.stores.unit_of_work import UnitOfWork, current_unit_of_work

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_NUMBERED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(\d+)")


@lru_cache(maxsize=512)
def positional(sql: str) -> tuple[str, tuple[int, ...] | None]:
    """Rewrite `$1`-style parameters into `?`; return the order in which values are taken, None if there are none."""
    order: list[int] = []

    def rewrite(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group(0)  # a quoted literal or name
        order.append(int(match.group(1)) - 1)
        return "?"

    text = _NUMBERED.sub(rewrite, sql)
    return text, tuple(order) if order else None


class ReadModelDatabase:
    """The database as a projection sees it: every statement joins the transaction that also moves the checkpoint.

    Parameters are written `?` or `$1`, and passed one by one or as a single sequence. `{orders}` is the table of the
    projection's version where `orders` is among its `tables`.
    """

    __slots__ = ("_projection",)

    def __init__(self, projection: DurableProjection) -> None:
        self._projection = projection

    async def execute(self, sql: str, *params: Any) -> Any:
        """Run one statement."""
        unit = self.unit
        return await unit.execute(*bind(self._projection._named(sql), params, takes_numbered(unit)))

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> Any:
        """Run one statement for each row of parameters."""
        unit = self.unit
        sql = self._projection._named(sql)
        if takes_numbered(unit):
            return await unit.executemany(sql, rows)
        text, order = positional(sql)
        chosen = rows if order is None else [[row[index] for index in order] for row in rows]
        return await unit.executemany(text, chosen)

    async def fetch_all(self, sql: str, *params: Any) -> list[Any]:
        """Return all rows of a query, changes of this transaction included."""
        unit = self.unit
        return list(await unit.fetch_all(*bind(self._projection._named(sql), params, takes_numbered(unit))))

    async def fetch_one(self, sql: str, *params: Any) -> Any:
        """Return the first row of a query, or None."""
        unit = self.unit
        return await unit.fetch_one(*bind(self._projection._named(sql), params, takes_numbered(unit)))

    async def run(self, fn: Callable[[Any], Any]) -> Any:
        """Return `fn(connection)`, awaited if it can be, with the database's own connection in this transaction.

        On PostgreSQL that is asyncpg's; on SQLite sqlite3's, and the plain function runs on the store's writer thread.
        It must neither commit nor keep the connection.
        """
        return await self.unit.run(fn)

    async def in_session(self, fn: Callable[[Session], T]) -> T:
        """Return `fn(session)` with a SQLAlchemy session on this transaction, flushed afterwards.

        The function is a plain one on every database. It must not commit; what it raises rolls everything back.

        Raises:
            ProjectionBuildError: LEX_ERR_EVT_015; SQLAlchemy is not installed, or the store runs over a framework
                provider.
        """
        from lexigram.events.projections.orm import in_session

        return await in_session(self.unit, fn)

    @property
    def unit(self) -> UnitOfWork:
        """The open unit of work.

        Raises:
            ProjectionBuildError: None is open.
        """
        unit = current_unit_of_work()
        if unit is None:
            raise ProjectionBuildError(
                f"Projection {self._projection.name!r} used self.db outside of apply, handle_event or reset; "
                "read its tables through a connection of your own"
            )
        return unit


def takes_numbered(unit: UnitOfWork) -> bool:
    """Tell whether statements with `$1` are the database's own."""
    return bool(getattr(unit, "numbered_parameters", False))


def bind(sql: str, params: Sequence[Any], numbered: bool = False) -> tuple[str, list[Any]]:
    """Return statement and values in the form that the unit of work takes; with `numbered` that is the form given."""
    values = params[0] if len(params) == 1 and isinstance(params[0], (list, tuple)) else params
    if numbered:
        return sql, list(values)
    text, order = positional(sql)
    try:
        return text, list(values) if order is None else [values[index] for index in order]
    except IndexError:
        raise EventValidationError(
            f"The statement needs {max(order or ()) + 1} parameters, {len(values)} were given", field="params"
        ) from None


class DurableProjection(ProjectionProtocol):
    """A projection exactly once: its rows and its checkpoint are written in one transaction of the event store.

    `self.db` is that transaction inside `apply`, `handle_event` and `reset`. For speed, define
    `project_batch(self, connection, events)` instead: it gets the database connection and a list of handled events,
    inside the transaction, and must neither commit nor keep the connection. On SQLite it is a plain function that runs
    on the store's writer thread, which replaces one thread change per statement by one per batch; on PostgreSQL it is
    a coroutine function that gets the asyncpg connection.

    With `read_model` instead of a name, several versions of it can exist at once (`BlueGreenRebuild`): write `{orders}`
    in its statements for the table `orders` of the version. Readers find the version they are to see under the bare name.

    Class attributes:
        schema: Statements that create the tables (`CREATE TABLE IF NOT EXISTS …`); run when the manager starts it.
        tables: The tables that `reset` empties. Names match `[A-Za-z_][A-Za-z0-9_]{0,62}`.
        read_model: Name that all versions share; the projection's name is then `read_model@version`.
        version: Number of the version, from 1; the next one for each change.
    """

    schema: ClassVar[Sequence[str]] = ()
    tables: ClassVar[Sequence[str]] = ()
    read_model: ClassVar[str] = ""
    version: ClassVar[int] = 1
    defers: ClassVar[bool] = False
    """Whether it writes through stores only, which can keep their writes until the end of the batch (SQLite)."""
    _model_state: ReadModelState | None = None
    """Which version readers see, as of the last batch; None without versions. Set by the manager."""
    _effects_after: int = 0
    """Up to this position everything was processed before a rebuild or a reset. Set by the manager."""
    _suffix: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for attribute in ("schema", "tables"):
            if isinstance(cls.__dict__.get(attribute), str):
                raise EventValidationError(f"{cls.__name__}.{attribute} must be a tuple of strings", field=attribute)
        for table in cls.tables:
            if not _NAME.fullmatch(table):
                raise EventValidationError(f"{table!r} is no table name: use letters, digits and _", field="tables")
        if isinstance(cls.read_model, str) and cls.read_model:
            if isinstance(getattr(cls, "name", None), str):
                raise EventValidationError(f"give {cls.__name__} a name or a read_model, not both", field="name")
            if not isinstance(cls.version, int) or cls.version < 1:
                raise EventValidationError(f"{cls.__name__}.version must be a number from 1", field="version")
            check_versioned(cls.tables, cls.schema)

    @property
    def name(self) -> str:
        """The class name, or read model and version, unless overridden by a class attribute."""
        return f"{self.read_model}@{self.version}" if self._has_versions else type(self).__name__

    @property
    def db(self) -> ReadModelDatabase:
        """The current transaction."""
        return ReadModelDatabase(self)

    @property
    def _has_versions(self) -> bool:
        return isinstance(self.read_model, str) and self.read_model != ""

    def table_name(self, table: str) -> str:
        """Return the name of this version's table, for `project_batch`; without versions it is the name itself."""
        return self._physical(table)

    # Under names of their own, because projections have long had attributes called `sql`, `state` and the like.

    def _physical(self, table: str) -> str:
        if self._suffix is not None:
            return table + self._suffix
        return versioned(table, self.version) if self._has_versions else table

    def _named(self, statement: str) -> str:
        suffix = self._physical("")
        return named(statement, tuple(self.tables), suffix) if suffix or "{" in statement else statement

    def sql(self, statement: str) -> str:
        """Return a statement with `{orders}` replaced by the table of this version, for `project_batch`.

        Raises:
            EventValidationError: LEX_ERR_EVT_024; a versioned projection names one of its tables without braces.
        """
        return self._named(statement)

    def may_have_effects(self, event: Any) -> bool:
        """Return whether something outside of the read model may follow from this event (a mail, a command, an append).

        False for events that were processed before a rebuild or a reset, while a version is built beside another, and
        in versions that readers do not see: of all versions of a read model exactly one may for each event, so that
        nothing is repeated and nothing left out.
        """
        # An event that was handed in without ever being stored comes after all that were.
        position = sys.maxsize if event.sequence_number is None else event.sequence_number
        if position <= self._effects_after:
            return False
        return self._model_state is None or self._model_state.speaks_at(position) == self.version

    project_batch: ClassVar[Any] = None
    """Optional: `def project_batch(self, connection, events)`, called on the store's writer thread."""

    @property
    def takes_batches(self) -> bool:
        """Whether the class defines `project_batch`."""
        return self.project_batch is not None

    async def create_schema(self) -> None:
        """Run the `schema` statements in the current transaction."""
        create_beside_events = getattr(self.db.unit, "create_beside_events", None)
        if create_beside_events is not None:
            await create_beside_events([self._physical(table) for table in self.tables])
        for statement in self.schema:
            await self.db.execute(statement)

    async def reset(self) -> None:
        """Delete all rows of `tables` in the current transaction and forget the position."""
        for table in self.tables:
            await self.db.execute(f'DELETE FROM "{self._physical(table)}"')
        await super().reset()
