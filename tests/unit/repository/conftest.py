"""An event store and a snapshot store of every backend that ships with the package."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import InMemoryEventStore, InMemorySnapshotStore, SqliteEventStore, SqliteSnapshotStore


@pytest.fixture(params=["memory", "sqlite"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Any, Any]]:
    """Event store and snapshot store of one backend, open."""
    if request.param == "memory":
        events, snapshots = InMemoryEventStore(), InMemorySnapshotStore()
    else:
        events = SqliteEventStore(tmp_path / "events.db")
        snapshots = SqliteSnapshotStore(events)
    async with events, snapshots:
        yield events, snapshots


@pytest.fixture
def event_store(stores: tuple[Any, Any]) -> Any:
    """The event store."""
    return stores[0]


@pytest.fixture
def snapshot_store(stores: tuple[Any, Any]) -> Any:
    """The snapshot store of the same backend."""
    return stores[1]
