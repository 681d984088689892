"""Which log a store works on: its own, or that of another store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.contracts.infra.state import StateStoreProtocol
from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores._life import StoreLife
from lexigram.events.stores.redis.connection import RedisConnection
from lexigram.events.stores.redis.log import RedisLog
from lexigram.events.stores.redis.state_log import StateLog

if TYPE_CHECKING:
    from lexigram.events.config import RedisEventStoreConfig


def log_of(
    store: Any, namespace: str = "lexigram:events", *, require_durable: bool = False, **options: Any
) -> RedisLog:
    """Return the log of another store, or a new one on an address, a configuration or a client.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, it is none of them; a state store keeps events only.
    """
    other = store if isinstance(store, RedisLog) else getattr(store, "log", None)
    if isinstance(other, RedisLog):
        return other
    if hasattr(store, "url") and hasattr(store, "namespace"):
        return _configured(store, require_durable)
    return RedisLog(RedisConnection(store, **options), namespace, require_durable)


def event_log_of(store: Any, namespace: str, *, require_durable: bool, **options: Any) -> RedisLog | StateLog:
    """Return the log of an event store, which may also be kept in a framework's state store."""
    if isinstance(store, StateStoreProtocol):
        if require_durable:
            raise EventValidationError("a state store does not say whether it is durable", field="require_durable")
        return StateLog(store, namespace)
    return log_of(store, namespace, require_durable=require_durable, **options)


class RedisPart(StoreLife):
    """Base of the smaller stores: opens the log's connection at the first use, gives it back on `close`."""

    log: RedisLog

    def _use(self, log: RedisLog) -> None:
        StoreLife.__init__(self)
        self.log = log

    async def _open(self) -> None:
        await self.log.open()

    async def _close(self) -> None:
        await self.log.close()

    async def _ready(self) -> RedisLog:
        if not self._is_open:
            await super()._ready()
        return self.log


def _configured(config: RedisEventStoreConfig, require_durable: bool) -> RedisLog:
    if config.url is None:
        raise EventValidationError("events.redis.url is missing: give it like redis://host:6379/0", field="redis.url")
    connection = RedisConnection(config.url.get_secret_value(), config.max_connections, config.command_timeout)
    return RedisLog(connection, config.namespace, require_durable or config.require_durable)
