"""A bounded cache of results that expire. Source: spec/reference-surface.md."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from lexigram.events.exceptions import EventValidationError


class IdempotencyCache:
    """Keeps results by key, in this process; the entry unused for longest goes first.

    Args:
        default_ttl: Seconds an entry is kept.
        max_size: Most entries, from 1.
    """

    def __init__(self, default_ttl: float = 3600.0, max_size: int = 10000) -> None:
        if default_ttl <= 0:
            raise EventValidationError(f"default_ttl must be above 0 seconds, not {default_ttl}", field="default_ttl")
        if max_size < 1:
            raise EventValidationError(f"max_size must be at least 1, not {max_size}", field="max_size")
        self._default_ttl = default_ttl
        self._max_size = max_size
        self._entries: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    def get(self, key: Hashable, default: Any = None) -> Any:
        """Return the value of a key that has not expired, else `default`."""
        entry = self._entries.get(key)
        if entry is None:
            return default
        if entry[0] <= time.monotonic():
            del self._entries[key]
            return default
        self._entries.move_to_end(key)
        return entry[1]

    def set(self, key: Hashable, value: Any, ttl: float | None = None) -> None:
        """Keep a value for `ttl` seconds."""
        self._entries[key] = (time.monotonic() + (self._default_ttl if ttl is None else ttl), value)
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_size:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
