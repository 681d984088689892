"""Runs a handler once per message, whoever delivers it again. Source: spec/reference-surface.md."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

from lexigram.contracts.core.result import Err
from lexigram.events.decorators._around import message_of
from lexigram.events.decorators.idempotency_cache import IdempotencyCache
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.context import id_of

P = ParamSpec("P")

_default_cache = IdempotencyCache()
_MISSING = object()


def idempotent(
    *, key_func: Callable[[Any], str | None] | None = None, ttl: int = 3600, cache: IdempotencyCache | None = None
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Run the function once per key and return the kept result to later calls.

    Calls that arrive while the first is running wait for it and share its outcome. Failures (exceptions and `Err`)
    are not kept: the next call runs the function again. The cache is in this process; it does not survive a restart.

    Args:
        key_func: Makes the key of a message; None means that it is always run. By default its `idempotency_key`,
            else its id.
        ttl: Seconds a result is kept.
        cache: Where results are kept; one shared cache by default. Keys are prefixed with the function's name.
    """
    if ttl <= 0:
        raise EventValidationError(f"ttl must be above 0 seconds, not {ttl}", field="ttl")

    def decorate(func: Callable[P, Any]) -> Callable[P, Any]:
        kept = cache if cache is not None else _default_cache
        prefix = f"{func.__module__}.{func.__qualname__}"

        def key_of(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str | None:
            message = message_of(arguments, keywords)
            key = key_func(message) if key_func is not None else _own_key(message)
            return None if key is None else f"{prefix}:{key}"

        if inspect.iscoroutinefunction(func):
            runs = _Runs(kept, ttl)

            @functools.wraps(func)
            async def once_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                key = key_of(args, kwargs)
                return await (func(*args, **kwargs) if key is None else runs.once(key, lambda: func(*args, **kwargs)))

            return once_async

        @functools.wraps(func)
        def once(*args: P.args, **kwargs: P.kwargs) -> Any:
            key = key_of(args, kwargs)
            if key is None:
                return func(*args, **kwargs)
            result = kept.get(key, _MISSING)
            if result is _MISSING:
                result = func(*args, **kwargs)
                if not isinstance(result, Err):
                    kept.set(key, result, ttl)
            return result

        return once

    return decorate


class _Runs:
    """The calls of one function that are running, by key."""

    def __init__(self, kept: IdempotencyCache, ttl: int) -> None:
        self._kept = kept
        self._ttl = ttl
        self._running: dict[str, asyncio.Future[Any]] = {}

    async def once(self, key: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return the kept result, the outcome of a running call, or run the call."""
        while True:
            result = self._kept.get(key, _MISSING)
            if result is not _MISSING:
                return result
            other = self._running.get(key)
            if other is None or other.get_loop() is not asyncio.get_running_loop():
                return await self._run(key, call)
            await asyncio.wait([other])  # being cancelled while waiting does not cancel the other call
            if not other.cancelled():
                return other.result()

    async def _run(self, key: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Run the call, tell those who wait for it, and keep its result."""
        future = self._running[key] = asyncio.get_running_loop().create_future()
        try:
            result = await call()
        except Exception as error:
            future.set_exception(error)
            future.exception()  # nobody may be waiting; that is no "exception was never retrieved"
            raise
        else:
            if not isinstance(result, Err):
                self._kept.set(key, result, self._ttl)
            future.set_result(result)
            return result
        finally:
            if self._running.get(key) is future:
                del self._running[key]
            if not future.done():
                future.cancel()  # this call was cancelled: one of those who wait runs the function


def clear_idempotency_cache() -> None:
    """Forget the results of all functions that use the shared cache."""
    _default_cache.clear()


def _own_key(message: Any) -> str:
    """Return the key a message brings along."""
    key = getattr(message, "idempotency_key", None)
    key = id_of(message) if key is None else key
    if key is not None:
        return str(key)
    raise EventValidationError(
        f"{type(message).__name__} has neither idempotency_key nor id; give @idempotent a key_func", field="key_func"
    )
