"""The flights demo: short runs, interrupted ones, and what its read models must say."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from examples.flights.data import DataSet, load
from examples.flights.facts import from_data, published
from examples.flights.projections import COUNTERS, AirportPunctuality, CarrierPunctuality, add, all_projections
from examples.flights.saga import RebookPassengers
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.sagas.sql import SqlSagaStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore

pytestmark = pytest.mark.timeout(300)

FLIGHTS = 5000
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load(FLIGHTS)


def demo(path: Path, flights: int = FLIGHTS, output: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.flights", "--flights", str(flights), "--db", str(path)]
    pipes: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT, "text": True}
    search = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": search}, **pipes)


def finish(path: Path, flights: int = FLIGHTS) -> str:
    with demo(path, flights) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    return output


def stop_at(path: Path, events: int, *, interrupt: bool = False) -> int:
    """Start the demo and kill (or interrupt) it once so many events are stored; return its exit code."""
    with demo(path) as process:
        deadline = time.monotonic() + 60
        while stored(path) < events and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT) if interrupt and os.name == "posix" else process.kill()
        process.communicate(timeout=30)
        return process.returncode


def stored(path: Path) -> int:
    """Return the head of the log of a demo that may be running."""
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    try:
        return int(connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0])
    except sqlite3.OperationalError:  # not created yet
        return 0
    finally:
        connection.close()


async def rows(store: SqliteEventStore, table: str) -> list[Any]:
    return sorted(await store.engine.fetch_all(f"SELECT * FROM {table}"), key=repr)


async def check(path: Path, data: DataSet) -> None:
    """Compare the read models with the data set, with the log, and with a rebuild of themselves."""
    async with SqliteEventStore(str(path)) as store:
        events = await store.read_all()
        assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
        for projection, table in (
            (CarrierPunctuality(), "carrier_punctuality"),
            (AirportPunctuality(), "airport_punctuality"),
        ):
            sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
            for event in events:
                if projection.can_handle(event):
                    add(sums[projection.group(event)], event)
            assert await rows(store, table) == sorted(((*key, *values) for key, values in sums.items()), key=repr)
        expected = from_data(data)
        kinds = defaultdict(int)
        for event in events:
            kinds[event.event_type] += 1
        assert kinds["FlightScheduled"] == expected.flights == FLIGHTS
        assert kinds["FlightCancelled"] == expected.cancelled
        assert kinds["FlightDeparted"] == expected.departed
        assert kinds["FlightArrived"] == expected.arrived
        assert kinds["FlightDiverted"] == expected.departed - expected.arrived
        departures = [event.delay for event in events if event.event_type == "FlightDeparted"]
        assert sum(departures) == expected.departure_delay
        await check_sagas(store, kinds)
        await check_rebuild(store)


async def check_sagas(store: SqliteEventStore, kinds: dict[str, int]) -> None:
    """One saga per cancelled flight, at exactly one end; each step's event is there exactly once."""
    sagas = SqlSagaStore(store)
    records = await sagas.list_by_name(RebookPassengers.name)
    await sagas.close()
    ends = defaultdict(int)
    for record in records:
        ends[record.status.value] += 1
        kept = [event.event_type for event in await store.read(record.data["flight"])]
        assert kept.count("RebookingOpened") == 1
        assert kept.count("PassengersRebooked") + kept.count("PassengersRefunded") == 1
    assert sum(ends.values()) == kinds["FlightCancelled"] > 0
    assert set(ends) <= {"completed", "compensated"}
    assert ends.get("completed", 0) == kinds["PassengersRebooked"]
    assert ends.get("compensated", 0) == kinds["PassengersRefunded"]


async def check_rebuild(store: SqliteEventStore) -> None:
    """A rebuild from the log gives the same rows in every table."""
    manager = ProjectionManager(store)
    for projection in all_projections():
        manager.register(projection)
        before = {table: await rows(store, table) for table in projection.tables}
        await manager.rebuild(projection.name)
        assert {table: await rows(store, table) for table in projection.tables} == before
    await manager.stop()


def test_a_run_agrees_with_the_data_and_a_second_run_has_nothing_to_do(tmp_path: Path, data: DataSet) -> None:
    """The page has no outside references and every plot; nothing is appended twice."""
    path = tmp_path / "flights.db"
    output = finish(path)
    assert "All read models agree with the known facts." in output
    events = stored(path)
    asyncio.run(check(path, data))
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("<svg") == 5
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "events/s" not in finish(path)
    assert stored(path) == events


def test_killed_twice_and_interrupted_it_ends_as_if_it_had_not_been(tmp_path: Path, data: DataSet) -> None:
    """kill -9 at a third, Ctrl-C at half, kill -9 near the end; each run continues."""
    path = tmp_path / "flights.db"
    assert stop_at(path, 2000) != 0
    first = stored(path)
    assert stop_at(path, 3200, interrupt=True) in (130, 1)
    second = stored(path)
    assert stop_at(path, 5400) != 0
    assert 2000 <= first <= second <= stored(path)
    assert "All read models agree with the known facts." in finish(path)
    asyncio.run(check(path, data))


def kill_worker(log: Path) -> None:
    """kill -9 the worker process that the demo has started last."""
    os.kill(int(re.findall(r"worker 1 is process (\d+)", log.read_text(encoding="utf-8"))[-1]), 9)


def test_killed_workers_are_replaced_and_the_numbers_are_right(tmp_path: Path, data: DataSet) -> None:
    """Once together with the process that sends the commands, then twice alone; read models and sagas go on."""
    path, log = tmp_path / "flights.db", tmp_path / "demo.log"
    for heads in ([1500], [3000, 9000]):
        with log.open("w", encoding="utf-8") as file, demo(path, output=file) as process:
            for head in heads:
                deadline = time.monotonic() + 60
                while stored(path) < head and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.01)
                kill_worker(log)
            if len(heads) == 1:
                process.kill()
            process.wait(timeout=100)
    output = log.read_text(encoding="utf-8")
    assert output.count("starting another one") == 2
    assert "All read models agree with the known facts." in output
    asyncio.run(check(path, data))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_killed_again_and_again_it_ends_as_if_it_had_not_been(tmp_path: Path, data: DataSet, seed: int) -> None:
    """kill -9 at ten random places of the log, a new process each time."""
    path, chance = tmp_path / "flights.db", random.Random(seed)
    for head in sorted(chance.randrange(100, 5_800) for _ in range(10)):
        if head > stored(path):
            assert stop_at(path, head) != 0
    assert "All read models agree with the known facts." in finish(path)
    asyncio.run(check(path, data))


def test_wrong_numbers_end_the_demo_with_an_error(tmp_path: Path) -> None:
    """A read model that was tampered with is told by name, and the exit code says so."""
    path = tmp_path / "flights.db"
    finish(path, 300)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE carrier_punctuality SET departure_delay = departure_delay + 1 WHERE carrier = 'UA'")
    connection.commit()
    connection.close()
    with demo(path, 300) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "WRONG: carrier_punctuality says" in output
    assert "The read models do NOT agree with the data." in output


def test_the_whole_data_set_has_the_published_facts() -> None:
    """336,776 flights, their means and the four largest carriers, counted from the files alone."""
    facts = from_data(load())
    assert published(facts) == []
    facts.departure_delay += 300_000
    assert published(facts) == ["mean departure delay: 13.552, but it is known to be 12.639"]
