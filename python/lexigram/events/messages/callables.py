"""What a program hands in to be called: functions that run, objects that can do what is asked of them."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from lexigram.events.exceptions import EventValidationError


def check_runs(function: Any, name: str, field: str) -> None:
    """Refuse a generator function: calling it runs nothing, so that what it is called with would be lost.

    Args:
        function: A function, a method, or an object that can be called.
        name: What to call it in the message.
        field: Argument that holds it.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; it is a generator function, asynchronous or not.
    """
    if any(map(_yields, (function, getattr(type(function), "__call__", None)))):  # noqa: B004
        raise EventValidationError(f"{name} yields, so calling it runs nothing; let it return instead", field=field)


def _yields(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    if getattr(getattr(function, "__code__", None), "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE:
        return False  # of `types.coroutine`: what it returns can be awaited
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def check_can(value: Any, field: str, what: str, *methods: str) -> None:
    """Refuse an object in the wrong place, which would fail at its first use, or silently never be used.

    Args:
        field: Argument that holds it.
        what: What it should be, for the message.
        methods: What it is recognised by; one of them is enough.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; it has none of the methods.
    """
    if not any(callable(getattr(value, method, None)) for method in methods):
        raise EventValidationError(f"{field} must be {what}, not {type(value).__name__}", field=field)


def check_snapshot_store(value: Any) -> None:
    """Refuse what is no snapshot store, ours or the framework's."""
    check_can(value, "snapshot_store", "a snapshot store", "get_latest", "load")


def check_event_store(value: Any) -> None:
    """Refuse what is no event store, ours or the framework's."""
    check_can(value, "event_store", "an event store", "read")
