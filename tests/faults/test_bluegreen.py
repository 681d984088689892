"""A read model is replaced while events keep coming, readers read, and the processes that build it are killed."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events import BlueGreenRebuild
from tests.faults import bluegreen_worker
from tests.faults.bluegreen_worker import LEASE_SECONDS, Moved, balances, manager
from tests.faults.projection_worker import open_store
from tests.faults.workers import Workers, database, disturb

EVENTS_PER_SECOND = 500
ACCOUNTS = 5_000


@pytest.fixture(params=["sqlite", "postgres"])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    """No workers yet, on an empty database, with a read model that no other test uses."""
    where = database(request, tmp_path)
    group = Workers(Path(bluegreen_worker.__file__), request.param, where, f"balances_{uuid4().hex[:8]}", "1")
    yield group
    group.stop_all()


class Reader:
    """Reads both tables again and again, in one transaction, through a connection of its own.

    Args:
        snapshot: Whether all statements of the transaction have one view of the data (always on SQLite).
    """

    def __init__(self, workers: Workers, snapshot: bool = True) -> None:
        self.backend, self.where, self.model = workers.backend, workers.where, workers.more[0]
        self.snapshot = snapshot or self.backend == "sqlite"
        self.is_done = False
        self.reads = 0
        self.versions: list[int] = []
        self.problems: list[str] = []

    async def run(self) -> None:
        """Read until `is_done`; cancelled, a thread would go on with the connection."""
        queries = [
            f"SELECT made_by, sum(amount) FROM {name} GROUP BY 1" for name in (self.model, f"{self.model}_moves")
        ]
        if self.backend == "sqlite":
            await self._run_sqlite(queries)
        else:
            await self._run_postgres(queries)

    async def _run_sqlite(self, queries: list[str]) -> None:
        connection = sqlite3.connect(self.where, isolation_level=None, check_same_thread=False, timeout=30)

        def read() -> list[list[Any]]:
            connection.execute("BEGIN")
            try:
                return [connection.execute(query).fetchall() for query in queries]
            finally:
                connection.execute("COMMIT")

        try:
            while not self.is_done:
                await self._take(asyncio.to_thread(read))
        finally:
            connection.close()

    async def _run_postgres(self, queries: list[str]) -> None:
        import asyncpg

        url, schema = self.where.split("|")
        connection = await asyncpg.connect(url, server_settings={"search_path": schema})

        async def read() -> list[list[Any]]:
            level = "repeatable_read" if self.snapshot else "read_committed"
            async with connection.transaction(isolation=level, readonly=True):
                return [list(await connection.fetch(query)) for query in queries]

        try:
            while not self.is_done:
                await self._take(read())
        finally:
            await connection.close()

    async def _take(self, reading: Any) -> None:
        try:
            found = await reading
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        else:
            self._check(*found)
        self.reads += 1
        await asyncio.sleep(0.005)

    def _check(self, amounts: list[Any], moves: list[Any]) -> None:
        versions = {row[0] for row in (*amounts, *moves)}
        if len(versions) > 1:
            self.problems.append(f"rows of versions {versions} in one transaction")
        if self.snapshot and sum(row[1] for row in amounts) != 2 * sum(row[1] for row in moves):
            self.problems.append(f"half a batch: {amounts} {moves}")
        for version in versions:
            if not self.versions or self.versions[-1] != version:
                self.versions.append(version)


class Writer:
    """Appends so many events per second. Each one moves an amount of 2, so that both tables can be compared."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.chance = random.Random(5)
        self.is_done = False

    async def fill(self, events: int) -> None:
        """Append a history as quickly as it can be done."""
        for first in range(0, events, 10_000):
            count = min(10_000, events - first)
            await asyncio.gather(*(self._append(50) for _ in range(count // 50)))

    async def run(self) -> None:
        """Append at the rate until `is_done`."""
        started, done = time.monotonic(), 0
        while not self.is_done:
            due = int((time.monotonic() - started) * EVENTS_PER_SECOND) // 5
            await asyncio.gather(*(self._append(5) for _ in range(due - done)))
            done = due
            await asyncio.sleep(0.02)

    async def _append(self, count: int) -> None:
        account = f"a{self.chance.randrange(ACCOUNTS):05}"
        await self.store.append(account, [Moved(account=account, amount=2) for _ in range(count)])


async def replace(workers: Workers, history: int, rounds: int, seed: int) -> dict[str, Any]:
    """Build, verify, switch, roll back and drop under load, with kills during the build; return what was measured."""
    chance, model = random.Random(seed), workers.more[0]
    measured: dict[str, Any] = {"backend": workers.backend, "history": history}
    async with open_store(workers.backend, workers.where) as store:
        writer = Writer(store)
        await writer.fill(history)
        for _ in range(2):
            await asyncio.to_thread(workers.start)
        async with manager(store, workers.backend, model, [1]) as here:
            await here.wait_for(model, await store.head(), timeout=1800)
            readers = [Reader(workers), Reader(workers, snapshot=False)]
            tasks = [asyncio.create_task(one.run()) for one in (*readers, writer)]
            try:
                started = time.monotonic()
                workers.more = (model, "1,2")  # the program with the new version comes, the one without it goes
                old = list(workers.running)
                for process in old:
                    await asyncio.to_thread(workers.start)
                    await asyncio.to_thread(workers.end, process)
                rebuild = BlueGreenRebuild(here, balances(workers.backend, model, 2))
                progress: list[tuple[int, int]] = []
                building = asyncio.create_task(
                    rebuild.build(on_progress=lambda *step: progress.append(step), timeout=1800)
                )
                await disturb(workers, chance, rounds, LEASE_SECONDS)
                measured["built while workers came and went"] = building.done()
                await building
                measured["build seconds"] = round(time.monotonic() - started, 1)
                assert [done for done, _ in progress] == sorted(done for done, _ in progress)
                for name in ("old", "log"):
                    started = time.monotonic()
                    report = await rebuild.verify(name, timeout=600)  # type: ignore[arg-type]
                    measured[f"verify {name} seconds"] = round(time.monotonic() - started, 1)
                    assert all(table.rows[0] == table.rows[1] for table in report.tables), report
                    assert report.ok == (name == "log"), report  # `made_by` is different in every row
                started = time.monotonic()
                await rebuild.switch(report, timeout=60)
                measured["switch seconds"] = round(time.monotonic() - started, 3)
                await asyncio.sleep(1)
                started = time.monotonic()
                await rebuild.roll_back(timeout=60)
                measured["roll back seconds"] = round(time.monotonic() - started, 3)
                await asyncio.sleep(1)
                await rebuild.switch(report, timeout=60)
                await asyncio.sleep(0.5)
            finally:
                for one in (*readers, writer):
                    one.is_done = True
                await asyncio.gather(*tasks)
            head = await store.head()
            measured["appended meanwhile"] = head - history
            measured["reads"] = sum(reader.reads for reader in readers)
            assert [reader.problems for reader in readers] == [[], []]
            assert [reader.versions for reader in readers] == [[1, 2, 1, 2]] * 2
            assert all(reader.reads > 20 for reader in readers)
            for version in (1, 2):
                await here.wait_for(f"{model}@{version}", head, timeout=120)
            expected = Counter[str]()
            async for event in store.stream_all():
                expected[event.account] += 1
            for version in (1, 2):
                rows = await store.engine.fetch_all(f"SELECT account, amount, made_by FROM {model}_moves__v{version}")
                assert {row[0]: int(row[1]) for row in rows} == dict(expected)
                assert {row[2] for row in rows} == {version}
            await rebuild.drop(1, (await rebuild.plan_drop(1)).token)
            rows = await store.engine.fetch_all(f"SELECT account, amount FROM {model}_moves")
            assert {row[0]: int(row[1]) for row in rows} == dict(expected)
    return measured


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_readers_see_one_version_or_the_other_while_builders_are_killed(workers: Workers) -> None:
    """No error, no mixture, no event lost or doubled; the way back works; events keep coming all the time."""
    await replace(workers, history=8_000, rounds=3, seed=3)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_million_events_are_rebuilt_under_load(workers: Workers) -> None:
    """The same over a long history; prints what it took."""
    print(await replace(workers, history=1_000_000, rounds=10, seed=4))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(20))
async def test_many_rebuilds(workers: Workers, seed: int) -> None:
    """The same again and again, with other kills."""
    await replace(workers, history=20_000, rounds=8, seed=seed)
