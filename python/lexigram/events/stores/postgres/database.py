"""What a store has in hand: which database, under which table names; opened once, shared by all stores on it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import EventStoreConnectionError, EventValidationError
from lexigram.events.stores._loop_lock import OneLoopLock
from lexigram.events.stores._tables import StoreTables
from lexigram.events.stores.postgres.provider import dsn_of
from lexigram.events.stores.postgres.settings import PostgresSettings

if TYPE_CHECKING:
    from lexigram.contracts.data.sql.database import DatabaseProviderProtocol
    from lexigram.events.stores.postgres.engine import PostgresEngine
    from lexigram.events.stores.postgres.names import TableNames


class Database:
    """The tables of one log in one PostgreSQL database.

    Args:
        config: A DSN, a `PostgresEventStoreConfig`, None with a pool or provider; or another PostgreSQL store or
            `Database`, whose connections are then shared.
        provider: A framework's database provider for PostgreSQL; says where the database is.
        pool: An asyncpg pool to use instead of connections of our own; may also be given as `config` or `provider`.
        table_prefix: Put before every table name.
        payload: "json", "jsonb" or "binary"; None = what `config` says.
        ssl: As asyncpg takes it.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, naming the setting.
    """

    settings: PostgresSettings

    def __init__(
        self,
        config: Any = None,
        provider: DatabaseProviderProtocol | None = None,
        *,
        pool: Any = None,
        table_prefix: str = "",
        payload: str | None = None,
        ssl: Any = None,
    ) -> None:
        if _is_pool(config):
            config, pool = None, config
        if _is_pool(provider):
            provider, pool = None, provider
        other: object = config if isinstance(config, Database) else getattr(config, "database", None)
        self._shared = other if isinstance(other, Database) else None
        self._provider, self._pool = provider, pool
        self._engine: PostgresEngine | None = None
        self._opening = OneLoopLock("PostgreSQL")
        self._users = 0
        if self._shared is not None:
            self.settings = self._shared.settings
            return
        self.settings = PostgresSettings.of(config, table_prefix=table_prefix, payload=payload, ssl=ssl)
        if self.settings.dsn is None and pool is None:
            if provider is None:
                raise EventValidationError("PostgreSQL needs a dsn, a pool or a provider", field="dsn")
            self.settings = replace(self.settings, dsn=dsn_of(provider))

    @property
    def names(self) -> TableNames:
        """The tables."""
        return self.settings.names

    @property
    def provider(self) -> DatabaseProviderProtocol | None:
        """The framework provider whose pool is used, or None."""
        return self._provider if self._shared is None else self._shared.provider

    @property
    def engine(self) -> PostgresEngine:
        """The open engine. Raises `EventStoreConnectionError` before `open` and after `close`."""
        if self._shared is not None:
            return self._shared.engine
        if self._engine is None:
            raise EventStoreConnectionError("the PostgreSQL store is not connected; call connect() first")
        return self._engine

    async def open(self) -> PostgresEngine:
        """Connect, and create or migrate the tables; each `open` needs its `close`."""
        if self._shared is not None:
            return await self._shared.open()
        async with self._opening:
            if self._engine is None:
                self._engine = await self._connect()
            self._users += 1
            return self._engine

    async def close(self) -> None:
        """Give the engine back; the last one to do so closes it."""
        if self._shared is not None:
            await self._shared.close()
            return
        async with self._opening:
            self._users -= 1
            if self._users == 0 and self._engine is not None:
                engine, self._engine = self._engine, None
                await engine.release()

    async def _connect(self) -> PostgresEngine:
        try:
            from lexigram.events.stores.postgres.engine import PostgresEngine
        except ModuleNotFoundError as error:
            raise EventStoreConnectionError(
                "PostgreSQL needs the driver asyncpg: pip install 'lexigram-events[postgres]'"
            ) from error
        return await PostgresEngine.connect(self.settings, self._pool)


class PostgresTables(StoreTables[Any]):
    """Base of the small stores: connects at the first use, gives the database back on `close`."""

    database: Database

    async def _ready(self) -> PostgresEngine:
        engine: PostgresEngine = await super()._ready()
        return engine


def _is_pool(value: object) -> bool:
    """Whether this is an asyncpg pool, or lends connections as one does."""
    return all(callable(getattr(value, name, None)) for name in ("acquire", "release", "get_idle_size"))
