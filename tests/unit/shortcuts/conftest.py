"""A store and a channel, made in both ways."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from lexigram.events import InMemoryEventStore
from lexigram.events.buses.channel import BoundedChannel
from tests.unit.shortcuts.ways import class_with


@pytest.fixture(params=["shortcut", "async def"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(way: str) -> Any:
    return class_with(InMemoryEventStore, way)()


@pytest.fixture
def channel(way: str) -> Any:
    return class_with(BoundedChannel, way)(2)


@pytest.fixture(autouse=True)
def no_call_is_left_over() -> Iterator[None]:
    """A call that nobody has awaited warns when it is dropped, which fails the test."""
    yield
    gc.collect()
