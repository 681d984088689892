"""Functions of the user that are called for what they do."""

from __future__ import annotations

import inspect
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
    called = (function, getattr(type(function), "__call__", None))  # noqa: B004
    if any(inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in called):
        raise EventValidationError(f"{name} yields, so calling it runs nothing; let it return instead", field=field)
