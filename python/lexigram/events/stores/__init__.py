"""Event, snapshot, checkpoint and idempotency stores. `HAS_<BACKEND>` says whether its driver is installed."""

from __future__ import annotations

from typing import Final

_DRIVERS: Final = {"HAS_POSTGRES": "asyncpg", "HAS_MONGODB": "pymongo", "HAS_REDIS": "redis", "HAS_SQLITE": "sqlite3"}
HAS_POSTGRES: bool
HAS_MONGODB: bool
HAS_REDIS: bool
HAS_SQLITE: bool


def __getattr__(name: str) -> bool:
    if name in _DRIVERS:
        from importlib.util import find_spec

        return find_spec(_DRIVERS[name]) is not None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
