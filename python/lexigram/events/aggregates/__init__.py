"""Aggregates, entities and value objects."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    from lexigram.events._packages import from_package

    return from_package(__name__, name)
