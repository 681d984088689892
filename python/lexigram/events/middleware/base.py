"""Middleware: `async (message, next_handler) -> result`, around the handlers of any bus.

Source: spec/reference-surface.md, `lexigram.events.middleware.base`.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from types import FunctionType, MethodType, UnionType
from typing import Any, Generic, Self, TypeVar

from lexigram.events.exceptions import EventValidationError

TMessage = TypeVar("TMessage")
TResult = TypeVar("TResult")

NextHandler = Callable[[Any], Awaitable[Any]]
"""Hands the message on to the next middleware or the handler; await what it returns."""

MiddlewareFunc = Callable[[Any, NextHandler], Awaitable[Any]]
"""A middleware: a coroutine function, an `AbstractMiddleware`, or any object with such a `__call__`."""


class AbstractMiddleware(ABC, Generic[TMessage, TResult]):
    """Base class of middleware with state."""

    @abstractmethod
    async def __call__(self, message: TMessage, next_handler: NextHandler) -> TResult:
        """Handle `message`, usually by awaiting `next_handler(message)`."""


class MiddlewareChain(Generic[TMessage, TResult]):
    """An ordered list of middleware: the first added is the outermost."""

    def __init__(self) -> None:
        self._middlewares: list[MiddlewareFunc] = []

    def add(self, middleware: AbstractMiddleware[TMessage, TResult] | MiddlewareFunc) -> Self:
        """Append a middleware (innermost so far)."""
        self._middlewares.append(checked(middleware))
        return self

    def insert(self, index: int, middleware: AbstractMiddleware[TMessage, TResult] | MiddlewareFunc) -> Self:
        """Insert a middleware before the one at `index`."""
        self._middlewares.insert(index, checked(middleware))
        return self

    def clear(self) -> None:
        """Remove all middleware."""
        self._middlewares.clear()

    async def execute(self, message: TMessage, final_handler: Callable[[TMessage], Awaitable[TResult]]) -> TResult:
        """Run `message` through the chain and into `final_handler`; return the outermost result."""
        result: TResult = await chained(self._middlewares, final_handler)(message)
        return result


def middleware(func: MiddlewareFunc) -> AbstractMiddleware[Any, Any]:
    """Make an `AbstractMiddleware` of a coroutine function `(message, next_handler)`."""
    return _FunctionMiddleware(func)


class _FunctionMiddleware(AbstractMiddleware[Any, Any]):
    """Middleware around a function; keeps its name for logs and tracebacks."""

    def __init__(self, func: MiddlewareFunc) -> None:
        self._func = checked(func)
        functools.update_wrapper(self, func)

    async def __call__(self, message: Any, next_handler: NextHandler) -> Any:
        return await self._func(message, next_handler)


def chained(middlewares: Iterable[MiddlewareFunc], handler: NextHandler) -> NextHandler:
    """Return one callable that runs `middlewares`, first one outermost, around `handler`. Done at registration."""
    for layer in reversed(list(middlewares)):
        handler = _bound(layer, handler)
    return handler


def _bound(layer: MiddlewareFunc, next_handler: NextHandler) -> NextHandler:
    """Return `layer` with its second argument fixed."""
    if isinstance(layer, FunctionType) and _is_plain(layer, 2):
        return _with_default(layer, next_handler)
    method = inspect.getattr_static(type(layer), "__call__", None)
    if isinstance(method, FunctionType) and _is_plain(method, 3):
        return MethodType(_with_default(method, next_handler), layer)
    call: Any = layer
    return lambda message: call(message, next_handler)


def _is_plain(function: FunctionType, parameters: int) -> bool:
    """Return whether a function takes exactly so many positional parameters, without defaults, and nothing else."""
    code = function.__code__
    variadic = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    return code.co_argcount == parameters and not (variadic or code.co_kwonlyargcount or function.__defaults__)


def _with_default(function: FunctionType, next_handler: NextHandler) -> Callable[..., Awaitable[Any]]:
    """Return the same function with `next_handler` as the default of its last parameter: no call in between."""
    bound: Any = FunctionType(
        function.__code__, function.__globals__, function.__name__, (next_handler,), function.__closure__
    )
    bound.__qualname__ = function.__qualname__
    bound.__dict__.update(function.__dict__)
    return bound  # type: ignore[no-any-return]


def checked_errors(errors: Any, field: str) -> tuple[type[BaseException], ...]:
    """Return exception classes as a flat tuple; one class, several, and what `except` or `isinstance` take are fine.

    Raises:
        EventValidationError: Something is no exception class.
    """
    if inspect.isclass(errors) and issubclass(errors, BaseException):
        return (errors,)
    parts = errors.__args__ if isinstance(errors, UnionType) else errors
    if isinstance(parts, str) or not isinstance(parts, Iterable):
        raise EventValidationError(f"{field} must be exception classes, not {errors!r}", field=field)
    return tuple(error for part in parts for error in checked_errors(part, field))


def checked(middleware: Any) -> MiddlewareFunc:
    """Return `middleware` if it can be called with (message, next_handler).

    Raises:
        EventValidationError: It cannot; a class instead of an instance, for example. `field` is "middleware".
    """
    if inspect.isclass(middleware) or not callable(middleware):
        raise EventValidationError(
            f"{middleware!r} is not a middleware; give an instance or a coroutine function (message, next_handler)",
            field="middleware",
        )
    try:
        inspect.signature(middleware).bind(None, None)
    except TypeError:
        raise EventValidationError(
            f"{middleware!r} must take two arguments, (message, next_handler)", field="middleware"
        ) from None
    except ValueError:  # a builtin without signature
        pass
    return middleware  # type: ignore[no-any-return]
