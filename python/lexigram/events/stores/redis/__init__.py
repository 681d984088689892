"""Redis stores. Names are loaded on first use, as at the package root."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexigram.events.stores.redis.checkpoint_store import RedisCheckpointStore as RedisCheckpointStore
    from lexigram.events.stores.redis.dead_letters import RedisDeadLetterStore as RedisDeadLetterStore
    from lexigram.events.stores.redis.event_store import RedisEventStore as RedisEventStore
    from lexigram.events.stores.redis.idempotency_store import RedisIdempotencyStore as RedisIdempotencyStore
    from lexigram.events.stores.redis.snapshot_store import RedisSnapshotStore as RedisSnapshotStore

_MODULES = {
    "RedisCheckpointStore": "checkpoint_store",
    "RedisDeadLetterStore": "dead_letters",
    "RedisEventStore": "event_store",
    "RedisIdempotencyStore": "idempotency_store",
    "RedisSnapshotStore": "snapshot_store",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    try:
        module = _MODULES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{module}"), name)
