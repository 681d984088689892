"""Helpers of decorators that look at the message before the function runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

from lexigram.contracts.domain.events import DomainEvent
from lexigram.contracts.events.messages import Message

P = ParamSpec("P")


def message_of(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Return the message among a call's arguments: the first one that is a message, else the last positional one."""
    for value in (*arguments, *keywords.values()):
        if isinstance(value, (Message, DomainEvent)):
            return value
    return arguments[-1] if arguments else next(iter(keywords.values()), None)


def before(func: Callable[P, Any], check: Callable[[Any], None]) -> Callable[P, Any]:
    """Return `func` with `check(message)` called first; a coroutine function stays one."""
    if inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def checked_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            check(message_of(args, kwargs))
            return await func(*args, **kwargs)

        return checked_async

    @functools.wraps(func)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Any:
        check(message_of(args, kwargs))
        return func(*args, **kwargs)

    return checked
