"""MongoDB stores, on pymongo's asyncio API. Names are loaded on first use, as at the package root."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexigram.events.stores.mongodb.checkpoint_store import MongoDBCheckpointStore as MongoDBCheckpointStore
    from lexigram.events.stores.mongodb.config import MongoDBConfig as MongoDBConfig
    from lexigram.events.stores.mongodb.dead_letters import MongoDBDeadLetterStore as MongoDBDeadLetterStore
    from lexigram.events.stores.mongodb.event_store import MongoDBEventStore as MongoDBEventStore
    from lexigram.events.stores.mongodb.idempotency_store import MongoDBIdempotencyStore as MongoDBIdempotencyStore
    from lexigram.events.stores.mongodb.snapshot_store import MongoDBSnapshotStore as MongoDBSnapshotStore

if find_spec("pymongo") is None:
    raise ImportError("the MongoDB stores need the driver: pip install 'lexigram-events[mongo]'", name="pymongo")

_MODULES = {
    "MongoDBCheckpointStore": "checkpoint_store",
    "MongoDBConfig": "config",
    "MongoDBDeadLetterStore": "dead_letters",
    "MongoDBEventStore": "event_store",
    "MongoDBIdempotencyStore": "idempotency_store",
    "MongoDBSnapshotStore": "snapshot_store",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    try:
        module = _MODULES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{module}"), name)
