"""Event, snapshot, checkpoint and idempotency stores. `HAS_<BACKEND>` says whether its driver is installed."""

from __future__ import annotations

from typing import Any, Final

_DRIVERS: Final = {"HAS_POSTGRES": "asyncpg", "HAS_MONGODB": "pymongo", "HAS_REDIS": "redis", "HAS_SQLITE": "sqlite3"}
HAS_POSTGRES: bool
HAS_MONGODB: bool
HAS_REDIS: bool
HAS_SQLITE: bool


def __getattr__(name: str) -> Any:
    if name in _DRIVERS:
        from importlib.util import find_spec

        return find_spec(_DRIVERS[name]) is not None
    from lexigram.events._packages import from_package

    return from_package(__name__, name)
