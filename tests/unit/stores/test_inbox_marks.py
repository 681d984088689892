"""An inbox whose marks are in another database than the events: a mark would outlive the handler's failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexigram.events import EventValidationError, InMemoryEventStore, SqliteEventStore
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.inbox import Inbox
from lexigram.events.stores.sqlite.idempotency_store import SqliteIdempotencyStore
from lexigram.events.testing.samples import added

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_marks_of_another_database_are_refused(backend: str, tmp_path: Path) -> None:
    """After a failure the next delivery said that the message was handled; nothing of it was stored."""
    events: AbstractEventStore = (
        InMemoryEventStore() if backend == "memory" else SqliteEventStore(str(tmp_path / "events.db"))
    )
    async with events, SqliteIdempotencyStore(str(tmp_path / "marks.db")) as marks:
        inbox = Inbox("stock", events, marks)
        with pytest.raises(EventValidationError, match="not in the event store's database"):
            await inbox.once("m-1", lambda: events.append("a", added("1")))
        assert not await marks.is_processed("stock", "m-1")


async def test_marks_beside_the_events_may_have_a_path_of_their_own(tmp_path: Path) -> None:
    """What counts is the file, not the object."""
    path = str(tmp_path / "events.db")
    async with SqliteEventStore(path) as events, SqliteIdempotencyStore(path) as marks:
        inbox = Inbox("stock", events, marks)

        async def fail() -> None:
            raise ConnectionError("no stock")

        with pytest.raises(ConnectionError):
            await inbox.once("m-1", fail)
        assert await inbox.once("m-1", lambda: events.append("a", added("1")))
