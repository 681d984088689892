"""Connections of our own or of the pool that the application gave us."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import asyncpg

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.stores.postgres.errors import clear_error
from lexigram.events.stores.postgres.names import find_also
from lexigram.events.stores.postgres.settings import PostgresSettings

_CLOSE_SECONDS: Final = 5.0
_GRACE_MS: Final = 1_000
"""So that a client that is still there gives up first, with an error that says why."""
_MAX_TIMEOUT_MS: Final = 2**31 - 1


class Connections:
    """Opens connections for the writer and the listener, lends those of a pool for the rest.

    Args:
        given: A pool of the application, used for everything and never closed; None = connections of our own.
    """

    def __init__(self, settings: PostgresSettings, given: Any = None) -> None:
        self._settings = settings
        self._given = given
        self._pool: Any = given
        self._idle: list[Any] = []
        self._waiting = 0
        self._unwanted: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Create the pool.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014, the server does not answer or refuses.
        """
        if self._given is not None:
            return
        settings = self._settings
        if settings.dsn is None:
            raise EventStoreConnectionError("PostgreSQL needs a dsn, a pool or a provider")
        try:
            self._pool = await asyncpg.create_pool(
                **self._options(),
                min_size=settings.pool_min_size,
                max_size=settings.pool_max_size,
                # What a unit of work may have changed is reset when it ends: not after every read.
                reset=_keep,
                init=self._begin_session,
                connect=self._connected,
            )
        except Exception as error:
            raise clear_error(error, settings.where, EventStoreConnectionError) from error

    async def _connected(self, *address: Any, **options: Any) -> Any:
        """Return a new connection. A task that is cancelled meanwhile leaves it to be completed and closed.

        Cut in the middle, asyncpg leaves a future behind with an error that nobody retrieves, and the loop complains of it.
        """
        connecting = asyncio.ensure_future(asyncpg.connect(*address, **options))
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            unwanted = asyncio.ensure_future(_discard(connecting))
            self._unwanted.add(unwanted)
            unwanted.add_done_callback(self._unwanted.discard)
            raise

    async def close(self) -> None:
        """Close our pool; connections still in use are cut."""
        unwanted = [task for task in self._unwanted if not task.done()]
        if unwanted:
            await asyncio.wait(unwanted, timeout=_CLOSE_SECONDS)
        if self._given is not None or self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._idle:
                    await pool.release(self._idle.pop())
                await pool.close()
        except Exception:
            pool.terminate()

    async def connect(self) -> Any:
        """Return a connection that is kept for long."""
        if self._given is not None:
            return await self._given.acquire()
        return await self._connected(**self._options())

    async def disconnect(self, connection: Any, is_broken: bool) -> None:
        """Give back what `connect` returned; never raises."""
        with suppress(Exception):
            if is_broken:
                connection.terminate()
            if self._given is not None:
                await self._given.release(connection)
            elif not is_broken:
                await connection.close(timeout=_CLOSE_SECONDS)
            return
        with suppress(Exception):
            connection.terminate()

    def begin(self, timeout_seconds: float) -> str:
        """Return what begins a transaction on a borrowed connection, in which the tables of the log's schema are found.

        Args:
            timeout_seconds: After this time, and a little more, without a statement the server ends it: the client may have
                vanished without a word, and the log's lock with it.
        """
        milliseconds = round(min(timeout_seconds * 1000 + _GRACE_MS, _MAX_TIMEOUT_MS))
        begin = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
        schema = self._settings.names.schema
        return begin if schema is None or self._has_path else f"{begin}; {find_also(schema, is_local=True)}"

    @property
    def _has_path(self) -> bool:
        """Whether the session of each connection finds the tables of the log's schema."""
        return self._given is None and not self._settings.transaction_pooling

    async def _begin_session(self, connection: Any) -> None:
        schema = self._settings.names.schema
        if schema is not None and self._has_path:
            await connection.execute(find_also(schema))

    async def acquire(self) -> Any:
        """Borrow a connection of the pool."""
        if self._pool is None:
            raise EventStoreConnectionError("the PostgreSQL store is closed; connect() opens it again")
        while self._idle:
            connection = self._idle.pop()
            if not _is_lost(connection):
                return connection
            await self.release(connection)
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=self._settings.command_timeout_seconds)
        finally:
            self._waiting -= 1

    async def release(
        self, connection: Any, is_broken: bool = False, reset: bool = False, *, is_idle: bool = False
    ) -> None:
        """Give a borrowed connection back; never raises.

        Args:
            is_broken: Cut it.
            reset: The application has used it: drop what it may have left in the session.
            is_idle: Its last statement was answered and it is in no transaction: the next one to ask may have it at once.
                Giving it back to the pool and borrowing it again takes longer than a small query.
        """
        is_ours = self._given is None and self._pool is not None
        if is_idle and is_ours and not self._waiting and len(self._idle) < self._settings.pool_min_size:
            self._idle.append(connection)
            return
        with suppress(Exception):
            if reset and not is_broken and not self._settings.transaction_pooling:
                await connection.reset(timeout=_CLOSE_SECONDS)
                await self._begin_session(connection)
            elif is_broken:
                connection.terminate()
        pool = self._pool
        if pool is not None:
            with suppress(Exception):
                await pool.release(connection)

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "dsn": settings.dsn,
            "command_timeout": settings.command_timeout_seconds,
            "timeout": min(settings.command_timeout_seconds, 10.0),
            "server_settings": settings.session or None,
        }
        if settings.ssl is not None:
            options["ssl"] = settings.ssl
        if settings.transaction_pooling:
            # A prepared statement would stay behind on a server connection that is somebody else's next time.
            options["statement_cache_size"] = 0
        return options


def _is_lost(connection: Any) -> bool:
    """Tell whether a borrowed connection was cut while nobody used it: the pool may have taken it back by itself."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


async def _discard(connecting: asyncio.Future[Any]) -> None:
    """Close a connection that nobody waits for any more, as soon as it is there."""
    with suppress(Exception):
        await (await connecting).close(timeout=_CLOSE_SECONDS)


async def _keep(connection: Any) -> None:
    """Leave a connection that goes back to the pool as it is."""
