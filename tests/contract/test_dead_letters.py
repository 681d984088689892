"""The dead-letter stores keep every promise of the contract suite."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.buses.dead_letter import DeadLetterStore, InMemoryDeadLetterStore
from lexigram.events.stores.sqlite.dead_letters import SqliteDeadLetterStore
from lexigram.events.testing.dead_letters import DeadLetterStoreContract, DurableDeadLetterStoreContract


class TestInMemoryDeadLetterStore(DeadLetterStoreContract):
    async def make_store(self) -> DeadLetterStore:
        return InMemoryDeadLetterStore()


class TestSqliteDeadLetterStore(DurableDeadLetterStoreContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.paths = (str(tmp_path / f"letters{number}.db") for number in count())

    async def make_store(self) -> DeadLetterStore:
        return SqliteDeadLetterStore(next(self.paths))

    async def reopen(self, store: Any) -> DeadLetterStore:
        await store.close()
        return SqliteDeadLetterStore(store.database.path)
