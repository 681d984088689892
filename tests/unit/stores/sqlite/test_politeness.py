"""How a process that writes again and again lets others write in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lexigram.events.stores.sqlite import transaction
from lexigram.events.stores.sqlite.settings import SqliteSettings
from lexigram.events.stores.sqlite.transaction import WriteTransaction


class Clock:
    """Time that passes only where a test says so, or somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the transactions."""
    clock = Clock()
    monkeypatch.setattr(transaction, "time", clock)
    return clock


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[WriteTransaction]]:
    """Two that write to one file, as two processes do."""
    settings = SqliteSettings.of(str(tmp_path / "events.db"))
    made = [
        WriteTransaction(settings, lambda connection: connection.execute("PRAGMA journal_mode=WAL") and None, ())
        for _ in range(2)
    ]
    write(made[0], "CREATE TABLE t (n)")
    yield made
    for writer in made:
        writer.close()


def write(writer: WriteTransaction, sql: str = "INSERT INTO t VALUES (1)") -> None:
    """Commit something."""
    writer.begin()
    writer.connection.execute(sql)
    writer.commit()


def test_who_writes_alone_does_not_wait(clock: Clock, writers: list[WriteTransaction]) -> None:
    """Commit after commit."""
    for _ in range(5):
        write(writers[1])
    assert clock.slept == 0


def test_a_gap_is_left_only_where_there_is_none(clock: Clock, writers: list[WriteTransaction]) -> None:
    """After another's commit each of ours is a millisecond behind the last, for a second; what has passed counts."""
    write(writers[1])
    write(writers[0])
    write(writers[1])
    assert clock.slept == 0
    write(writers[1])
    assert clock.slept == pytest.approx(0.001)
    clock.now += 0.0004
    write(writers[1])
    assert clock.slept == pytest.approx(0.0016)
    clock.now += 0.005
    write(writers[1])
    assert clock.slept == pytest.approx(0.0016), "it was away for longer: others had their chance"
    clock.now += 1.0
    write(writers[1])
    write(writers[1])
    assert clock.slept == pytest.approx(0.0016), "nobody else has written for a second"
