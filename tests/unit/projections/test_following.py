"""Projections that follow the log: live, after a restart, with failures, in one transaction with their checkpoint."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.buses.dead_letter import DeadLetterEntry, DeadLetterFilter, InMemoryDeadLetterStore
from lexigram.events.config import ProjectionConfig
from lexigram.events.exceptions import ConcurrencyError, ProjectionBuildError
from lexigram.events.messages.context import current_context
from lexigram.events.messages.event import DomainEvent
from lexigram.events.projections.base import InlineProjection, ProjectionProtocol
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.sqlite.dead_letters import SqliteDeadLetterStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore


class Sold(DomainEvent):
    """Something was sold."""

    item: str
    count: int


class Totals(DurableProjection):
    """Sums per item, statement by statement, with the documents' parameter style."""

    name = "totals"
    handles = (Sold,)
    schema = ("CREATE TABLE IF NOT EXISTS totals (item TEXT PRIMARY KEY, count INTEGER NOT NULL)",)
    tables = ("totals",)
    poison: str = ""

    async def handle_event(self, event: Sold) -> None:
        await self.db.execute(
            "INSERT INTO totals (item, count) VALUES ($1, $2) "
            "ON CONFLICT (item) DO UPDATE SET count = count + excluded.count",
            event.item,
            event.count,
        )
        if event.item == self.poison:
            raise ValueError("poisonous after its write")


class FastTotals(Totals):
    """The same in batches."""

    name = "fast"
    schema = ("CREATE TABLE IF NOT EXISTS fast (item TEXT PRIMARY KEY, count INTEGER NOT NULL)",)
    tables = ("fast",)

    def project_batch(self, connection: sqlite3.Connection, events: Sequence[Sold]) -> None:
        connection.executemany(
            "INSERT INTO fast VALUES (?, ?) ON CONFLICT (item) DO UPDATE SET count = count + excluded.count",
            [(event.item, event.count) for event in events],
        )
        if any(event.item == self.poison for event in events):
            raise ValueError("poisonous batch")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteEventStore]:
    async with SqliteEventStore(str(tmp_path / "events.db")) as opened:
        yield opened


async def rows(store: SqliteEventStore, table: str) -> dict[str, int]:
    return dict(await store.engine.fetch_all(f"SELECT item, count FROM {table}"))


async def sell(store: Any, *items: str) -> int:
    for item in items:
        await store.append(f"stock-{item}", [Sold(item=item, count=1, aggregate_id=f"stock-{item}")])
    return int(await store.head())


async def test_a_live_projection_is_woken_by_the_append() -> None:
    """Far quicker than any polling; reading one's own writes works."""
    store, seen = InMemoryEventStore(), []
    projection = InlineProjection("live", in_memory=True)
    projection.handle(Sold)(lambda event: seen.append(event.item))
    async with ProjectionManager(store) as manager:
        manager.register(projection)
        await sell(store, "warm up")
        await manager.wait_for("live", 1, timeout=5)
        started = time.perf_counter()
        for number in range(20):
            position = await sell(store, str(number))
            await manager.wait_for("live", position, timeout=5)
        assert time.perf_counter() - started < 20 * 0.1
        status = manager.get_status("live")
        assert status is not None
        assert (status["state"], status["lag"], status["position"]) == ("live", 0, 21)
        assert status["rate"] > 0
    assert len(seen) == 21
    assert manager.get_status("live")["state"] == "stopped"  # type: ignore[index]


async def test_rows_and_checkpoint_commit_together_and_restart_leaves_no_gap(store: SqliteEventStore) -> None:
    """Statement form, batch form and the stored positions agree after a restart."""
    await sell(store, *"abcab")
    async with ProjectionManager(store, config=ProjectionConfig(batch_size=2)) as manager:
        manager.register(Totals())
        manager.register(FastTotals())
        for name in ("totals", "fast"):
            await manager.wait_for(name, 5, timeout=5)
    head = await sell(store, *"bbd")
    again = ProjectionManager(store)
    for projection in (Totals(), FastTotals()):
        again.register(projection)
    async with again:
        for name in ("totals", "fast"):
            await again.wait_for(name, head, timeout=5)
    expected = {"a": 2, "b": 4, "c": 1, "d": 1}
    assert await rows(store, "totals") == expected
    assert await rows(store, "fast") == expected
    async with store.checkpoint_store() as checkpoints:
        assert await checkpoints.list_checkpoints() == {"totals": head, "fast": head}


@pytest.mark.parametrize("kind", [Totals, FastTotals])
async def test_a_poisonous_event_stops_only_its_projection_exactly_before_it(
    store: SqliteEventStore, kind: type[Totals]
) -> None:
    """What was good in the same batch stays; what the poisonous event wrote is undone; resume goes on."""
    projection, other = kind(), InlineProjection("other", in_memory=True)
    other.handle(Sold)(lambda event: None)
    projection.poison = "x"
    head = await sell(store, "a", "b", "x", "c")
    async with ProjectionManager(store) as manager:
        manager.register(projection)
        manager.register(other)
        with pytest.raises(ProjectionBuildError, match="position 3"):
            await manager.wait_for(projection.name, head, timeout=5)
        await manager.wait_for("other", head, timeout=5)
        table = projection.tables[0]
        assert await rows(store, table) == {"a": 1, "b": 1}
        status = manager.get_status(projection.name)
        assert status is not None
        assert (status["state"], status["position"]) == ("faulted", 2)
        projection.poison = ""
        manager.resume(projection.name)
        await manager.wait_for(projection.name, head, timeout=5)
        assert await rows(store, table) == {"a": 1, "b": 1, "x": 1, "c": 1}


class Gone(BaseException):
    """No `Exception`, as the failures of test frameworks are none."""


@pytest.mark.parametrize("raised", [asyncio.CancelledError(), Gone("no Exception")])
async def test_whatever_a_handler_raises_faults_its_projection(store: SqliteEventStore, raised: BaseException) -> None:
    """Nobody has cancelled the projection; its task must not end unseen, and its rows are undone."""

    class Odd(Totals):
        async def handle_event(self, event: Sold) -> None:
            await super().handle_event(event)
            if event.item == "x" and failing:
                raise raised

    failing = [True]
    head = await sell(store, "a", "x", "b")
    async with ProjectionManager(store) as manager:
        manager.register(Odd())
        with pytest.raises(ProjectionBuildError):
            await manager.wait_for("totals", head, timeout=5)
        status = manager.get_status("totals")
        assert status is not None
        assert status["state"] == "faulted"
        assert status["last_error"]
        failing.clear()
        manager.resume("totals")
        await manager.wait_for("totals", head, timeout=5)
    assert await rows(store, "totals") == {"a": 1, "x": 1, "b": 1}


@pytest.mark.parametrize("kind", [Totals, FastTotals])
async def test_parking_goes_on_and_keeps_the_order_of_the_aggregate(
    store: SqliteEventStore, kind: type[Totals]
) -> None:
    """Later events of the same aggregate wait behind the failed one; a replay applies them in order."""
    projection, letters = kind(), SqliteDeadLetterStore(store)
    projection.poison = "x"
    head = await sell(store, "a", "x", "x", "b")
    async with ProjectionManager(store, dead_letters=letters, on_error="park") as manager:
        manager.register(projection)
        await manager.wait_for(projection.name, head, timeout=5)
        table = projection.tables[0]
        assert await rows(store, table) == {"a": 1, "b": 1}
        entries = await letters.list_entries()
        assert [(entry.event_type, entry.waiting) for entry in entries] == [("Sold", False), ("Sold", True)]
        assert entries[0].error == "poisonous after its write" if kind is Totals else "poisonous batch"
        assert not await letters.replay(entries[0].entry_id, manager)
        projection.poison = ""
        assert await letters.replay(entries[0].entry_id, manager)
        assert await rows(store, table) == {"a": 1, "b": 1, "x": 2}
        assert await letters.count(DeadLetterFilter(replayed=False)) == 0
        head = await sell(store, "x")
        await manager.wait_for(projection.name, head, timeout=5)
        assert await rows(store, table) == {"a": 1, "b": 1, "x": 3}
    await letters.close()


async def test_parking_keeps_the_order_within_one_batch() -> None:
    """Where events are applied one by one, too, what follows the failed one in the same batch waits behind it."""
    seen: list[str] = []
    mails, letters, store = InlineProjection("mails"), InMemoryDeadLetterStore(), InMemoryEventStore()

    @mails.handle(Sold)
    def mail(event: Sold) -> None:
        if event.item == "x" and not seen.count("repaired"):
            raise ValueError("no address")
        seen.append(event.item)

    items = [("1", "a"), ("1", "x"), ("1", "b"), ("2", "c")]
    await store.append("s", [Sold(item=item, count=1, aggregate_id=aggregate) for aggregate, item in items])
    async with ProjectionManager(store, dead_letters=letters, on_error="park") as manager:
        manager.register(mails)
        await manager.wait_for("mails", 4, timeout=5)
        assert seen == ["a", "c"]
        seen.append("repaired")
        assert await letters.replay((await letters.list_entries())[0].entry_id, manager)
        assert seen == ["a", "c", "repaired", "x", "b"]


@pytest.mark.parametrize("kept", [0, 3])
async def test_events_removed_from_the_end_of_the_log_are_gone_past(store: SqliteEventStore, kept: int) -> None:
    """Nothing is left to wait for: the projection reaches the head, and goes on live behind the hole."""
    projection = Totals()
    for number in range(5):
        await store.append("kept" if number < kept else "gone", [Sold(item="a", count=1)])
    await store.compact("gone", 5)
    async with ProjectionManager(store) as manager:
        manager.register(projection)
        await manager.wait_for("totals", 5, timeout=5)
        head = await sell(store, "a")
        await manager.wait_for("totals", head, timeout=5)
        status = manager.get_status("totals")
        assert status is not None
        assert (status["position"], status["lag"], status["events_processed"]) == (6, 0, kept + 1)


async def test_a_rebuild_takes_the_parked_events_back(store: SqliteEventStore) -> None:
    """They are applied by the rebuild, so a later replay must not apply them again."""
    letters, projection = InMemoryDeadLetterStore(), Totals()
    projection.poison = "x"
    head = await sell(store, "x", "a")
    async with ProjectionManager(store, dead_letters=letters, on_error="park") as manager:
        manager.register(projection)
        await manager.wait_for("totals", head, timeout=5)
        projection.poison = ""
        assert await manager.rebuild("totals") == 2
        assert await letters.get_count() == 0
        assert await rows(store, "totals") == {"x": 1, "a": 1}
        head = await sell(store, "a")
        await manager.wait_for("totals", head, timeout=5)
        assert await rows(store, "totals") == {"x": 1, "a": 2}


async def test_a_replay_that_is_cut_short_has_not_applied_the_event_twice(store: SqliteEventStore) -> None:
    """Rows and the note that a parked event is settled commit together, where the dead letters are in the same file."""

    class CutShort(SqliteDeadLetterStore):
        async def _replay_one(self, entry: DeadLetterEntry, event_bus: Any) -> bool:
            await self._redeliver(entry, event_bus)
            raise asyncio.CancelledError  # the process ends here

    projection = Totals()
    projection.poison = "x"
    head = await sell(store, "x", "a")
    async with CutShort(store) as letters:
        async with ProjectionManager(store, dead_letters=letters, on_error="park") as manager:
            manager.register(projection)
            await manager.wait_for("totals", head, timeout=5)
            projection.poison = ""
            with pytest.raises(asyncio.CancelledError):
                await letters.replay_all(manager)
            assert await rows(store, "totals") == {"x": 1, "a": 1}
            assert await letters.count(DeadLetterFilter(replayed=False)) == 0


async def test_a_second_process_on_the_same_projection_is_refused(store: SqliteEventStore) -> None:
    """The checkpoint is compared in the transaction: the one that comes late changes nothing and is faulted."""
    await sell(store, "a")
    first, second = ProjectionManager(store), ProjectionManager(store)
    first.register(Totals())
    second.register(Totals())
    [event] = await store.read_all()
    await second.process(event)
    await first.process(event)
    assert await rows(store, "totals") == {"a": 1}
    await sell(store, "b")
    [_, other] = await store.read_all()
    assert await first.process(other) == ["totals"]
    assert await second.process(other) == []
    assert "also run elsewhere" in str(second.get("totals").error)  # type: ignore[union-attr]
    assert await rows(store, "totals") == {"a": 1, "b": 1}
    await first.stop()
    await second.stop()


async def test_an_event_in_an_open_unit_of_work_is_seen_only_after_the_commit(store: SqliteEventStore) -> None:
    """A live projection never sees what may still be rolled back."""
    async with ProjectionManager(store) as manager:
        manager.register(Totals())
        with pytest.raises(ConcurrencyError):
            await sell_in_unit(store, "rolled back", fail=True)
        await sell_in_unit(store, "kept")
        await manager.wait_for("totals", await store.head(), timeout=5)
        assert await rows(store, "totals") == {"kept": 1}


async def sell_in_unit(store: SqliteEventStore, item: str, *, fail: bool = False) -> None:
    async with store.unit_of_work():
        await store.append("stock", [Sold(item=item, count=1)])
        if fail:
            raise ConcurrencyError("no")


async def test_pause_stops_at_once_and_resume_goes_on_live() -> None:
    """Paused is STOPPED with its position; nothing is lost meanwhile."""
    store, seen = InMemoryEventStore(), []
    projection = InlineProjection("p", in_memory=True)
    projection.handle(Sold)(lambda event: seen.append(event.item))
    async with ProjectionManager(store) as manager:
        manager.register(projection)
        await manager.wait_for("p", await sell(store, "a"), timeout=5)
        manager.pause("p")
        head = await sell(store, "b")
        with pytest.raises(TimeoutError, match=r"'p' is stopped at position 1, not yet at 2"):
            await manager.wait_for("p", head, timeout=0.05)
        assert seen == ["a"]
        manager.resume("p")
        await manager.wait_for("p", head, timeout=5)
        assert seen == ["a", "b"]


async def test_a_dependent_projection_never_overtakes() -> None:
    """While the first is paused the second stays behind it."""
    store, order = InMemoryEventStore(), []

    class Named(ProjectionProtocol):
        in_memory = True
        handles = (Sold,)

        def __init__(self, name: str, *after: str) -> None:
            super().__init__()
            self.given, self.depends_on = name, after  # type: ignore[misc]

        @property
        def name(self) -> str:
            return self.given

        async def apply(self, event: Any) -> None:
            order.append(self.given)

    async with ProjectionManager(store) as manager:
        manager.register(Named("second", "first"))
        manager.register(Named("first"))
        manager.pause("first")
        head = await sell(store, "a")
        await asyncio.sleep(0.05)
        assert order == []
        manager.resume("first")
        await manager.wait_for("second", head, timeout=5)
        assert order == ["first", "second"]


async def test_without_parallel_projections_batches_take_turns() -> None:
    """`enable_parallel_projections=False`: never two at the same time."""
    store, inside = InMemoryEventStore(), 0
    most = 0

    class Slow(ProjectionProtocol):
        in_memory = True

        def __init__(self, name: str) -> None:
            super().__init__()
            self.given = name

        @property
        def name(self) -> str:
            return self.given

        async def apply(self, event: Any) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.002)
            inside -= 1

    for parallel, expected in ((True, 2), (False, 1)):
        most = 0
        manager = ProjectionManager(store, config=ProjectionConfig(enable_parallel_projections=parallel))
        manager.register(Slow("a"))
        manager.register(Slow("b"))
        head = await sell(store, "x", "y")
        async with manager:
            for name in "ab":
                await manager.wait_for(name, head, timeout=5)
        assert most == expected


async def test_a_restart_with_a_checkpoint_store_repeats_at_most_the_interval() -> None:
    """Without a shared transaction: at least once; after an orderly stop, exactly where it was."""
    store, checkpoints, seen = InMemoryEventStore(), InMemoryCheckpointStore(), []

    def make() -> ProjectionManager:
        manager = ProjectionManager(store, checkpoints)
        projection = InlineProjection("p")
        projection.handle(Sold)(lambda event: seen.append(event.item))
        manager.register(projection)
        return manager

    async with make() as manager:
        await manager.wait_for("p", await sell(store, "a", "b"), timeout=5)
    async with make() as manager:
        await manager.wait_for("p", await sell(store, "c"), timeout=5)
    assert seen == ["a", "b", "c"]
    assert await checkpoints.get_checkpoint("p") == 3


async def test_the_event_being_applied_is_the_message_context() -> None:
    """So what a projection emits names the event that caused it."""
    store, made = InMemoryEventStore(), []
    projection = InlineProjection("p", in_memory=True)
    projection.handle(Sold)(lambda event: made.append((event, current_context())))
    async with ProjectionManager(store) as manager:
        manager.register(projection)
        await manager.wait_for("p", await sell(store, "a"), timeout=5)
    [(cause, context)] = made
    assert context.message_id == cause.event_id


@pytest.mark.parametrize("config", [{}, {"shared": True, "partitions": 2, "lease_seconds": 3}])
async def test_a_log_that_ends_before_the_position_is_an_error_until_the_projection_is_reset(
    store: SqliteEventStore, config: dict[str, Any]
) -> None:
    """It has begun anew under the same checkpoints: nothing of it may be skipped in silence."""
    checkpoints = store.checkpoint_store()
    assert checkpoints is not None
    for name in ("totals", "totals/1of2", "totals/2of2"):
        await checkpoints.save_checkpoint(name, 50)
    for number in range(3):
        await store.append(f"s{number}", [Sold(item="pen", count=1)])
    async with checkpoints, ProjectionManager(store, checkpoints, config=ProjectionConfig(**config)) as manager:
        manager.register(Totals())
        with pytest.raises(ProjectionBuildError, match="50, but the log ends at 3"):
            await manager.wait_for("totals", 51, 20)
        status = manager.get_status("totals")
        assert status is not None
        assert (status["state"], status["position"]) == ("faulted", 50)
        assert await manager.rebuild("totals") == 3
        await manager.wait_for("totals", 3, 20)
        assert await rows(store, "totals") == {"pen": 3}
