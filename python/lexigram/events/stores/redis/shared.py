"""Which log a store works on: its own, or that of another store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores.redis.connection import RedisConnection
from lexigram.events.stores.redis.log import RedisLog

if TYPE_CHECKING:
    from lexigram.events.config import RedisEventStoreConfig


def log_of(store: Any, namespace: str = "lexigram:events", *, require_durable: bool = False) -> RedisLog:
    """Return the log of another store, or a new one on an address, a configuration, a client or a state store."""
    other = store if isinstance(store, RedisLog) else getattr(store, "log", None)
    if isinstance(other, RedisLog):
        return other
    if hasattr(store, "url") and hasattr(store, "namespace"):
        return _configured(store, require_durable)
    return RedisLog(RedisConnection(store), namespace, require_durable)


def _configured(config: RedisEventStoreConfig, require_durable: bool) -> RedisLog:
    if config.url is None:
        raise EventValidationError("events.redis.url is missing: give it like redis://host:6379/0", field="redis.url")
    connection = RedisConnection(config.url.get_secret_value(), config.max_connections, config.command_timeout)
    return RedisLog(connection, config.namespace, require_durable or config.require_durable)
