"""Helpers of decorators that look at the message before the function runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from lexigram.contracts.domain.events import DomainEvent
from lexigram.contracts.events.messages import Message
from lexigram.events.exceptions import EventValidationError

P = ParamSpec("P")


def message_of(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Return the message among a call's arguments: the first one that is a message, else the last positional one."""
    for value in (*arguments, *keywords.values()):
        if isinstance(value, (Message, DomainEvent)):
            return value
    return arguments[-1] if arguments else next(iter(keywords.values()), None)


def before(func: Callable[P, Any], check: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[P, Any]:
    """Return `func` with `check(message)` called first; a coroutine function stays one."""
    if inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def checked_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            await check(message_of(args, kwargs))
            return await func(*args, **kwargs)

        return checked_async

    @functools.wraps(func)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Any:
        _at_once(check(message_of(args, kwargs)))
        return func(*args, **kwargs)

    return checked


def _at_once(check: Coroutine[Any, Any, None]) -> None:
    """Run a check that does not wait."""
    try:
        check.send(None)
    except StopIteration:
        return
    check.close()
    raise EventValidationError(
        "a validator waits, but a plain function cannot; make it a coroutine function", field="func"
    )
