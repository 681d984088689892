"""Keeps the results of queries whose handler is marked `cacheable`. Source: spec/api-reference.md, `query_handler`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Mapping
from typing import Any

from lexigram.contracts.core.result import Err
from lexigram.contracts.events.messages import Message
from lexigram.events.buses._handler import HandlerCall
from lexigram.events.decorators.idempotency_cache import IdempotencyCache

_OPTIONS = frozenset({"cache_key", "skip_cache"})
_NOT_CONTENT = frozenset({"id", "timestamp", "metadata"}) | _OPTIONS
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
        if key is not None and not getattr(query, "skip_cache", False):
            result = self._cache.get(key, _MISSING)
            if result is not _MISSING:
                return result
        result = await self._call(query)
        if key is not None and not isinstance(result, Err):
            self._cache.set(key, result)
        return result

    def clear(self) -> None:
        """Forget all results."""
        self._cache.clear()


def cache_key(query: Any) -> Hashable | None:
    """Return what queries with the same result have in common; None if that cannot be told.

    It is the query's own `cache_key`, else its class and content with the user and tenant who ask. Its id, time and other
    metadata are no content, unless the class has declared a field of that name.
    """
    metadata = getattr(query, "metadata", None)
    asking = getattr(metadata, "user_id", None), getattr(metadata, "tenant_id", None)
    try:
        if own := getattr(query, "cache_key", None):
            return ("key", _frozen(own))
        names = _content_of(query.__class__)
        if names is None:
            names = [name for name in vars(query) if name not in _NOT_CONTENT]
        content = tuple((name, _frozen(getattr(query, name))) for name in names)
    except (TypeError, RecursionError):
        return None
    return (type(query), asking, content)


@functools.lru_cache(maxsize=1024)
def _content_of(query_type: Any) -> list[str] | None:
    """Return the names of the fields that a result depends on; None if the class has declared no fields."""
    bases = query_type.__mro__
    if not dataclasses.is_dataclass(query_type):
        return None
    roots = [Message.__dataclass_fields__, *(base.__dict__.get("__metadata_fields__", {}) for base in bases)]
    return [
        f.name
        for f in dataclasses.fields(query_type)
        if f.name not in _NOT_CONTENT
        or (f.name not in _OPTIONS and all(f is not fields.get(f.name) for fields in roots))
    ]


def _frozen(value: Any) -> Hashable:
    """Return a value as a part of a key, equal only for values that are equal and look alike: one instant in two time zones
    is not, nor is 1.0 and 1.00. The look alone may hide a secret.

    Raises:
        RecursionError: It contains itself.
        TypeError: It can be changed and is nothing that is looked into.
    """
    kind = type(value)
    if isinstance(value, list | tuple):
        return kind, tuple(map(_frozen, value))
    if isinstance(value, set | frozenset):
        return kind, frozenset(map(_frozen, value))
    if isinstance(value, Mapping):
        return kind, tuple((_frozen(key), _frozen(part)) for key, part in value.items())
    if hasattr(kind, "__dataclass_fields__"):
        return kind, tuple(_frozen(getattr(value, name)) for name in kind.__dataclass_fields__ if hasattr(value, name))
    if hasattr(kind, "model_fields"):
        return kind, tuple((name, _frozen(part)) for name, part in value)
    hash(value)
    return kind, value, repr(value)
