"""Keeps the results of queries whose handler is marked `cacheable`. Source: spec/api-reference.md, `query_handler`."""

from __future__ import annotations

import dataclasses
from typing import Any

from lexigram.contracts.core.result import Err
from lexigram.events.buses._handler import HandlerCall
from lexigram.events.decorators.idempotency_cache import IdempotencyCache

_NOT_CONTENT = frozenset({"id", "timestamp", "metadata", "cache_key", "skip_cache"})
_MISSING = object()

DEFAULT_TTL_SECONDS = 300.0


class CachedQueryHandler:
    """Calls a query handler unless an earlier result is still good.

    Args:
        call: The handler as a coroutine function.
        handler: What the user registered; two of these are equal if that is.
        ttl_seconds: How long a result is good.
        max_size: Most results kept.
    """

    def __init__(
        self, call: HandlerCall, handler: Any, ttl_seconds: float | None = None, max_size: int = 10000
    ) -> None:
        self._call = call
        self._cache = IdempotencyCache(DEFAULT_TTL_SECONDS if ttl_seconds is None else ttl_seconds, max_size)
        self.func = handler

    async def __call__(self, query: Any) -> Any:
        """Return the kept result for the query's `cache_key` or content; `skip_cache` renews it. `Err` is not kept."""
        key = cache_key(query)
        if not getattr(query, "skip_cache", False):
            result = self._cache.get(key, _MISSING)
            if result is not _MISSING:
                return result
        result = await self._call(query)
        if not isinstance(result, Err):
            self._cache.set(key, result)
        return result

    def clear(self) -> None:
        """Forget all results."""
        self._cache.clear()


def cache_key(query: Any) -> str:
    """Return the query's own `cache_key`, else its class and content; id, time and metadata are not content."""
    if own := getattr(query, "cache_key", None):
        return f"key:{own}"
    names = [f.name for f in dataclasses.fields(query)] if dataclasses.is_dataclass(query) else list(vars(query))
    content = ",".join(f"{name}={getattr(query, name)!r}" for name in names if name not in _NOT_CONTENT)
    return f"{type(query).__module__}.{type(query).__qualname__}({content})"
