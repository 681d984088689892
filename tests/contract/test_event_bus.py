"""The event bus keeps every promise of the contract suite, with dead letters in memory and in SQLite."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from lexigram.events.buses.dead_letter import DeadLetterStore, InMemoryDeadLetterStore
from lexigram.events.stores.sqlite.dead_letters import SqliteDeadLetterStore
from lexigram.events.testing.event_bus import EventBusContract


class TestEventBusInMemory(EventBusContract):
    async def make_dead_letters(self) -> DeadLetterStore:
        return InMemoryDeadLetterStore()


class TestEventBusWithSqliteDeadLetters(EventBusContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.paths = (str(tmp_path / f"letters{number}.db") for number in count())

    async def make_dead_letters(self) -> DeadLetterStore:
        return SqliteDeadLetterStore(next(self.paths))
