"""The order example: killed at every step and at random places, every order ends once and nothing is done twice."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path

import pytest

from examples.order_fulfilment.app import CENTS, KINDS
from examples.order_fulfilment.kill import PLACES
from examples.order_fulfilment.outside import STOCK

ROOT = Path(__file__).parents[2]
ENDS = ("completed", "compensated", "compensated", "failed")
DEEDS = (
    Counter(["reserve", "charge", "ship"]),
    Counter(["reserve", "release"]),
    Counter(["reserve", "charge", "refund", "release"]),
    Counter[str](),
)


def start(path: Path, *arguments: str, orders: int = len(KINDS), pace: float = 0.005) -> subprocess.Popen[str]:
    """Start the example in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "examples.order_fulfilment", "--db", str(path), *arguments]
    search = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return subprocess.Popen(
        [*command, "--orders", str(orders), "--pace", str(pace)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(path: Path, *arguments: str, orders: int = len(KINDS)) -> tuple[int, str]:
    """Run the example to its end; return exit code and output."""
    with start(path, *arguments, orders=orders) as process:
        output, _ = process.communicate(timeout=60)
    return process.returncode, output


def outside(path: Path) -> Path:
    """Return the database of the other systems."""
    return path.with_name(f"{path.stem}-outside.db")


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Read a database without any of the machinery."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def check(path: Path, orders: int = len(KINDS)) -> None:
    """Each order has one terminal state and what belongs to it was done once; nothing is reserved, nobody paid twice."""
    ends = dict(rows(path, "SELECT substr(saga_id, length('fulfil_order:') + 1), status FROM event_sagas"))
    numbers = range(orders)
    assert ends == {f"order-{number + 1}": ENDS[number % 4] for number in numbers}
    done: dict[object, Counter[object]] = defaultdict(Counter)
    sums: Counter[object] = Counter()
    for order, action, amount in rows(outside(path), "SELECT order_id, action, amount FROM effect"):
        done[order][action] += 1
        sums[action] += amount  # type: ignore[operator]
    assert dict(done) == {f"order-{number + 1}": DEEDS[number % 4] for number in numbers if DEEDS[number % 4]}
    assert rows(outside(path), "SELECT free FROM stock WHERE product = 'tea'") == [(STOCK["tea"] - sums["ship"],)]
    assert sums["charge"] - sums["refund"] == CENTS * sums["ship"]


def finish(path: Path, orders: int = len(KINDS)) -> str:
    """Run to the end and check."""
    code, output = run(path, orders=orders)
    assert code == 0, output
    assert "Every order has one end, and nothing was done twice." in output
    check(path, orders)
    return output


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_step_it_goes_on_there(tmp_path: Path, place: str) -> None:
    """Before the other system has done it, and after, when only that system knows: the call is repeated with its key."""
    path = tmp_path / "orders.db"
    code, output = run(path, "--kill-at", place)
    assert code != 0
    assert output.endswith(f"Killed at {place}. Run it again without --kill-at and watch.\n")
    repeated = "was done already, the same key" in finish(path)
    assert repeated or not place.endswith(":after")  # else only a step of another order may have been cut in two


def test_killed_at_every_step_of_one_life_it_still_ends_well(tmp_path: Path) -> None:
    """A process for each place, one after the other, each ended there."""
    path = tmp_path / "orders.db"
    for place in PLACES:
        code, output = run(path, "--kill-at", place)
        assert code == 0 or f"Killed at {place}" in output
    finish(path)


def storm(path: Path, orders: int, kills: int, seed: int) -> int:
    """Kill the example at random moments, then let it finish; return how many kills hit it at work."""
    chance, hits = random.Random(seed), 0
    for _ in range(kills):
        with start(path, orders=orders, pace=0.1) as process:  # long enough for every kill to find work
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.2))
            hits += process.poll() is None
            process.kill()
    finish(path, orders)
    return hits


def test_killed_at_random_places_every_order_ends_once(tmp_path: Path) -> None:
    """Forty orders at the same time, five kills."""
    assert storm(tmp_path / "orders.db", 40, kills=5, seed=5) >= 2


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(40))
def test_killed_at_random_places_again_and_again(tmp_path: Path, seed: int) -> None:
    """The same, with more orders and more kills."""
    storm(tmp_path / "orders.db", 100, kills=12, seed=seed)


def test_a_double_charge_is_found(tmp_path: Path) -> None:
    """The example's own check would tell: a second charge under another key ends it with an error."""
    path = tmp_path / "orders.db"
    finish(path)
    with closing(sqlite3.connect(outside(path))) as connection:
        connection.execute("INSERT INTO effect VALUES ('another', 'charge', 'order-1', 1500)")
        connection.commit()
    code, output = run(path)
    assert code == 1
    assert "WRONG: order-1 is completed, but outside was done: reserve, charge, ship, charge" in output


def test_an_unknown_place_is_refused_with_those_there_are(tmp_path: Path) -> None:
    """A typing error must not run to the end as if nothing had been asked."""
    code, output = run(tmp_path / "orders.db", "--kill-at", "charged")
    assert code == 2
    assert "'charged' is none of reserve, charge, ship, refund, release, placed" in output
