"""Memory and SQLite agree with one plain-Python model whatever is done to them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from tests.properties.store_machine import StoreMachine

QUICK = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
LONG = settings(QUICK, max_examples=1000, stateful_step_count=100)


class MemoryMachine(StoreMachine):
    """The in-memory store without eviction."""

    async def make_store(self) -> InMemoryEventStore:
        return InMemoryEventStore(max_events_per_stream=0)


class EvictingMachine(StoreMachine):
    """The in-memory store that keeps four events of a stream."""

    limit = 4

    async def make_store(self) -> InMemoryEventStore:
        return InMemoryEventStore(max_events_per_stream=4)


class SqliteMachine(StoreMachine):
    """SQLite in a file that is closed and opened again and again."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()

    async def make_store(self) -> SqliteEventStore:
        return SqliteEventStore(str(Path(self.directory.name) / "events.db"))

    async def reopen_store(self) -> Any:
        await self.store.close()
        return await self.make_store()

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


class TestMemory(MemoryMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = QUICK


class TestEvictingMemory(EvictingMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = QUICK


class TestSqlite(SqliteMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = QUICK


@pytest.mark.soak
@pytest.mark.timeout(3600)
class TestMemoryLong(MemoryMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = LONG


@pytest.mark.soak
@pytest.mark.timeout(3600)
class TestEvictingMemoryLong(EvictingMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = LONG


@pytest.mark.soak
@pytest.mark.timeout(3600)
class TestSqliteLong(SqliteMachine.TestCase):  # type: ignore[misc, valid-type]
    settings = LONG
