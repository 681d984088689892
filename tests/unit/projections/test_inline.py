"""Inline projections are written in the append's transaction: visible when it returns, and it fails with them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events import (
    ConcurrencyError,
    DomainEvent,
    DurableProjection,
    EventValidationError,
    InlineProjection,
    InMemoryEventStore,
    OutboxEventStore,
    ProjectionBuildError,
    ProjectionManager,
)
from lexigram.events.exceptions import EventStoreError
from tests.backends import MakeStore, address, make_store, open_store

__all__ = ["make_store"]

BACKENDS = pytest.mark.parametrize("backend", ["memory", "sqlite", "postgres"])
SQL = pytest.mark.parametrize("backend", ["sqlite", "postgres"])


class Booked(DomainEvent):
    seat: str
    price: int = 1


class Looked(DomainEvent):
    seat: str


class Model:
    """A read model on any of the backends: the sum per seat, and what was seen of each event.

    Args:
        batches: Define `project_batch` instead of `handle_event`.
    """

    def __init__(self, backend: str, batches: bool = False) -> None:
        self.backend = backend
        self.name = f"seats_{uuid4().hex[:8]}"
        self.sums: dict[str, int] = {}
        self.seen: list[tuple[int, int]] = []
        self.pauses = False
        self.projection: Any = self._in_memory() if backend == "memory" else self._durable(batches)
        self.projection.inline = True

    @classmethod
    def like(cls, other: Model) -> Model:
        """Return the same read model as another process has it."""
        found = cls(other.backend)
        found.name = other.name
        found.projection = found._durable(False)
        found.projection.inline = True
        return found

    def _in_memory(self) -> InlineProjection:
        projection = InlineProjection(self.name)

        @projection.handle(Booked)
        async def booked(event: Booked) -> None:
            await self._look(event)
            self.sums[event.seat] = self.sums.get(event.seat, 0) + event.price

        @projection.on_reset
        def empty() -> None:
            self.sums.clear()

        return projection

    def _durable(self, batches: bool) -> DurableProjection:
        model, table = self, self.name
        sql = f"INSERT INTO {table} AS t VALUES ($1, $2) ON CONFLICT (seat) DO UPDATE SET price = t.price + excluded.price"

        class Seats(DurableProjection):
            name = table
            handles = (Booked,)
            tables = (table,)
            schema = (f"CREATE TABLE IF NOT EXISTS {table} (seat TEXT PRIMARY KEY, price BIGINT CHECK (price < 1000))",)

            async def handle_event(self, event: Booked) -> None:
                await model._look(event)
                await self.db.execute(sql, event.seat, event.price)

        def project_batch(self: Any, connection: Any, events: list[Any]) -> Any:
            rows = [(event.seat, event.price) for event in events]
            return connection.executemany(sql.replace("$1, $2", "?, ?") if model.backend == "sqlite" else sql, rows)

        if batches:
            Seats.project_batch = project_batch
        return Seats()

    async def _look(self, event: Booked) -> None:
        if self.pauses:
            await asyncio.sleep(0)
        if event.price < 0:
            raise ValueError("no such price")
        self.seen.append((event.sequence_number or 0, event.version or 0))

    async def rows(self, store: Any) -> dict[str, int]:
        """Return what a reader sees."""
        if self.backend == "memory":
            return dict(self.sums)
        return {row[0]: int(row[1]) for row in await store.engine.fetch_all(f"SELECT seat, price FROM {self.name}")}


@pytest.mark.parametrize(
    ("backend", "batches"),
    [("memory", False), ("sqlite", False), ("sqlite", True), ("postgres", False), ("postgres", True)],
)
async def test_the_read_model_is_there_when_append_returns(make_store: MakeStore, backend: str, batches: bool) -> None:
    """Rows are visible at once, with positions and versions as stored; events that are not wanted change nothing."""
    model = Model(backend, batches)
    async with make_store(backend) as store:
        await store.append("a", [Booked(seat="early"), Looked(seat="early")])
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            assert await model.rows(store) == {"early": 1}
            event = Booked(seat="1a", price=3)
            assert await store.append("a", [event, Looked(seat="1a"), Booked(seat="1b")], 2) == 5
            assert await model.rows(store) == {"early": 1, "1a": 3, "1b": 1}
            assert (event.version, event.sequence_number) == (3, 3)
            assert batches or model.seen == [(1, 1), (3, 3), (5, 5)]
            await store.append("b", [Looked(seat="1a")])
            await manager.wait_for(model.name, 6, timeout=5)
            await store.append("b", [Booked(seat="1b")])
            assert await model.rows(store) == {"early": 1, "1a": 3, "1b": 2}
            status = manager.get_status(model.name)
            assert status is not None
            assert (status["state"], status["position"], status["lag"]) == ("live", 7, 0)
        await store.append("b", [Booked(seat="late")])
        assert "late" not in await model.rows(store)


@BACKENDS
async def test_a_handler_that_fails_fails_the_append_and_nothing_is_stored(make_store: MakeStore, backend: str) -> None:
    """Neither events nor rows; the events are as if they had never been given to the store, and the next append works."""
    model = Model(backend)
    async with make_store(backend) as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            await store.append("a", [Booked(seat="1a")])
            wrong = Booked(seat="1b", price=-1)
            with pytest.raises(ProjectionBuildError, match="no such price") as failure:
                await store.append("a", [wrong])
            assert isinstance(failure.value.__cause__, ValueError)
            assert (wrong.version, wrong.sequence_number) == (0, None)
            assert await store.get_stream_version("a") == 1
            assert await store.head() == 1
            assert await model.rows(store) == {"1a": 1}
            assert await store.append("a", [Booked(seat="1a")], 1) == 2
            assert await model.rows(store) == {"1a": 2}


@SQL
async def test_an_error_of_the_database_fails_the_append_too(make_store: MakeStore, backend: str) -> None:
    """On PostgreSQL it ends the transaction; the store goes on."""
    model = Model(backend)
    async with make_store(backend) as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            with pytest.raises(ProjectionBuildError, match="(?i)check"):  # noqa: RUF043
                await store.append("a", [Booked(seat="1a", price=1000)])
            assert await store.append("a", [Booked(seat="1a", price=999)]) == 1
            assert await model.rows(store) == {"1a": 999}


@BACKENDS
async def test_appends_at_the_same_time_fail_alone(make_store: MakeStore, backend: str) -> None:
    """They share transactions; a conflict or a failing handler in one of them costs its neighbours nothing."""
    model = Model(backend)
    model.pauses = True
    async with make_store(backend) as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            appends = [
                store.append(
                    f"s{n}", [Booked(seat=f"{n % 3}", price=-1 if n % 10 == 3 else 1)], 7 if n % 10 == 5 else 0
                )
                for n in range(100)
            ]
            outcomes = await asyncio.gather(*appends, return_exceptions=True)
            for n, outcome in enumerate(outcomes):
                wanted = {3: ProjectionBuildError, 5: ConcurrencyError}.get(n % 10)
                assert outcome == 1 if wanted is None else isinstance(outcome, wanted)
            assert await store.head() == 80
            assert sum((await model.rows(store)).values()) == 80
            assert sorted({position for position, _ in model.seen}) == list(range(1, 81))


@BACKENDS
async def test_a_unit_of_work_includes_what_inline_projections_write(make_store: MakeStore, backend: str) -> None:
    """It is there when the block ends, not there after a rollback, and a failure cannot be swallowed inside."""
    model = Model(backend)
    async with make_store(backend) as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            async with store.unit_of_work():
                await store.append("a", [Booked(seat="1a")])
                await store.append("b", [Booked(seat="1a", price=4)])
            assert await model.rows(store) == {"1a": 5}
            with pytest.raises(RuntimeError):
                async with store.unit_of_work():
                    await store.append("a", [Booked(seat="1a")])
                    raise RuntimeError
            assert await model.rows(store) == {"1a": 5}
            expected = EventStoreError if backend != "memory" else ProjectionBuildError
            with pytest.raises(expected):
                async with store.unit_of_work():
                    await store.append("c", [Booked(seat="1a")])
                    try:
                        await store.append("c", [Booked(seat="1a", price=-1)])
                    except ProjectionBuildError:
                        pass
            assert await store.head() == 2
            assert (await model.rows(store))["1a"] == 5 + (backend == "memory")


@SQL
async def test_appends_that_wait_when_the_manager_stops_are_still_applied(make_store: MakeStore, backend: str) -> None:
    """Whether somebody waits for them any longer or not."""
    model = Model(backend)
    model.pauses = True
    async with make_store(backend) as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            appends = [asyncio.create_task(store.append(f"s{n}", [Booked(seat="1a")])) for n in range(150)]
            await asyncio.sleep(0.001)
            for append in appends[::7]:
                append.cancel()
        await asyncio.gather(*appends, return_exceptions=True)
        assert await model.rows(store) == {"1a": await store.head()}


@SQL
async def test_an_append_that_is_repeated_is_applied_once(make_store: MakeStore, backend: str) -> None:
    """As after a lost connection: the same event ids again."""
    model = Model(backend)
    async with make_store(backend) as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            event = Booked(seat="1a")
            for _ in range(3):
                assert await store.append("a", [event]) == 1
            assert await model.rows(store) == {"1a": 1}


@SQL
async def test_what_a_program_without_it_has_appended_is_made_good(make_store: MakeStore, backend: str) -> None:
    """By the next append that concerns it, in order, before it; also while it is paused and rebuilt."""
    model = Model(backend)
    async with make_store(backend) as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            handlers = store._inline.handlers  # type: ignore[union-attr]
            other = handlers.pop()  # as in a process that does not know it
            for n in range(1200):
                await store.append(f"s{n % 7}", [Booked(seat="2a" if n % 2 else "2b")])
            handlers.append(other)
            await store.append("a", [Booked(seat="1a")])
            assert await model.rows(store) == {"1a": 1, "2a": 600, "2b": 600}
            assert [position for position, _ in model.seen] == list(range(1, 1202))
            manager.pause(model.name)
            await store.append("a", [Booked(seat="1a")])
            assert (await model.rows(store))["1a"] == 1
            manager.resume(model.name)
            await manager.wait_for(model.name, await store.head(), timeout=5)
            assert (await model.rows(store))["1a"] == 2
            assert await manager.rebuild(model.name) == 1202
            await store.append("a", [Booked(seat="1a")])
            assert await model.rows(store) == {"1a": 3, "2a": 600, "2b": 600}


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
async def test_a_rebuild_does_not_meet_what_is_being_made_good(
    make_store: MakeStore, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebuilt just when it was resumed: neither takes the other for another process."""
    model = Model(backend)
    async with make_store(backend) as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            await store.append("s", [Booked(seat="1a") for _ in range(500)])
            applier = manager.parts(model.name).runners[0].applier
            place = applier.stored_position

            async def slowly() -> int:
                await asyncio.sleep(0.05)
                return await place()

            monkeypatch.setattr(applier, "stored_position", slowly)
            for _ in range(3):
                manager.pause(model.name)
                manager.resume(model.name)
                await asyncio.sleep(0.02)
                assert await manager.rebuild(model.name, batch_size=50) == 500
        assert await model.rows(store) == {"1a": 500}


async def test_a_store_with_outbox_applies_too(make_store: MakeStore) -> None:
    """A wrapper appends to the store inside, and so does whoever uses that one."""
    model = Model("sqlite")
    async with make_store("sqlite") as store:
        wrapped = OutboxEventStore(store)
        manager = ProjectionManager(wrapped)
        manager.register(model.projection)
        async with manager:
            await wrapped.append("a", [Booked(seat="1a")])
            await store.append("a", [Booked(seat="1a")])
            assert await model.rows(store) == {"1a": 2}
            assert (await wrapped.outbox().stats()).waiting == 2


async def test_what_cannot_be_inline_is_refused(make_store: MakeStore) -> None:
    """By name, when it is registered."""

    class Versioned(DurableProjection):
        read_model = "seats"
        tables = ("seats",)
        inline = True

        async def handle_event(self, event: Booked) -> None: ...

    async with make_store("sqlite") as store:
        manager = ProjectionManager(store)
        for projection, problem in ((Model("memory").projection, "DurableProjection"), (Versioned(), "versions")):
            with pytest.raises(EventValidationError, match=problem):
                manager.register(projection)
        async with manager:
            with pytest.raises(EventValidationError, match="before start"):
                manager.register(Model("sqlite").projection)
    with pytest.raises(EventValidationError):
        ProjectionManager(InMemoryEventStore()).register(Model("sqlite").projection)


async def test_a_deferred_unit_of_work_includes_it(make_store: MakeStore) -> None:
    """As the steps of sagas use it on SQLite: it becomes an ordinary transaction."""
    model = Model("sqlite")
    async with make_store("sqlite") as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            async with store.deferred_unit_of_work():  # type: ignore[attr-defined]
                assert await store.append("a", [Booked(seat="1a")], 0) == 1
                assert await store.append("a", [Booked(seat="1b")], 1) == 2
            assert await model.rows(store) == {"1a": 1, "1b": 1}
            with pytest.raises(ConcurrencyError):
                async with store.deferred_unit_of_work():  # type: ignore[attr-defined]
                    await store.append("a", [Booked(seat="1c")], 7)
            assert await store.head() == 2


@pytest.mark.parametrize("backend", ["memory", "sqlite", "postgres"])
async def test_a_rebuild_does_not_meet_appends_that_have_begun(make_store: MakeStore, backend: str) -> None:
    """Rebuilt or reset again and again while appends are in their handlers: nothing counts twice, nothing fails."""
    model = Model(backend)
    async with make_store(backend) as store:
        manager = ProjectionManager(store)
        manager.register(model.projection)
        async with manager:
            model.pauses = True
            await store.append("s", [Booked(seat="1a") for _ in range(30)])

            async def append(number: int) -> None:
                for _ in range(6):
                    await store.append(f"s{number}", [Booked(seat="1a")])
                    await asyncio.sleep(0.001 * number)

            appending = [asyncio.create_task(append(number)) for number in range(4)]
            while not all(task.done() for task in appending):
                assert await manager.rebuild(model.name, batch_size=7) >= 30
                await manager.reset_all()
                await asyncio.sleep(0)
            await asyncio.gather(*appending)
            await manager.wait_for(model.name, await store.head(), timeout=10)
            assert await model.rows(store) == {"1a": 54}
            await store.append("s", [Booked(seat="1b")])
            assert await model.rows(store) == {"1a": 54, "1b": 1}


@SQL
async def test_a_rebuild_goes_on_while_another_process_appends(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Its appends apply what the rebuild has not come to yet; each goes on where the other one was."""
    model = Model(backend)
    where = address(backend, request, tmp_path, 0)
    async with open_store(backend, where) as store, open_store(backend, where) as elsewhere:
        managers = ProjectionManager(store), ProjectionManager(elsewhere)
        for manager in managers:
            manager.register(model.projection if manager is managers[0] else Model.like(model).projection)
        async with managers[0], managers[1]:
            await store.append("s", [Booked(seat="1a") for _ in range(30)])

            async def append() -> None:
                for _ in range(12):
                    await elsewhere.append("t", [Booked(seat="1a")])

            appending = asyncio.create_task(append())
            while not appending.done():
                await managers[0].rebuild(model.name, batch_size=10)
            await appending
            for manager in managers:
                await manager.wait_for(model.name, await store.head(), timeout=10)
            assert await model.rows(store) == {"1a": 42}
            await elsewhere.append("t", [Booked(seat="1b")])
            assert await model.rows(store) == {"1a": 42, "1b": 1}
