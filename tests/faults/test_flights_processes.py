"""The flights demo on PostgreSQL: three projection workers and a saga worker, any of them killed, and the whole of it."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from examples.flights.data import load
from examples.flights.facts import from_data
from examples.flights.postgres import open_store
from examples.flights.projections import COUNTERS, add
from examples.flights.saga import RebookPassengers
from lexigram.events.sagas.postgres import PostgresSagaStore
from tools.servers.base import program

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
FLIGHTS = 2_000
KINDS = ["projections", "projections", "projections", "sagas"]


@pytest.fixture
def dsn(postgres_url: str) -> str:
    """An empty schema, which stands for a database of its own."""
    schema = f"flights_{uuid4().hex[:8]}"
    subprocess.run([program("psql"), "-qAt", postgres_url, "-c", f"CREATE SCHEMA {schema}"], check=True)
    return f"{postgres_url}{'&' if '?' in postgres_url else '?'}search_path={schema}"


class Demo:
    """The demo in a process of its own, with its workers.

    Args:
        log: Where its output goes.
    """

    def __init__(self, dsn: str, log: Path, flights: int) -> None:
        command = [sys.executable, "-m", "examples.flights", "--flights", str(flights), "--report", f"{log}.html"]
        search = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        self._log = log
        with log.open("w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                [*command, "--backend", "postgres", "--dsn", dsn, "--workers", "3"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": search},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text(encoding="utf-8")

    def workers(self) -> dict[int, tuple[str, int]]:
        """Return kind and process id of the present workers by number."""
        lines = re.findall(r"(\w+) worker (\d+) is process (\d+)", self.output)
        return {int(number): (kind, int(pid)) for kind, number, pid in lines}

    def begin(self) -> None:
        """Return when all workers have been started."""
        deadline = time.monotonic() + 30
        while len(self.workers()) < len(KINDS) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert sorted(kind for kind, _ in self.workers().values()) == sorted(KINDS)

    def kill(self) -> None:
        """End it at once; its workers notice."""
        self.process.kill()
        self.process.wait()

    def finish(self) -> str:
        """Wait for its end; return what it has written."""
        code = self.process.wait(timeout=200)
        assert code == 0, self.output
        assert "All read models agree with the known facts." in self.output
        return self.output


def stored(dsn: str) -> int:
    """Return the head of the log; 0 where there is none yet."""
    url, schema = re.split("[?&]search_path=", dsn)
    command = [program("psql"), "-qAt", url, "-c", f"SELECT position FROM {schema}.event_head"]
    return int(subprocess.run(command, capture_output=True, text=True, check=False).stdout or 0)


def wait_for_head(dsn: str, demo: Demo, position: int) -> bool:
    """Return whether the demo still runs when so many events are stored."""
    while demo.process.poll() is None and stored(dsn) < position:
        time.sleep(0.01)
    return demo.process.poll() is None


def end(pid: int) -> None:
    """Kill a worker; it may have ended by itself."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass


def is_running(pid: int) -> bool:
    """Tell whether there is such a process; one that waits for its parent to look at it does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


async def check(dsn: str, flights: int) -> None:
    """Compare read models and sagas with the log, and the log with the data."""
    expected = from_data(load(flights))
    async with open_store(dsn) as store:
        carriers: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
        kinds, rebooking = Counter[str](), defaultdict[str, list[str]](list)
        positions = []
        async for event in store.stream_all():
            positions.append(event.sequence_number)
            kinds[event.event_type] += 1
            if hasattr(event, "carrier"):
                add(carriers[event.carrier], event)
            elif event.event_type in ("RebookingOpened", "PassengersRebooked", "PassengersRefunded"):
                rebooking[str(event.aggregate_id)].append(event.event_type)
        assert positions == list(range(1, len(positions) + 1))
        assert (kinds["FlightScheduled"], kinds["FlightCancelled"]) == (expected.flights, expected.cancelled)
        assert (kinds["FlightDeparted"], kinds["FlightArrived"]) == (expected.departed, expected.arrived)
        for table, key in (("carrier_punctuality", "carrier"), ("airport_punctuality", "'all'")):
            sums = ", ".join(f"sum({name})" for name in COUNTERS)
            rows = await store.engine.fetch_all(f"SELECT {key}, {sums} FROM {table} GROUP BY 1")
            found: dict[Any, list[int]] = {row[0]: list(row[1:]) for row in rows}
            wanted = (
                carriers
                if key == "carrier"
                else {"all": [sum(column) for column in zip(*carriers.values(), strict=True)]}
            )
            assert found == wanted
        async with PostgresSagaStore(store) as sagas:
            ends = {
                record.data["flight"]: record.status.value for record in await sagas.list_by_name(RebookPassengers.name)
            }
    outcome = {"completed": "PassengersRebooked", "compensated": "PassengersRefunded"}
    assert len(ends) == expected.cancelled > 0
    assert rebooking == {flight: ["RebookingOpened", outcome[status]] for flight, status in ends.items()}


def storm(dsn: str, folder: Path, flights: int, seed: int, kills: int) -> None:
    """Kill workers of all kinds while events come in and afterwards, then check."""
    chance = random.Random(seed)
    heads = sorted(chance.randrange(flights // 10, flights * 3) for _ in range(kills))
    demo = Demo(dsn, folder / "demo.log", flights)
    try:
        demo.begin()
        killed: set[str] = set()
        for number, head in enumerate(heads):
            if not wait_for_head(dsn, demo, head):
                break
            workers = demo.workers()
            kind, pid = workers[len(KINDS)] if number == kills // 2 else chance.choice([*workers.values()])
            end(pid)
            killed.add(kind)
        assert killed == set(KINDS)
        assert "starting another one" in demo.finish()
    finally:
        demo.kill()
    asyncio.run(check(dsn, flights))


def test_workers_killed_at_random_leave_the_numbers_right(dsn: str, tmp_path: Path) -> None:
    """Eight kills of projection workers and the saga worker; each is replaced, and every event counts once."""
    storm(dsn, tmp_path, FLIGHTS, seed=2, kills=8)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_many_storms(dsn: str, tmp_path: Path, seed: int) -> None:
    """The same with more flights and more kills."""
    storm(dsn, tmp_path, 8_000, seed=seed, kills=30)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_killed_itself_its_workers_end_and_the_next_run_goes_on(dsn: str, tmp_path: Path) -> None:
    """kill -9 of the process that sends the commands, in the middle; nothing is sent or counted twice."""
    first = Demo(dsn, tmp_path / "first.log", FLIGHTS)
    try:
        first.begin()
        assert wait_for_head(dsn, first, FLIGHTS)
    finally:
        first.kill()
    deadline = time.monotonic() + 30
    while any(is_running(pid) for _, pid in first.workers().values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for _, pid in first.workers().values() if is_running(pid)]
    second = Demo(dsn, tmp_path / "second.log", FLIGHTS)
    try:
        second.finish()
    finally:
        second.kill()
    asyncio.run(check(dsn, FLIGHTS))
