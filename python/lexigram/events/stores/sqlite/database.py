"""What a store has in hand: which database, under which table names; opened once, shared by all stores on it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores._loop_lock import LoopLock
from lexigram.events.stores._tables import StoreTables
from lexigram.events.stores.sqlite.engine import SqliteEngine
from lexigram.events.stores.sqlite.engine_base import AbstractEngine
from lexigram.events.stores.sqlite.names import TableNames
from lexigram.events.stores.sqlite.provider import ProviderEngine
from lexigram.events.stores.sqlite.schema import migrate
from lexigram.events.stores.sqlite.settings import SqliteSettings

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol


class Database:
    """The tables of one prefix in one SQLite database.

    Args:
        config: A path, an `sqlite://` URL, a `SqliteConfig`, None for `./events.db`; or another SQLite store or
            `Database`, whose database and prefix are then shared (the way to share `:memory:`).
        provider: A framework's database provider to run the statements instead; it decides about file and durability.
        table_prefix: Put before every table name.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, naming the setting.
    """

    names: TableNames
    _config: Any
    _provider: DatabaseProviderProtocol | None

    def __init__(
        self, config: Any = None, provider: DatabaseProviderProtocol | None = None, table_prefix: str = ""
    ) -> None:
        other: object = config if isinstance(config, Database) else getattr(config, "database", None)
        if isinstance(other, Database):
            config, provider, table_prefix = other._config, other._provider, other.names.prefix
        elif config is None or isinstance(config, str) or not hasattr(config, "database"):
            config = SqliteSettings.of(config)
        else:
            SqliteSettings.of(config)
            table_prefix = table_prefix or getattr(config, "table_prefix", "")
        self.names = TableNames(table_prefix)
        self._config = config
        self._provider = provider
        self._engine: AbstractEngine | None = None
        self._opening = LoopLock()
        self._users = 0

    @property
    def provider(self) -> DatabaseProviderProtocol | None:
        """The framework provider that runs the statements, or None for our own engine."""
        return self._provider

    @property
    def path(self) -> str:
        """The file, or `:memory:`; not meaningful with a provider."""
        return SqliteSettings.of(self._config).path

    @property
    def engine(self) -> AbstractEngine:
        """The open engine. Raises `EventStoreConnectionError` before `open` and after `close`."""
        if self._engine is None:
            raise EventStoreConnectionError("the SQLite store is not connected; call connect() first")
        return self._engine

    async def open(self) -> AbstractEngine:
        """Connect, and create or migrate the tables; each `open` needs its `close`."""
        async with self._opening:
            if self._engine is None:
                engine = await self._connect()
                try:
                    await self._migrate(engine)
                except BaseException:
                    await engine.release()
                    raise
                self._engine = engine
            self._users += 1
            return self._engine

    async def close(self) -> None:
        """Give the engine back; the last one to do so closes it."""
        self._users -= 1
        if self._users == 0 and self._engine is not None:
            engine, self._engine = self._engine, None
            await engine.release()

    async def _connect(self) -> AbstractEngine:
        if self._provider is not None:
            return await ProviderEngine.connect(self._provider)
        return await SqliteEngine.connect(self._config)

    async def _migrate(self, engine: AbstractEngine) -> None:
        """Bring the tables up to date; safe if other stores, threads and processes do the same now."""
        if self.names.prefix not in engine.namespaces:
            await engine.run(partial(migrate, names=self.names, path=engine.path))
            engine.namespaces.add(self.names.prefix)


class SqliteTables(StoreTables[AbstractEngine]):
    """Base of the small stores: connects at the first use, gives the database back on `close`."""

    database: Database
