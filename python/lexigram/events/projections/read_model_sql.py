"""What versions of read models need from SQLite and PostgreSQL beyond plain statements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from zlib import crc32

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores.postgres.names import TableNames as PostgresNames
from lexigram.events.stores.sqlite.names import TableNames as SqliteNames
from lexigram.events.stores.unit_of_work import UnitOfWork

_CHUNK: Final = 1000
_INVALID_DEFINITION: Final = "42P16"
_BUSY: Final = ("55P03", "40P01")
_REGISTRY_SECONDS: Final = 10
_SCAN_SECONDS: Final = 3600.0
_VIEW_MILLISECONDS: Final = 100
"""How long a switch waits for readers at a time; those that come meanwhile wait behind it. Below the deadlock timeout."""

TakeRows = Callable[[Sequence[Sequence[Any]]], None]
Scans = Sequence[tuple[str, TakeRows]]
Wanted = Callable[[dict[str, int]], bool]


class ReadModelSql(ABC):
    """Statements on one database.

    Args:
        store: The event store.
    """

    registry: str
    """Quoted name of the table with one row per read model."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.checkpoints: str = store.database.names.checkpoints

    async def create_registry(self, unit: UnitOfWork) -> None:
        """Make the table of read models if there is none; the schema is locked."""
        await unit.execute(
            f"CREATE TABLE IF NOT EXISTS {self.registry} "
            "(name TEXT PRIMARY KEY, version INTEGER NOT NULL, details TEXT NOT NULL)"
        )

    @abstractmethod
    async def lock(self, unit: UnitOfWork) -> None:
        """Wait for the batches of all versions in all processes, and hold up the next ones until the unit ends."""

    @abstractmethod
    async def hurry(self, unit: UnitOfWork) -> None:
        """From now on give up quickly where readers are in the way."""

    async def positions(self, reader: Any, names: Sequence[str]) -> dict[str, int]:
        """Return stored positions as `reader` (an engine or a unit of work) sees them; those that are not stored lack."""
        rows = await reader.fetch_all(_positions_sql(self.checkpoints, len(names)), tuple(names))
        return {row[0]: int(row[1]) for row in rows}

    @abstractmethod
    async def point(self, unit: UnitOfWork, view: str, table: str) -> None:
        """Make a view show a table; nobody can write through it."""

    @abstractmethod
    async def is_table(self, unit: UnitOfWork, name: str) -> bool:
        """Return whether there is a table (no view) of this name."""

    @abstractmethod
    async def columns(self, unit: Any, table: str) -> tuple[list[str], list[str]]:
        """Return the columns of a table, and those of its primary key."""

    @abstractmethod
    async def in_snapshot(self, names: Sequence[str], scans: Scans, wanted: Wanted = lambda _: True) -> dict[str, int]:
        """Hand over all rows of queries, and return the stored positions of the same moment; others go on meanwhile.

        Args:
            names: Names of checkpoints.
            scans: Queries, and who takes their rows in chunks.
            wanted: Says by the positions whether the rows are to be read.
        """

    @abstractmethod
    async def scan(self, unit: Any, scans: Scans) -> None:
        """Hand over all rows of queries inside a unit of work, which sees its own writes."""

    def is_busy(self, error: BaseException) -> bool:
        """Return whether a change only failed because readers were in the way."""
        return False


class SqliteReadModels(ReadModelSql):
    """Writers of a file are one after the other anyway, and readers have their snapshots."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.registry = store.database.names.beside("event_read_models")

    async def lock(self, unit: UnitOfWork) -> None:
        """Nothing to do: the transaction has the file's lock."""

    async def hurry(self, unit: UnitOfWork) -> None:
        """Nothing to do: readers are never in the way."""

    async def point(self, unit: UnitOfWork, view: str, table: str) -> None:
        """Make a view show a table."""
        await unit.execute(f'DROP VIEW IF EXISTS "{view}"')
        await unit.execute(f'CREATE VIEW "{view}" AS SELECT * FROM "{table}"')

    async def is_table(self, unit: UnitOfWork, name: str) -> bool:
        """Look into the catalogue."""
        sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        return await unit.fetch_one(sql, (name,)) is not None

    async def columns(self, unit: Any, table: str) -> tuple[list[str], list[str]]:
        """Look into the catalogue."""
        rows = await unit.fetch_all("SELECT name, pk FROM pragma_table_info(?) ORDER BY cid", (table,))
        keys = sorted((row[1], row[0]) for row in rows if row[1])
        return [row[0] for row in rows], [name for _, name in keys]

    async def in_snapshot(self, names: Sequence[str], scans: Scans, wanted: Wanted = lambda _: True) -> dict[str, int]:
        """Read in one transaction of a reader thread."""
        sql = _positions_sql(self.checkpoints, len(names))

        def read(connection: Any) -> dict[str, int]:
            found = {row[0]: int(row[1]) for row in connection.execute(sql, tuple(names)).fetchall()}
            if wanted(found):
                _scan_sqlite(connection, scans)
            return found

        positions: dict[str, int] = await self.store.engine.read(read, snapshot=True)
        return positions

    async def scan(self, unit: Any, scans: Scans) -> None:
        """Read in the writer thread."""
        await unit.run(lambda connection: _scan_sqlite(connection, scans))


class PostgresReadModels(ReadModelSql):
    """Whoever reads the registry holds its table's lock to the end of the transaction; a switch takes it for itself."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.registry = store.database.names.beside("read_models")

    async def lock(self, unit: UnitOfWork) -> None:
        """Lock the table of read models."""
        await unit.execute(f"SET LOCAL lock_timeout = '{_REGISTRY_SECONDS}s'")
        await unit.execute(f"LOCK TABLE {self.registry} IN ACCESS EXCLUSIVE MODE")

    async def hurry(self, unit: UnitOfWork) -> None:
        """Set the server's lock timeout."""
        await unit.execute(f"SET LOCAL lock_timeout = '{_VIEW_MILLISECONDS}ms'")

    async def point(self, unit: Any, view: str, table: str) -> None:
        """Replace the view, or make it anew with the same readers where its columns are others."""
        view = await self._place_of(unit, view, table)
        # A join of two is no view that can be written to.
        select = f'AS SELECT t.* FROM "{table}" AS t CROSS JOIN (SELECT 1) AS for_reading'

        async def replace(connection: Any) -> None:
            await connection.execute("SAVEPOINT pointing")
            try:
                await connection.execute(f"CREATE OR REPLACE VIEW {view} {select}")
            except Exception as error:
                if getattr(error, "sqlstate", None) != _INVALID_DEFINITION:
                    raise
                await connection.execute("ROLLBACK TO SAVEPOINT pointing")
                await self._make_anew(connection, view, select)
            await connection.execute("RELEASE SAVEPOINT pointing")

        await unit.run(replace)

    async def _make_anew(self, connection: Any, view: str, select: str) -> None:
        readers = await connection.fetch(
            "SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END "
            "FROM pg_class, aclexplode(relacl) WHERE oid = $1::text::regclass AND privilege_type = 'SELECT'",
            view,
        )
        await connection.execute(f"DROP VIEW {view}")
        await connection.execute(f"CREATE VIEW {view} {select}")
        for (reader,) in readers:
            await connection.execute(f"GRANT SELECT ON {view} TO {reader}")

    async def _place_of(self, unit: UnitOfWork, view: str, table: str) -> str:
        """Return the quoted name of a view with its schema: where it is, or else where its table is."""
        row = await unit.fetch_one(
            "SELECT relnamespace::regnamespace::text FROM pg_class "
            "WHERE oid = coalesce(to_regclass($1::text), to_regclass($2::text))",
            (f'"{view}"', f'"{table}"'),
        )
        return f'"{view}"' if row is None else f'{row[0]}."{view}"'

    async def is_table(self, unit: UnitOfWork, name: str) -> bool:
        """Look into the catalogue."""
        sql = "SELECT 1 FROM pg_class WHERE oid = to_regclass($1::text) AND relkind IN ('r', 'p')"
        return await unit.fetch_one(sql, (f'"{name}"',)) is not None

    async def columns(self, unit: Any, table: str) -> tuple[list[str], list[str]]:
        """Look into the catalogue."""
        rows = await unit.fetch_all(
            "SELECT a.attname, array_position(i.indkey::int2[], a.attnum) FROM pg_attribute a "
            "LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary "
            "WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            (f'"{table}"',),
        )
        keys = sorted((row[1], row[0]) for row in rows if row[1] is not None)
        return [row[0] for row in rows], [name for _, name in keys]

    async def in_snapshot(self, names: Sequence[str], scans: Scans, wanted: Wanted = lambda _: True) -> dict[str, int]:
        """Read in one transaction of its own snapshot."""
        unit: Any
        async with self.store.unit_of_work(timeout_seconds=_SCAN_SECONDS) as unit:
            await unit.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            found = await self.positions(unit, names)
            if wanted(found):
                await self.scan(unit, scans)
        return found

    async def scan(self, unit: Any, scans: Scans) -> None:
        """Read through cursors."""
        for query, take in scans:
            await unit.run(_scan_postgres(query, take))

    def is_busy(self, error: BaseException) -> bool:
        """Recognise the lock timeout and the deadlock."""
        return getattr(error, "sqlstate", None) in _BUSY


def _scan_sqlite(connection: Any, scans: Scans) -> None:
    for query, take in scans:
        cursor = connection.execute(query)
        while rows := cursor.fetchmany(_CHUNK):
            take(rows)


def _scan_postgres(query: str, take: TakeRows) -> Callable[[Any], Awaitable[None]]:
    async def scan(connection: Any) -> None:
        # The driver prepares statements: the same text must always give the same columns.
        name = f"scan_{crc32(query.encode()):08x}"
        await connection.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {query}")
        while rows := await connection.fetch(f"FETCH {_CHUNK} FROM {name}"):
            take([tuple(row) for row in rows])
        await connection.execute(f"CLOSE {name}")

    return scan


def _positions_sql(checkpoints: str, count: int) -> str:
    marks = ", ".join("?" * count)
    return f"SELECT name, position FROM {checkpoints} WHERE position IS NOT NULL AND name IN ({marks})"


def sql_of(store: Any) -> ReadModelSql:
    """Return the statements for the database of an event store.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; it keeps no tables.
    """
    names = getattr(getattr(store, "database", None), "names", None)
    if isinstance(names, SqliteNames):
        return SqliteReadModels(store)
    if isinstance(names, PostgresNames):
        return PostgresReadModels(store)
    raise EventValidationError(
        f"versions of a read model need tables in SQLite or PostgreSQL; {type(store).__name__} has none",
        field="event_store",
    )
