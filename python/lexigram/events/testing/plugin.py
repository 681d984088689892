"""Fixtures for pytest, active wherever this package is installed.

`event_store` and `snapshot_store` are empty in-memory stores, `event_bus` an event bus that is closed after the test,
`frozen_clock` stops the clock of all messages, `recorded_ids` makes their ids count up. A fixture of the same name in
your own `conftest.py` takes precedence. Importing this module imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

_async_fixture: Callable[[Callable[..., AsyncIterator[Any]]], Any]
try:
    from pytest_asyncio import fixture as _async_fixture
except ImportError:  # Without the plugin only synchronous tests run, and those cannot use a bus.
    _async_fixture = pytest.fixture

if TYPE_CHECKING:
    from lexigram.events import EventBusImpl, InMemoryEventStore, InMemorySnapshotStore
    from lexigram.events.testing.clock import FrozenClock, RecordedIds


@pytest.fixture
def event_store() -> InMemoryEventStore:
    """An empty in-memory event store."""
    from lexigram.events import InMemoryEventStore

    return InMemoryEventStore()


@pytest.fixture
def snapshot_store() -> InMemorySnapshotStore:
    """An empty in-memory snapshot store."""
    from lexigram.events import InMemorySnapshotStore

    return InMemorySnapshotStore()


@_async_fixture
async def event_bus() -> AsyncIterator[EventBusImpl]:
    """An event bus with default settings; closed after the test, so that no task is left behind."""
    from lexigram.events import EventBusImpl

    bus = EventBusImpl()
    yield bus
    await bus.close()


@pytest.fixture
def frozen_clock() -> Iterator[FrozenClock]:
    """A clock that stands still at noon of 2026-01-01 UTC for all messages; `advance` and `move_to` change it."""
    from lexigram.events.testing.clock import FrozenClock

    clock = FrozenClock()
    yield clock
    clock.release()


@pytest.fixture
def recorded_ids() -> Iterator[RecordedIds]:
    """Ids of messages and aggregates count up from 1; the fixture lists those given out so far."""
    from lexigram.events.testing.clock import RecordedIds

    ids = RecordedIds()
    yield ids
    ids.release()


@pytest.fixture
def scenario() -> Callable[..., Any]:
    """The class `Scenario`: `scenario(Order).given(...).when(...).then(...)`."""
    from lexigram.events.testing.scenario import Scenario

    return Scenario
