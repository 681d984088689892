"""A new version of a read model is built beside the old one, verified, switched to, switched back from, and dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events import (
    BlueGreenRebuild,
    DeadLetterFilter,
    DomainEvent,
    DurableProjection,
    EventValidationError,
    InMemoryCheckpointStore,
    InMemoryDeadLetterStore,
    InMemoryEventStore,
    ProjectionConfig,
    ProjectionManager,
    ProjectionRebuildError,
    TableProjection,
)
from lexigram.events import (
    projection as decorated,
)
from lexigram.events.projections import comparison
from lexigram.events.projections.comparison import TableDigest
from lexigram.events.projections.read_model_sql import PostgresReadModels
from tests.backends import MakeStore, make_store

__all__ = ["make_store"]

BACKENDS = pytest.mark.parametrize("backend", ["sqlite", "postgres"])


class Paid(DomainEvent):
    account: str
    amount: int


class Seen(DomainEvent):
    account: str


def model() -> str:
    """Return the name of a read model that no other test uses: tests share a database."""
    return f"sums_{uuid4().hex[:8]}"


def sums(model: str, number: int, factor: int = 1, effects: list[Any] | None = None) -> DurableProjection:
    """Return one version of a read model in two tables: totals, and the list of what they are made of."""

    class Sums(DurableProjection):
        read_model = model
        version = number
        handles = (Paid,)
        tables = (model, f"{model}_list")
        schema = (
            f"CREATE TABLE IF NOT EXISTS {{{model}}} (account TEXT PRIMARY KEY, total BIGINT, made_by INTEGER)",
            f"CREATE TABLE IF NOT EXISTS {{{model}_list}} (position BIGINT PRIMARY KEY, amount BIGINT, made_by INTEGER)",
            f"CREATE INDEX IF NOT EXISTS {{{model}}}_by_total ON {{{model}}} (total)",
        )

        async def handle_event(self, event: Paid) -> None:
            await self.db.execute(
                f"INSERT INTO {{{model}}} AS s VALUES ($1, $2, {number}) "
                "ON CONFLICT (account) DO UPDATE SET total = s.total + excluded.total",
                event.account,
                event.amount * factor,
            )
            await self.db.execute(
                f"INSERT INTO {{{model}_list}} VALUES ($1, $2, {number})", event.sequence_number, event.amount * factor
            )
            if effects is not None and self.may_have_effects(event):
                effects.append((event.sequence_number, number))

    return Sums()


async def pay(store: Any, count: int, first: int = 0) -> None:
    """Append payments of 1, 2, 3, … to five accounts, and things that are not wanted between them."""
    for number in range(first, first + count):
        account = f"a{number % 5}"
        await store.append(account, [Paid(account=account, amount=number + 1), Seen(account=account)])


async def rows(store: Any, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    """Return the rows that readers see."""
    return [tuple(row) for row in await store.engine.fetch_all(f"SELECT {columns} FROM {table} ORDER BY 1")]


def expected(count: int, version: int, factor: int = 1) -> list[tuple[Any, ...]]:
    """Return the totals after so many payments."""
    totals = {f"a{n % 5}": 0 for n in range(count)}
    for n in range(count):
        totals[f"a{n % 5}"] += (n + 1) * factor
    return [(account, total, version) for account, total in sorted(totals.items())]


@asynccontextmanager
async def running(store: Any, *projections: Any, **config: Any) -> AsyncIterator[ProjectionManager]:
    """A started manager."""
    manager = ProjectionManager(store, config=ProjectionConfig(**config))
    for projection in projections:
        manager.register(projection)
    async with manager:
        yield manager


@BACKENDS
async def test_the_way_back_leads_past_a_version_that_was_rolled_back(make_store: MakeStore, backend: str) -> None:
    """From 3 to 1 where 2 had been rolled back; from 2 to 1, and not to the 3 that was rolled back to it."""
    name = model()
    async with make_store(backend) as store, running(store, *(sums(name, n) for n in (1, 2, 3))) as manager:
        await pay(store, 5)
        second, third = (BlueGreenRebuild(manager, sums(name, number)) for number in (2, 3))
        reports = {}
        for rebuild in (second, third):
            await rebuild.build(timeout=20)
            with pytest.raises(ProjectionRebuildError, match="no version to go back to"):
                await rebuild.roll_back()
            reports[rebuild] = await rebuild.verify()
        await second.switch(reports[second])
        await second.roll_back()
        await third.switch(reports[third])
        assert (await third.roll_back()).active == 1
        await second.switch(reports[second])
        await third.switch(reports[third])
        assert (await second.roll_back()).active == 3
        assert (await third.roll_back()).active == 2
        assert (await second.roll_back()).active == 1
        await manager.wait_for(name, await store.head(), 20)  # it follows the log like any other
        assert await rows(store, name) == expected(5, 1)
        for wrong in (None, reports[third]):
            with pytest.raises(EventValidationError, match="not about version 2"):
                await second.switch(wrong)  # type: ignore[arg-type]
        with pytest.raises(EventValidationError, match="pass an object of it"):
            BlueGreenRebuild(manager, type(sums(name, 4)))  # type: ignore[arg-type]


@BACKENDS
@pytest.mark.parametrize("config", [{}, {"shared": True, "partitions": 4, "lease_seconds": 3}])
async def test_a_version_is_built_verified_switched_to_rolled_back_and_dropped(
    make_store: MakeStore, backend: str, config: dict[str, Any]
) -> None:
    """Readers see the first version until the switch, the second one after it, the first one after the way back."""
    name = model()
    async with make_store(backend) as store:
        await pay(store, 50)
        async with running(store, sums(name, 1), **config) as manager:
            await manager.wait_for(name, await store.head(), timeout=20)
            assert await rows(store, name) == expected(50, 1)
            progress: list[tuple[int, int]] = []
            rebuild = BlueGreenRebuild(manager, sums(name, 2))
            assert await rebuild.build(on_progress=lambda *step: progress.append(step), timeout=20) == 100
            assert progress[-1] == (100, 100)
            assert await rows(store, name) == expected(50, 1)

            for against in ("log", "old"):
                columns = ("account", "total", "made_by")
                report = await rebuild.verify(against)  # type: ignore[arg-type]
                first = report.tables[0]
                assert (report.version, first.columns, first.rows, first.sampled) == (2, columns, (5, 5), 5)
                assert report.ok == (against == "log")  # the versions differ in `made_by`
            assert first.differences[0] == (("a0",), ("a0", 235, 2), ("a0", 235, 1))
            with pytest.raises(ProjectionRebuildError, match="differs in"):
                await rebuild.switch(report)
            assert (await rebuild.switch(report, accept_differences=True)).active == 2
            assert await rows(store, name) == expected(50, 2)

            await pay(store, 5, first=50)
            await manager.wait_for(name, await store.head(), timeout=20)
            assert await rows(store, name) == expected(55, 2)
            await manager.wait_for(f"{name}@1", await store.head(), timeout=20)
            assert (await rebuild.roll_back()).active == 1
            assert await rows(store, name) == expected(55, 1)
            assert (await rebuild.roll_back()).active == 1  # said twice, done once
            assert (await rebuild.switch(report, accept_differences=True)).active == 2
            with pytest.raises(EventValidationError, match="is what readers see"):
                await rebuild.plan_drop(2)
            plan = await rebuild.plan_drop(1)
            assert plan.rows == {name: 5, f"{name}_list": 55}
            with pytest.raises(EventValidationError, match="token"):
                await rebuild.drop(1, "yes")
            await rebuild.drop(1, plan.token)
            assert manager.get(f"{name}@1") is None
            assert await rows(store, name) == expected(55, 2)
            assert list((await rebuild.status())["versions"]) == [2]
            with pytest.raises(ProjectionRebuildError, match="no version to go back to"):
                await rebuild.roll_back()
        async with running(store, sums(name, 1), sums(name, 2), **config) as manager:
            await manager.wait_for(name, await store.head(), timeout=20)
            status = manager.get_status(f"{name}@1")
            assert status is not None
            assert status["state"] == "faulted"
            assert "was dropped" in status["error"]


@BACKENDS
async def test_effects_of_each_event_belong_to_one_version(make_store: MakeStore, backend: str) -> None:
    """None while it is built, none twice and none left out, across a switch and the way back."""
    name, effects = model(), list[tuple[int, int]]()
    async with make_store(backend) as store:
        await pay(store, 10)
        async with running(store, sums(name, 1, effects=effects)) as manager:
            await manager.wait_for(name, await store.head(), timeout=20)
            rebuild = BlueGreenRebuild(manager, sums(name, 2, effects=effects))
            writing = asyncio.create_task(pay(store, 60, first=10))
            await rebuild.build(timeout=20)
            await rebuild.switch(await rebuild.verify())
            await asyncio.sleep(0.05)
            await rebuild.roll_back()
            await writing
            for version in (1, 2):
                await manager.wait_for(f"{name}@{version}", await store.head(), timeout=20)
            assert await manager.rebuild(f"{name}@1") == 70
        assert sorted(position for position, _ in effects) == list(range(1, 140, 2))
        assert {version for _, version in effects} >= {1}


@BACKENDS
async def test_a_difference_is_found_and_shown(make_store: MakeStore, backend: str) -> None:
    """One wrong row, one missing and one too many: in count, checksum and sample."""
    name = model()
    async with make_store(backend) as store:
        await pay(store, 40)
        async with running(store, sums(name, 1)) as manager:
            rebuild = BlueGreenRebuild(manager, sums(name, 2))
            await rebuild.build(timeout=20)
            await store.engine.execute(f"UPDATE {name}__v2 SET total = 0 WHERE account = 'a1'")  # type: ignore[attr-defined]
            await store.engine.execute(f"DELETE FROM {name}__v2 WHERE account = 'a2'")  # type: ignore[attr-defined]
            report = await rebuild.verify()
            table, other = report.tables
            assert not report.ok
            assert not table.ok
            assert other.ok
            assert table.rows == (4, 5)
            assert [(key, mine) for key, mine, _ in table.differences] == [(("a1",), ("a1", 0, 2)), (("a2",), None)]
            few = (await rebuild.verify(sample=7)).tables[1]
            assert few.ok
            assert 1 <= few.sampled < 40
        leftovers = f"{name}__v2_check"
        with pytest.raises(Exception, match=leftovers):
            await store.engine.fetch_all(f"SELECT * FROM {leftovers}")  # type: ignore[attr-defined]


@BACKENDS
async def test_a_failing_event_stops_the_new_version_and_nothing_else(make_store: MakeStore, backend: str) -> None:
    """It is not skipped and not parked; readers go on with the old version, and the build goes on once it is mended."""
    name = model()

    class Strict(type(sums(name, 2))):  # type: ignore[misc]
        broken = True

        async def handle_event(self, event: Paid) -> None:
            if self.broken and event.amount == 3:
                raise ValueError("three")
            await super().handle_event(event)

    async with make_store(backend) as store:
        await pay(store, 10)
        async with running(store, sums(name, 1)) as manager:
            new = Strict()
            rebuild = BlueGreenRebuild(manager, new)
            with pytest.raises(ProjectionRebuildError, match="three"):
                await rebuild.build(timeout=20)
            await manager.wait_for(name, await store.head(), timeout=20)
            assert await rows(store, name) == expected(10, 1)
            new.broken = False
            manager.resume(f"{name}@2")
            await rebuild.build(timeout=20)
            assert (await rebuild.verify()).ok


@BACKENDS
async def test_nobody_writes_through_what_readers_see(make_store: MakeStore, backend: str) -> None:
    """Neither by mistake in a handler, which is told what to write, nor anybody else."""
    name = model()

    class Careless(type(sums(name, 1))):  # type: ignore[misc]
        async def handle_event(self, event: Paid) -> None:
            await self.db.execute(f"UPDATE {name} SET total = 0")

    async with make_store(backend) as store:
        await pay(store, 1)
        async with running(store, Careless()) as manager:
            with pytest.raises(Exception, match=rf"write \{{{name}\}}"):
                await manager.wait_for(name, await store.head(), timeout=20)
            with pytest.raises(Exception, match=r"(?i)view"):
                await store.engine.execute(f"UPDATE {name} SET total = 0")  # type: ignore[attr-defined]


@BACKENDS
async def test_a_projection_without_versions_becomes_the_first_one(make_store: MakeStore, backend: str) -> None:
    """Its table and its position are taken over: no event is applied again, and readers notice nothing."""
    name = model()
    plain, first, second = (
        TableProjection(name, "account", {"account": "TEXT", "total": "BIGINT"}, version=version)
        for version in (0, 1, 2)
    )
    from lexigram.events.projections.table import Add

    for table in (plain, first, second):

        @table.on(Paid)
        def paid(event: Paid) -> dict[str, Any]:
            return {"account": event.account, "total": Add(event.amount)}

    async with make_store(backend) as store:
        await pay(store, 20)
        async with running(store, plain) as manager:
            await manager.wait_for(name, await store.head(), timeout=20)
        await pay(store, 5, first=20)
        async with running(store, first) as manager:
            await manager.wait_for(name, await store.head(), timeout=20)
            assert await rows(store, name) == [row[:2] for row in expected(25, 1)]
            assert manager.get_status(f"{name}@1")["events_processed"] == 5  # type: ignore[index]
            rebuild = BlueGreenRebuild(manager, second)
            await rebuild.build(timeout=20)
            report = await rebuild.verify("old")
            assert report.ok
            await rebuild.switch(report)
            assert await rows(store, name) == [row[:2] for row in expected(25, 1)]


async def test_columns_may_change_and_readers_keep_their_rights(make_store: MakeStore) -> None:
    """On PostgreSQL a view with other columns is made anew, and who could read the old one can read it."""
    name = model()

    class Other(DurableProjection):
        read_model = name
        version = 2
        handles = (Paid,)
        tables = (name,)
        schema = (f"CREATE TABLE IF NOT EXISTS {{{name}}} (total TEXT, account TEXT PRIMARY KEY)",)

        async def handle_event(self, event: Paid) -> None:
            await self.db.execute(
                f"INSERT INTO {{{name}}} VALUES ('some', $1) ON CONFLICT (account) DO NOTHING", event.account
            )

    async with make_store("postgres") as store:
        await pay(store, 5)
        async with running(store, sums(name, 1)) as manager:
            await manager.wait_for(name, await store.head(), timeout=20)
            await store.engine.execute(f"GRANT SELECT ON {name} TO PUBLIC")  # type: ignore[attr-defined]
            rebuild = BlueGreenRebuild(manager, Other())
            await rebuild.build(timeout=20)
            await rebuild.switch(await rebuild.verify())
            assert (await rows(store, name))[0] == ("some", "a0")
            with pytest.raises(Exception, match=f"{name}_list"):
                await rows(store, f"{name}_list")
            granted = f"SELECT has_table_privilege('pg_monitor', '{name}', 'SELECT')"
            assert (await store.engine.fetch_one(granted))[0]  # type: ignore[attr-defined]
            await rebuild.roll_back()
            assert await rows(store, name) == expected(5, 1)
            assert len(await rows(store, f"{name}_list")) == 5
            assert (await store.engine.fetch_one(granted))[0]  # type: ignore[attr-defined]


async def test_a_reader_that_does_not_end_holds_up_the_switch_and_nobody_else(make_store: MakeStore) -> None:
    """On PostgreSQL the switch waits for readers' transactions, gives up in time, and other readers go on meanwhile."""
    name = model()
    async with make_store("postgres") as store:
        await pay(store, 5)
        async with running(store, sums(name, 1)) as manager:
            await manager.wait_for(name, await store.head(), timeout=20)
            rebuild = BlueGreenRebuild(manager, sums(name, 2))
            await rebuild.build(timeout=20)
            report = await rebuild.verify()
            outside = copy_context()  # tasks made inside the reader's transaction would belong to it
            async with store.unit_of_work() as unit:
                assert len(await unit.fetch_all(f"SELECT * FROM {name}")) == 5
                switching = asyncio.create_task(rebuild.switch(report, timeout=0.5), context=outside)
                while not switching.done():
                    async with asyncio.timeout(1):
                        await asyncio.create_task(rows(store, name), context=outside)
                with pytest.raises(ProjectionRebuildError, match="transactions of readers"):
                    await switching
                assert {row[2] for row in await unit.fetch_all(f"SELECT * FROM {name}")} == {1}
            await rebuild.switch(report)
            assert await rows(store, name) == expected(5, 2)


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"name": "x"}, "a name or a read_model"),
        ({"version": 0}, "version"),
        ({"tables": ("Upper",)}, "lower-case"),
        ({"schema": ("CREATE TABLE IF NOT EXISTS t (a TEXT)",)}, "of its own"),
        ({"schema": ("CREATE UNIQUE INDEX IF NOT EXISTS t_by_a ON {t} (a)",)}, "of its own"),
    ],
)
def test_versions_that_would_get_into_each_others_way_are_refused(attributes: dict[str, Any], problem: str) -> None:
    """When the class is made."""
    with pytest.raises(EventValidationError, match=problem):
        type("Wrong", (DurableProjection,), {"read_model": "m", "tables": ("t",), **attributes})


async def test_what_has_no_versions_is_refused(make_store: MakeStore) -> None:
    """A projection without read model, a store without tables, positions that are kept elsewhere."""
    async with make_store("sqlite") as store:
        renamed = decorated(name="other")(type(sums("m", 1)))
        with pytest.raises(EventValidationError, match="do not name it"):
            ProjectionManager(store).register(renamed())
        elsewhere = ProjectionManager(store, InMemoryCheckpointStore())
        with pytest.raises(EventValidationError, match="beside the events"):
            elsewhere.register(sums("m", 1))
    manager = ProjectionManager(InMemoryEventStore())
    with pytest.raises(EventValidationError, match="has no versions"):
        BlueGreenRebuild(manager, DurableProjection())
    with pytest.raises(EventValidationError, match="need tables"):
        BlueGreenRebuild(manager, sums("m", 1))


@BACKENDS
async def test_a_rebuild_in_place_repeats_no_effect_even_if_it_is_killed(make_store: MakeStore, backend: str) -> None:
    """What was processed before it has had its effects; what comes later has them, wherever the rebuild stopped."""
    name, effects = model(), list[tuple[int, int]]()

    class Mails(DurableProjection):
        handles = (Paid,)
        tables = (name,)
        schema = (f"CREATE TABLE IF NOT EXISTS {name} (position BIGINT PRIMARY KEY)",)
        fails_at = 0

        async def handle_event(self, event: Paid) -> None:
            if event.sequence_number == self.fails_at:
                raise ValueError("killed")
            await self.db.execute(f"INSERT INTO {name} VALUES ($1)", event.sequence_number)
            if self.may_have_effects(event):
                effects.append((event.sequence_number or 0, 1))

    async with make_store(backend) as store:
        await pay(store, 10)
        async with running(store, Mails()) as manager:
            await manager.wait_for("Mails", await store.head(), timeout=20)
            manager.get("Mails").fails_at = 11  # type: ignore[union-attr]
            with pytest.raises(ProjectionRebuildError):
                await manager.rebuild("Mails")
        await pay(store, 5, first=10)
        async with running(store, Mails()) as manager:
            await manager.wait_for("Mails", await store.head(), timeout=20)
            await manager.reset_all()
            await manager.wait_for("Mails", await store.head(), timeout=20)
            assert len(await rows(store, name)) == 15
        assert [position for position, _ in effects] == list(range(1, 30, 2))
        by_hand = Mails()
        assert by_hand.may_have_effects(Paid(account="a", amount=1))
        assert not by_hand._effects_after


async def test_a_switch_that_the_database_refuses_changes_nothing(make_store: MakeStore) -> None:
    """On PostgreSQL a view that depends on the old columns keeps them; the error says so, and readers go on."""
    name = model()
    async with make_store("postgres") as store:
        await pay(store, 5)
        new = TableProjection(name, "account", {"account": "TEXT"}, version=2)
        new.on(Paid)(lambda event: {"account": event.account})
        async with running(store, sums(name, 1)) as manager:
            rebuild = BlueGreenRebuild(manager, new)
            await rebuild.build(timeout=20)
            await store.engine.execute(f"CREATE VIEW {name}_top AS SELECT * FROM {name} WHERE total > 10")  # type: ignore[attr-defined]
            with pytest.raises(ProjectionRebuildError, match=f"{name}_top depends"):
                await rebuild.switch(await rebuild.verify())
            assert await rows(store, name) == expected(5, 1)
            await store.engine.execute(f"DROP VIEW {name}_top")  # type: ignore[attr-defined]
            await rebuild.switch(await rebuild.verify())
            assert await rows(store, name) == [(f"a{n}",) for n in range(5)]


@BACKENDS
async def test_a_build_that_stops_goes_on_where_it_was(make_store: MakeStore, backend: str) -> None:
    """No event is processed twice or left out, whenever the program ends."""
    name = model()

    class Slow(type(sums(name, 2))):  # type: ignore[misc]
        delay = 0.001

        async def handle_event(self, event: Paid) -> None:
            await asyncio.sleep(self.delay)
            await super().handle_event(event)

    async with make_store(backend) as store:
        await pay(store, 120)
        async with running(store, sums(name, 1), Slow(), rebuild_batch_size=20) as manager:
            with pytest.raises(TimeoutError):
                await BlueGreenRebuild(manager, Slow()).build(timeout=0.1)
        async with running(store, sums(name, 1), Slow(), rebuild_batch_size=20) as manager:
            rebuild = BlueGreenRebuild(manager, Slow())
            await rebuild.build(timeout=60)
            again = manager.get_status(f"{name}@2")["events_processed"]  # type: ignore[index]
            assert again <= 120
            assert (await rebuild.verify()).ok
            status = await rebuild.status()
            assert status["active"] == 1
            assert status["versions"][2]["seen"] is False


@BACKENDS
async def test_a_build_parks_nothing_where_the_old_version_does(make_store: MakeStore, backend: str) -> None:
    """With `on_error="park"` too a version that has not been seen stops before an event that it cannot apply."""
    name, letters = model(), InMemoryDeadLetterStore()

    class Strict(type(sums(name, 2))):  # type: ignore[misc]
        async def handle_event(self, event: Paid) -> None:
            if event.amount == 3:
                raise ValueError("three")
            await super().handle_event(event)

    async with make_store(backend) as store:
        await pay(store, 10)
        manager = ProjectionManager(store, dead_letters=letters, on_error="park")
        manager.register(sums(name, 1))
        async with manager:
            with pytest.raises(ProjectionRebuildError, match="three"):
                await BlueGreenRebuild(manager, Strict()).build(timeout=20)
        assert await letters.count(DeadLetterFilter()) == 0


@BACKENDS
async def test_attributes_of_a_projection_without_versions_are_its_own(make_store: MakeStore, backend: str) -> None:
    """Names such as `sql`, `state`, `version` and `read_model` were free before there were versions."""
    name = model()

    class Totals(DurableProjection):
        handles = (Paid,)
        tables = (name,)
        schema = (f"CREATE TABLE IF NOT EXISTS {name} (account TEXT)",)
        sql = f"INSERT INTO {name} VALUES ($1)"
        table_name = name
        version = "b"

        def __init__(self) -> None:
            super().__init__()
            self.state, self.read_model = {"a": 1}, {"b": 2}

        async def handle_event(self, event: Paid) -> None:
            assert self.may_have_effects(event)
            await self.db.execute(self.sql, event.account)

    async with make_store(backend) as store:
        await pay(store, 3)
        async with running(store, Totals()) as manager:
            await manager.wait_for("Totals", await store.head(), timeout=20)
            assert len(await rows(store, name)) == 3


@BACKENDS
@pytest.mark.parametrize("config", [{}, {"shared": True, "partitions": 3, "lease_seconds": 3}])
async def test_nobody_waits_while_two_versions_are_compared(
    make_store: MakeStore, backend: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is appended and applied in the middle of the reading counts for neither side."""
    name, loop, read = model(), asyncio.get_running_loop(), list[int]()
    async with make_store(backend) as store:
        await pay(store, 20)
        async with running(store, sums(name, 1), sums(name, 2), **config) as manager:
            rebuild = BlueGreenRebuild(manager, sums(name, 2))
            await rebuild.build(timeout=20)

            async def go_on() -> None:
                read.append(1)
                await pay(store, 1, first=19 + len(read))
                for version in (1, 2):
                    await manager.wait_for(f"{name}@{version}", await store.head(), timeout=10)

            if backend == "sqlite":
                add = TableDigest.add

                def add_slowly(self: TableDigest, rows: Any) -> None:  # on a reader's thread
                    asyncio.run_coroutine_threadsafe(go_on(), loop).result(15)
                    add(self, rows)

                monkeypatch.setattr(TableDigest, "add", add_slowly)
            else:
                scan = PostgresReadModels.scan

                async def scan_slowly(self: Any, unit: Any, scans: Any) -> None:
                    for one in scans:
                        await loop.create_task(go_on(), context=Context())
                        await scan(self, unit, [one])

                monkeypatch.setattr(PostgresReadModels, "scan", scan_slowly)
            report = await rebuild.verify("old")
            assert report.position == 40
            assert [table.rows for table in report.tables] == [(5, 5), (20, 20)]
            assert [len(table.differences) for table in report.tables] == [5, 10]  # the versions differ in `made_by`
        assert len(read) == 4
        assert await rows(store, name) == expected(24, 1)


@BACKENDS
async def test_versions_that_never_meet_are_held_up_to_be_compared(
    make_store: MakeStore, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one of them is always behind by what concerns it."""
    name = model()
    async with make_store(backend) as store:
        async with running(store, sums(name, 1), sums(name, 2)) as manager:
            await pay(store, 20)
            rebuild = BlueGreenRebuild(manager, sums(name, 2))
            await rebuild.build(timeout=20)
            await manager.wait_for(f"{name}@1", 40, timeout=10)
            manager.pause(f"{name}@1")
            await pay(store, 5, first=20)
            await manager.wait_for(f"{name}@2", 50, timeout=10)
            monkeypatch.setattr(comparison, "_MEETING_SECONDS", 0.1)
            report = await rebuild.verify("old")
            assert report.position in (49, 50)
            assert [table.rows for table in report.tables] == [(5, 5), (25, 25)]
            assert await rows(store, name) == expected(20, 1)
