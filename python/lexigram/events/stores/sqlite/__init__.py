"""SQLite stores: the embedded durable default. Names are loaded on first use, as at the package root."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexigram.events.stores.sqlite.checkpoint_store import SqliteCheckpointStore as SqliteCheckpointStore
    from lexigram.events.stores.sqlite.dead_letters import SqliteDeadLetterStore as SqliteDeadLetterStore
    from lexigram.events.stores.sqlite.engine import SqliteEngine as SqliteEngine
    from lexigram.events.stores.sqlite.event_store import SqliteEventStore as SqliteEventStore
    from lexigram.events.stores.sqlite.idempotency_store import SqliteIdempotencyStore as SqliteIdempotencyStore
    from lexigram.events.stores.sqlite.snapshot_store import SqliteSnapshotStore as SqliteSnapshotStore

_MODULES = {
    "SqliteCheckpointStore": "checkpoint_store",
    "SqliteDeadLetterStore": "dead_letters",
    "SqliteEngine": "engine",
    "SqliteEventStore": "event_store",
    "SqliteIdempotencyStore": "idempotency_store",
    "SqliteSnapshotStore": "snapshot_store",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    try:
        module = _MODULES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{module}"), name)
