"""The outboxes and inboxes of memory and SQLite keep every promise of the contract suites."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from lexigram.events.stores.base import AbstractEventStore, AbstractIdempotencyStore
from lexigram.events.stores.idempotency import InMemoryIdempotencyStore
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.sqlite import SqliteEventStore, SqliteIdempotencyStore
from lexigram.events.testing.inbox import InboxContract
from lexigram.events.testing.outbox import OutboxContract, RowOutboxContract


class TestInMemoryOutbox(OutboxContract):
    async def make_store(self) -> AbstractEventStore:
        return InMemoryEventStore()


class TestSqliteOutbox(RowOutboxContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.paths = (str(tmp_path / f"events{number}.db") for number in count())

    async def make_store(self) -> AbstractEventStore:
        return SqliteEventStore(next(self.paths))


class TestInMemoryInbox(InboxContract):
    async def make_stores(self) -> tuple[AbstractEventStore, AbstractIdempotencyStore]:
        return InMemoryEventStore(), InMemoryIdempotencyStore()


class TestSqliteInbox(InboxContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "events.db")

    async def make_stores(self) -> tuple[AbstractEventStore, AbstractIdempotencyStore]:
        events = SqliteEventStore(self.path)
        return events, SqliteIdempotencyStore(events)
