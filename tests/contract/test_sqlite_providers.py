"""The SQLite stores keep their promises over a framework's database provider: the published one and a minimal one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events.exceptions import EventStoreError
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.sqlite.checkpoint_store import SqliteCheckpointStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore
from lexigram.events.stores.sqlite.snapshot_store import SqliteSnapshotStore
from lexigram.events.testing.checkpoint_store import CheckpointStoreContract
from lexigram.events.testing.event_store import DurableEventStoreContract
from lexigram.events.testing.samples import added, positions
from lexigram.events.testing.snapshot_store import SnapshotStoreContract
from lexigram.sql.providers.sqlite_provider import SQLiteProvider
from tests.contract.minimal_provider import MinimalProvider


class OverMinimalProvider:
    """Gives each store a provider on a file of its own."""

    provider_type: Any = MinimalProvider

    @pytest_asyncio.fixture(autouse=True)
    async def _providers(self, tmp_path: Path) -> AsyncIterator[None]:
        self._directory, self._made = tmp_path, []
        yield
        for provider in self._made:
            await provider.disconnect()

    def provider(self) -> Any:
        self._made.append(self.provider_type(str(self._directory / f"events{len(self._made)}.db")))
        return self._made[-1]


class OverPublishedProvider(OverMinimalProvider):
    """The same over lexigram-sql."""

    provider_type = SQLiteProvider


class TestEventStoreOverMinimalProvider(OverMinimalProvider, DurableEventStoreContract):
    async def make_store(self, **options: Any) -> SqliteEventStore:
        return SqliteEventStore(None, self.provider(), **options)

    async def reopen(self, store: Any) -> SqliteEventStore:
        await store.close()
        return SqliteEventStore(None, store.database.provider)

    async def test_closing_waits_for_an_append_that_runs(self, store: Any) -> None:
        """It used to stop the loop that had to answer the append's next statement, for ever."""
        provider, reached, go_on = store.database.provider, asyncio.Event(), asyncio.Event()
        execute = provider.execute

        async def slow(sql: str, params: Any = None) -> Any:
            reached.set()
            await go_on.wait()
            return await execute(sql, params)

        await store.connect()
        provider.execute = slow
        append = asyncio.create_task(store.append("a", added("1")))
        await reached.wait()
        closing = asyncio.create_task(store.close())
        await asyncio.wait((closing,), timeout=0.05)
        go_on.set()
        await asyncio.wait_for(closing, 10)
        assert await append == 1

    async def test_appends_become_visible_together_at_the_end(self, store: AbstractEventStore) -> None:
        """The block and its tasks see its events; whether others wait or read the state before is the provider's."""
        events = added("1", "2")
        async with store.unit_of_work():
            await store.append("a", events)
            outside = asyncio.create_task(store.head(), context=Context())
            assert await store.head() == 2
            await asyncio.wait((outside,), timeout=0.05)
            assert not outside.done() or outside.result() == 0
            assert events[0].sequence_number is None
        assert await outside in (0, 2)
        assert positions(events) == [1, 2]

    async def test_tasks_inside_take_turns(self, store: AbstractEventStore) -> None:
        """The provider's transaction belongs to one task: others get an error that says so and do not wait for ever."""
        async with store.unit_of_work():
            assert await store.append("a", added("1")) == 1
            with pytest.raises(EventStoreError, match="task that opened it"):
                await asyncio.wait_for(asyncio.create_task(store.append("a", added("2"))), 10)
            assert await store.append("a", added("3")) == 2
        assert await store.head() == 2


class TestEventStoreOverPublishedProvider(OverPublishedProvider, TestEventStoreOverMinimalProvider):
    pass


class TestSnapshotStoreOverPublishedProvider(OverPublishedProvider, SnapshotStoreContract):
    async def make_store(self) -> SqliteSnapshotStore:
        return SqliteSnapshotStore(None, self.provider())


class TestCheckpointStoreOverPublishedProvider(OverPublishedProvider, CheckpointStoreContract):
    async def make_store(self) -> SqliteCheckpointStore:
        return SqliteCheckpointStore(None, self.provider())


@pytest.mark.parametrize("moment", ["_begin_transaction_raw", "_commit_transaction_raw"])
async def test_a_cancellation_while_the_provider_begins_or_commits_leaves_it_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The published provider leaves the transaction open then; it is ended, for appends and for units of work."""
    provider: Any = SQLiteProvider(str(tmp_path / "events.db"))
    async with SqliteEventStore(None, provider) as store:
        events = added("1", "2")

        async def in_unit() -> None:
            async with store.unit_of_work():
                await store.append("b", events)

        manager = provider.transaction_manager
        original = getattr(manager, moment)

        async def cancelled(*arguments: Any) -> None:
            await original(*arguments)
            monkeypatch.undo()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        for work in (lambda: store.append("a", added("1")), in_unit):
            monkeypatch.setattr(manager, moment, cancelled)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.create_task(work())  # type: ignore[arg-type]
            assert await store.append("after", added("x")) > 0
        assert await store.append("b", events) == 2
    await provider.disconnect()
