"""Turns every kind of handler into a coroutine function of one argument."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.callables import check_runs

HandlerCall = Callable[[Any], Awaitable[Any]]
"""What a bus calls: a coroutine function taking the message."""

HandlerFactory = Callable[[Any], Any]
"""Makes a handler ready: a class becomes an instance, a function with further parameters gets them injected."""


def handler_name(handler: Any) -> str:
    """Return `module.qualname` of the function or class behind `handler`; stable across restarts."""
    if isinstance(handler, LazyHandler):
        handler = handler.target
    while isinstance(handler, functools.partial):
        handler = handler.func
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{getattr(named, '__module__', None) or '?'}.{named.__qualname__}"


def handle_of(handler: Any) -> Any:
    """Return the method `handle` of an object that declares one, else the object.

    An object that can be called and only makes up every attribute it is asked for, such as a mock, is a function.
    """
    if inspect.isroutine(handler):
        return handler
    owners = (handler, handler.__class__)
    declares = any(inspect.getattr_static(owner, "handle", None) is not None for owner in owners)
    return getattr(handler, "handle", handler) if declares or not callable(handler) else handler


def as_call(handler: Any, factory: HandlerFactory | None = None) -> HandlerCall:
    """Return `handler` as a coroutine function of one argument.

    Args:
        handler: Coroutine function, plain function (called in the event loop: it must not block), object with
            `handle` or `__call__`, or a class, which is built at its first message.
        factory: Builds classes, and functions with more parameters than the message. Without one, classes are
            called without arguments and such functions are refused.

    Raises:
        EventValidationError: Not a handler; `field` is "handler".
    """
    if isinstance(handler, LazyHandler):
        return handler
    if inspect.isclass(handler):
        if not callable(getattr(handler, "handle", None)) and "__call__" not in vars(handler):
            raise EventValidationError(f"{handler.__qualname__} has no method handle(message)", field="handler")
        return LazyHandler(handler, factory or _build_without_arguments)
    target = handle_of(handler)
    if not callable(target):
        raise EventValidationError(f"{handler!r} is neither callable nor has a method handle", field="handler")
    required, further = _further_parameters(target)
    if required or (further and factory is not None):
        if factory is None:
            raise EventValidationError(
                f"{handler_name(handler)} needs more than the message; only a container can inject the rest "
                "(give a handler_factory)",
                field="handler",
            )
        return LazyHandler(handler, factory)
    return target if is_async(target) else _from_plain(target)


def check_handler_runs(handler: Any) -> None:
    """Raise EventValidationError for a handler that yields; only what answers a query may."""
    target = handler.target if isinstance(handler, LazyHandler) else handler
    is_class = inspect.isclass(target)
    called = getattr(target, "handle", vars(target).get("__call__")) if is_class else handle_of(target)
    check_runs(called, handler_name(target), "handler")


def is_async(target: Any) -> bool:
    """Return whether calling `target` gives a coroutine."""
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004


def _further_parameters(target: Any) -> tuple[bool, bool]:
    """Return whether `target` has parameters behind the message that have to be filled, and whether it has any."""
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):  # builtins without a signature
        return False, False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    if not positional and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise EventValidationError(f"{handler_name(target)} does not take the message", field="handler")
    further = [*positional[1:], *named]
    return any(p.default is p.empty for p in further), bool(further)


def _from_plain(target: Callable[[Any], Any]) -> HandlerCall:
    """Return a coroutine function around a plain one, which may still return an awaitable."""

    async def call(message: Any) -> Any:
        result = target(message)
        return await result if inspect.isawaitable(result) else result

    return call


def _build_without_arguments(handler_type: Any) -> Any:
    """Build a handler class that needs nothing."""
    try:
        return handler_type()
    except TypeError as error:
        raise EventValidationError(
            f"{handler_type.__qualname__} cannot be built without arguments ({error}); "
            "register an instance or give a handler_factory",
            field="handler",
        ) from error


class LazyHandler:
    """A handler that its factory builds at the first message and that is kept from then on."""

    __slots__ = ("_call", "_factory", "_lock", "target")

    def __init__(self, target: Any, factory: HandlerFactory) -> None:
        self.target = target
        self._factory = factory
        self._call: HandlerCall | None = None
        self._lock: asyncio.Lock | None = None

    async def __call__(self, message: Any) -> Any:
        return await (self._call or await self._build())(message)

    async def _build(self) -> HandlerCall:
        """Build once, however many messages arrive meanwhile; a failure is tried again with the next message."""
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self._call is None:
                built = self._factory(self.target)
                self._call = as_call(await built if inspect.isawaitable(built) else built)
        return self._call

    def __eq__(self, other: object) -> bool:
        return bool(self.target == (other.target if isinstance(other, LazyHandler) else other))

    def __hash__(self) -> int:
        return hash(self.target)
