"""The outboxes of memory and SQLite keep every promise of the contract suite."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.sqlite import SqliteEventStore
from lexigram.events.testing.outbox import OutboxContract


class TestInMemoryOutbox(OutboxContract):
    async def make_store(self) -> AbstractEventStore:
        return InMemoryEventStore()


class TestSqliteOutbox(OutboxContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.paths = (str(tmp_path / f"events{number}.db") for number in count())

    async def make_store(self) -> AbstractEventStore:
        return SqliteEventStore(next(self.paths))
