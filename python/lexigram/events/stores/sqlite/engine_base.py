"""What stores need from a database, whoever runs the statements: our engine or a framework's provider."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lexigram.events.exceptions import EventValidationError

if TYPE_CHECKING:
    from lexigram.events.stores.sqlite.jobs import Folder
    from lexigram.events.stores.sqlite.unit import SqlUnitOfWork

T = TypeVar("T")
F = TypeVar("F", bound="Folder")

UNIT_OF_WORK_SECONDS: Final = 30.0


class AbstractEngine(ABC):
    """Runs functions of a connection; the connection has `execute`, `executemany` and cursors as in `sqlite3`."""

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        """Table prefixes that have been migrated."""
        self._shared: dict[object, Any] = {}

    @property
    @abstractmethod
    def path(self) -> str:
        """The database, as shown in errors."""

    @abstractmethod
    async def release(self) -> None:
        """Give the engine back; the last user closes it after everything queued has been done."""

    @abstractmethod
    async def run(self, fn: Callable[[Any], T]) -> T:
        """Call `fn(connection)` in a write transaction of its own, or inside the current unit of work.

        It is atomic: if it raises, only what it wrote is undone. It must not commit or roll back. It runs in another
        thread, and every writer of this database waits for it.

        Returns:
            What `fn` returned, once it is durable.

        Raises:
            EventPersistenceError: LEX_ERR_EVT_012, the disk is full or failing; nothing was written.
            EventStoreConnectionError: LEX_ERR_EVT_014, another process held the lock too long, or closed.
        """

    @abstractmethod
    async def read(self, fn: Callable[[Any], T], *, snapshot: bool = False, key: str | None = None) -> T:
        """Call `fn(connection)` to read; inside a unit of work it sees that transaction's own writes.

        Tasks that were started inside a unit of work write as part of it, but read what is committed (in a `:memory:`
        database they too see its writes, because there is only one connection).

        Args:
            snapshot: Give all statements of `fn` one view of the data; a single statement has that anyway.
            key: The only stream, or other key of a deferred write, that `fn` looks at; None = it may look at anything.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, the file is damaged or the disk is failing.
        """

    async def look_up(self, fn: Callable[[Any], T], key: str | None = None) -> T:
        """Call `fn(connection)`, which reads at most a few dozen rows by key; like `read`, but made for speed."""
        return await self.read(fn, key=key)

    @abstractmethod
    def fold(self, folder: Folder, request: Any, weight: int, unit: SqlUnitOfWork | None) -> Awaitable[Any]:
        """Have `folder` execute `request`, with its neighbours or inside `unit`; await the outcome.

        Args:
            weight: About how many rows it writes.
            unit: What `current_unit` returned.
        """

    @abstractmethod
    def share(self, key: object, make: Callable[[], F]) -> F:
        """Return the folder that stores on this database share under `key`, made at the first call."""

    @abstractmethod
    def unit_of_work(self, timeout_seconds: float = UNIT_OF_WORK_SECONDS) -> SqlUnitOfWork:
        """Return one write transaction for this task, an async context manager; inside another one it joins that.

        Args:
            timeout_seconds: From its first statement; then it is rolled back, so that it cannot block others for ever.
        """

    @abstractmethod
    def current_unit(self) -> SqlUnitOfWork | None:
        """Return this task's open unit of work on this database, or None. Raises if the engine is closed."""

    async def find(self, sql: str, params: Sequence[Any] = (), key: str | None = None) -> tuple[Any, ...] | None:
        """Return the row of a query by key, or None; like `fetch_one`, but made for speed.

        Args:
            key: What the current unit of work may have changed about it was deferred under this key.
        """
        row: tuple[Any, ...] | None = await self.look_up(
            lambda connection: connection.execute(sql, params).fetchone(), key
        )
        return row

    async def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run one writing statement; returns the number of rows changed."""
        return int(await self.run(lambda connection: connection.execute(sql, params).rowcount))

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        """Run one statement for each row of parameters, all or none; returns the number of rows changed."""
        listed = rows if isinstance(rows, list | tuple) else list(rows)
        return int(await self.run(lambda connection: connection.executemany(sql, listed).rowcount))

    async def fetch_all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        rows: list[tuple[Any, ...]] = await self.read(lambda connection: connection.execute(sql, params).fetchall())
        return rows

    async def fetch_one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query or None."""
        rows: list[tuple[Any, ...]] = await self.read(lambda connection: connection.execute(sql, params).fetchmany(1))
        return rows[0] if rows else None


def check_timeout(timeout_seconds: float) -> float:
    """Return a unit of work's timeout if it is a number of seconds above 0."""
    if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int | float) or not timeout_seconds > 0:
        raise EventValidationError(
            f"timeout_seconds must be a number above 0, got {timeout_seconds!r}", field="timeout_seconds"
        )
    return float(timeout_seconds)
