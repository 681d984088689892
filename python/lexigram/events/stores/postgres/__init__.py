"""PostgreSQL stores. Names are loaded on first use, as at the package root."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexigram.events.stores.postgres.checkpoint_store import PostgresCheckpointStore as PostgresCheckpointStore
    from lexigram.events.stores.postgres.config import PostgresEventStoreConfig as PostgresEventStoreConfig
    from lexigram.events.stores.postgres.dead_letters import PostgresDeadLetterStore as PostgresDeadLetterStore
    from lexigram.events.stores.postgres.engine import PostgresEngine as PostgresEngine
    from lexigram.events.stores.postgres.event_store import PostgresEventStore as PostgresEventStore
    from lexigram.events.stores.postgres.idempotency_store import PostgresIdempotencyStore as PostgresIdempotencyStore
    from lexigram.events.stores.postgres.snapshot_store import PostgresSnapshotStore as PostgresSnapshotStore

_MODULES = {
    "PostgresCheckpointStore": "checkpoint_store",
    "PostgresDeadLetterStore": "dead_letters",
    "PostgresEngine": "engine",
    "PostgresEventStore": "event_store",
    "PostgresEventStoreConfig": "config",
    "PostgresIdempotencyStore": "idempotency_store",
    "PostgresSnapshotStore": "snapshot_store",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    try:
        module = _MODULES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{module}"), name)
