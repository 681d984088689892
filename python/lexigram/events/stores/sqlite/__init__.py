"""SQLite stores: the embedded durable default. Names are loaded on first use, as at the package root."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexigram.events.stores.sqlite.engine import SqliteEngine as SqliteEngine
    from lexigram.events.stores.sqlite.event_store import SqliteEventStore as SqliteEventStore

_MODULES = {
    "SqliteEngine": "engine",
    "SqliteEventStore": "event_store",
}


def __getattr__(name: str) -> Any:
    try:
        module = _MODULES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{module}"), name)
