"""One client of one server: made from an address, a configuration or given ready; runs scripts, retries, says why not."""

from __future__ import annotations

import asyncio
import logging
import re
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from lexigram.events.exceptions import EventLoadError, EventStoreConnectionError, EventStoreError, EventValidationError
from lexigram.events.stores._loop_lock import check_loop

if TYPE_CHECKING:
    from lexigram.events.stores.redis.operations import Argument
    from lexigram.events.stores.redis.scripts import Script

logger = logging.getLogger(__name__)

_ADDRESS: Final = re.compile(r"(redis|rediss|unix)://")
_RAW: Final[dict[str, Any]] = {"NEVER_DECODE": True}
_FORMAT: Final = b"1"
_CLOSING_SECONDS: Final = 2.0
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)


class RedisConnection:
    """A client with our rules: bytes in and out, one retry policy, errors of ours only.

    Args:
        client: An address (`redis://`, `rediss://`, `unix://`) or a ready `redis.asyncio` client, which stays open.
        max_connections: Of a client made here; further calls wait for a free one.
        command_timeout_seconds: Of a client made here: how long one answer may take.
        retry_seconds: How long a call is tried again while the server cannot be reached.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, it is neither.
    """

    def __init__(
        self,
        client: Any,
        max_connections: int = 20,
        command_timeout_seconds: float = 60.0,
        retry_seconds: float = 10.0,
    ) -> None:
        is_address = isinstance(client, str)
        if is_address and _ADDRESS.match(client) is None:
            raise EventValidationError("store must be an address like redis://host:6379/0", field="store")
        if not is_address and not hasattr(client, "execute_command"):
            raise EventValidationError(
                f"store must be a redis:// address, a redis.asyncio client or a StateStoreProtocol, "
                f"got {type(client).__name__}",
                field="store",
            )
        self._address: str | None = client if is_address else None
        self._client: Any = None if is_address else client
        self._max_connections = max_connections
        self._timeout = command_timeout_seconds
        self._calls: set[asyncio.Future[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.retry_seconds = retry_seconds
        self.name = _shown(client) if is_address else f"Redis behind {type(client).__name__}"

    @property
    def client(self) -> Any:
        """The driver's client. Raises before `open` and after `close`."""
        if self._client is None:
            raise EventStoreConnectionError(f"{self.name} is not connected; call connect() first")
        return self._client

    @property
    def has_pubsub(self) -> bool:
        """Whether the client can listen to channels (a cluster client cannot)."""
        return hasattr(self._client, "pubsub")

    def check_loop(self) -> None:
        """Raise `EventStoreConnectionError` in another event loop than the one in which it was opened."""
        check_loop(self._loop, "Redis")

    async def open(self) -> None:
        """Make the client, if it was not given, and reach the server once.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014, it cannot be reached or refuses the login.
        """
        driver = _driver()
        self._loop = asyncio.get_running_loop()
        if self._address is not None and self._client is None:
            try:
                pool = driver.BlockingConnectionPool.from_url(
                    self._address,
                    max_connections=self._max_connections,
                    timeout=self._timeout,
                    socket_timeout=self._timeout,
                    socket_connect_timeout=min(self._timeout, 5.0),
                    socket_keepalive=True,
                    # Whether something may be tried again is decided here, where it is known what it was.
                    retry=_no_retry(),
                )
            except (ValueError, TypeError) as error:
                raise EventValidationError(f"store: {self.name} is no Redis address: {error}", field="store") from error
            self._client = driver.Redis(connection_pool=pool)
        try:
            await self._reach()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close a client made here, after the answers under way; one that was given belongs to the application."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=_CLOSING_SECONDS)
            for call in late:
                call.cancel()
        if self._address is not None and self._client is not None:
            client, self._client = self._client, None
            await client.aclose(close_connection_pool=True)

    async def read(self, *command: Argument) -> Any:
        """Execute a command that changes nothing, again if the connection is lost."""
        return await self._repeated(lambda: self._execute(*command))

    async def evaluate(self, script: Script, key: str, *arguments: Argument) -> Any:
        """Run a script that changes nothing, again if the connection is lost."""
        return await self._repeated(lambda: self._evaluate(script, key, arguments))

    async def change(self, script: Script, key: str, arguments: list[Argument]) -> Any:
        """Run a script that writes and that may be run twice: it finds out itself what it has done already.

        Raises:
            EventStoreConnectionError: LEX_ERR_EVT_014, out of reach for `retry_seconds`; the outcome is unknown.
            EventPersistenceError: LEX_ERR_EVT_012, the server refuses.
        """
        return await self._repeated(lambda: self._evaluate(script, key, arguments), writing=True)

    async def _repeated(self, call: Any, *, writing: bool = False) -> Any:
        from lexigram.events.stores.redis.errors import FAILURES, clear_error, may_pass

        attempt, end = 0, monotonic() + self.retry_seconds
        while True:
            try:
                return await call()
            except FAILURES as error:
                if not may_pass(error) or monotonic() >= end:
                    raise clear_error(error, self.name, writing=writing) from error
            await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1

    async def _once(self, *command: Argument) -> Any:
        from lexigram.events.stores.redis.errors import FAILURES, clear_error

        try:
            return await self._execute(*command)
        except FAILURES as error:
            raise clear_error(error, self.name) from error

    async def _reach(self) -> None:
        from lexigram.events.stores.redis.errors import FAILURES, clear_error

        try:
            await self._command("PING")
        except FAILURES as error:
            clear = clear_error(error, self.name)
            if isinstance(clear, EventLoadError):  # refused, such as a database number that the server does not have
                clear = EventStoreConnectionError(f"{self.name} cannot be used: {error}")
            raise clear from error

    async def _execute(self, *command: Argument) -> Any:
        return await self._command(*command, **_RAW)

    async def _command(self, *command: Argument, **options: Any) -> Any:
        """Have the driver execute a command in a task of its own.

        A caller that is cancelled leaves at once, and the connection reads its answer to the end. Without this the
        driver can lose a cancellation (its `asyncio.wait_for` does on Python 3.11), and the caller would go on.
        """
        self.check_loop()
        call = asyncio.ensure_future(self.client.execute_command(*command, **options))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.shield(call)

    async def _evaluate(self, script: Script, key: str, arguments: Any) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return await self._command("EVALSHA", script.digest, 1, key, *arguments, **_RAW)
        except NoScriptError:
            # A server that has been restarted has forgotten it.
            return await self._command("EVAL", script.text, 1, key, *arguments, **_RAW)

    async def check_format(self, key: str) -> None:
        """Mark a new namespace with the form of its data, or check that it is one that we know.

        Raises:
            EventStoreError: LEX_ERR_EVT_013, a later release has written it.
        """
        await self._once("SET", key, _FORMAT, "NX")
        found = await self._once("GET", key)
        if found != _FORMAT:
            raise EventStoreError(f"{self.name}: {key} is {found!r}: written by a later release of lexigram-events")

    async def shortcomings(self) -> list[str]:
        """Return why an acknowledged write can be lost on this server, one sentence each; empty if it cannot."""
        from redis.exceptions import ResponseError

        try:
            settings = {**await self._settings("append*"), **await self._settings("maxmemory*")}
        except ResponseError as error:
            return [f"its settings cannot be read ({error}), so durability is not known"]
        found = []
        if settings.get("appendonly") != "yes":
            found.append("appendonly is not yes: everything since the last snapshot is lost in a crash")
        elif settings.get("appendfsync") != "always":
            value = settings.get("appendfsync")
            found.append(f"appendfsync is {value}, not always: what was acknowledged last is lost in a power cut")
        if settings.get("maxmemory", "0") != "0" and settings.get("maxmemory-policy", "").startswith("allkeys"):
            found.append(f"maxmemory-policy {settings['maxmemory-policy']} removes events when memory is full")
        return found

    async def _settings(self, pattern: str) -> dict[str, str]:
        reply = await self._command("CONFIG GET", pattern)
        pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
        return {_as_text(name): _as_text(value) for name, value in pairs}


def _driver() -> Any:
    try:
        import redis.asyncio as driver
    except ImportError as error:
        raise EventStoreConnectionError(
            "the Redis store needs the driver: pip install 'lexigram-events[redis]'"
        ) from error
    return driver


def _no_retry() -> Any:
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return Retry(NoBackoff(), 0)


def _shown(address: str) -> str:
    """Return an address without user and password."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "Redis"
    return f"Redis at {parts.scheme}://{host}{port}{parts.path}"


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
