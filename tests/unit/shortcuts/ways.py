"""The same class with and without shortcuts, on every version of Python."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from lexigram.events import Event
from lexigram.events._core import append_shortcut, get_shortcut, put_shortcut, read_shortcut

SHORTCUTS: dict[str, Callable[..., Any]] = {
    "append": append_shortcut,
    "read": read_shortcut,
    "put": put_shortcut,
    "get": get_shortcut,
}


class Happened(Event):
    """An event with one field."""

    value: int = 0


class Marker:
    """Can be watched."""


def function_of(method: Any) -> types.FunctionType:
    """Return the `async def` behind a method with or without a shortcut."""
    made = types.FunctionType(
        method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__
    )
    made.__kwdefaults__, made.__qualname__, made.__doc__ = method.__kwdefaults__, method.__qualname__, method.__doc__
    made.__module__, made.__annotations__ = method.__module__, method.__annotations__
    return made


def class_with(cls: type, way: str) -> Any:
    """Return a class like `cls` whose methods have a shortcut, or have none, on every version of Python."""
    own = {}
    for name, shortcut in SHORTCUTS.items():
        if hasattr(cls, name):
            function = function_of(getattr(cls, name))
            own[name] = shortcut(function, always=True) if way == "shortcut" else function
    return type(cls.__name__, (cls,), own)
