"""Calls back into what is being used: what `__del__`, attributes and hooks of the tests do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4


class Back:
    """Runs something the first few times that it is called, and never while it runs already."""

    def __init__(self, *work: Callable[[], Any], times: int = 20) -> None:
        self.work, self.times, self.busy = work, times, False

    def __call__(self) -> None:
        if self.busy or self.times <= 0:
            return
        self.busy, self.times = True, self.times - 1
        try:
            for work in self.work:
                work()
        finally:
            self.busy = False

    @property
    def called(self) -> bool:
        return self.times < 20


class Dying:
    """Calls back when it is dropped."""

    def __init__(self, back: Back) -> None:
        self.back = back

    def __del__(self) -> None:
        self.back()


class Foreign:
    """An event of nobody's, whose attributes are code."""

    def __init__(self, back: Back) -> None:
        self.id, self.back = uuid4(), back

    def __getattr__(self, name: str) -> Any:
        self.back()
        if name == "event_id":
            return self.id
        if name == "tags":
            return ("t",)
        raise AttributeError(name)
