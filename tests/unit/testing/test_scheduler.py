"""The scheduler: virtual time, order by seed, crashes and cancellations at every await."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from lexigram.events import DomainEvent, InMemoryEventStore, SqliteEventStore
from lexigram.events.messages.clock import now
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.testing.clock import DEFAULT_MOMENT
from lexigram.events.testing.scheduler import Trial, TrialFailed, explore, replay, simulate


class Paid(DomainEvent):
    """An event of these tests."""

    amount: int = 1


class Account:
    """A balance beside a log: right only if both are written, which nothing ensures."""

    def __init__(self) -> None:
        self.balance = 0

    async def add(self, amount: int) -> None:
        """Change the balance."""
        self.balance += amount


class TwoWrites(Trial):
    """Writes an event and then the balance, without a transaction: lost if the process ends in between."""

    def __init__(self) -> None:
        self.store = InMemoryEventStore()
        self.account = Account()

    async def run(self) -> None:
        for _ in range(3):
            await self.store.append("a", [Paid()])
            await self.account.add(1)

    async def check(self) -> None:
        paid = len(await self.store.read("a"))
        assert paid == self.account.balance, f"{paid} paid, balance {self.account.balance}"


class Resumed(TwoWrites):
    """The same, repaired when the program starts again."""

    async def recover(self) -> None:
        self.account.balance = len(await self.store.read("a"))


def test_sleeping_takes_no_time_and_every_clock_agrees() -> None:
    """An hour passes for the loop, `time`, messages and timeouts, and afterwards the clocks are right again."""

    async def main() -> tuple[float, float, datetime, float]:
        began = asyncio.get_running_loop().time(), time.monotonic(), time.time()
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return (
            asyncio.get_running_loop().time() - began[0],
            time.monotonic() - began[1],
            Paid().occurred_at,
            time.time() - began[2],
        )

    began = time.monotonic()
    by_loop, by_time, moment, by_wall = simulate(main, limit_seconds=5000)
    assert by_loop == by_time == 3660
    assert by_wall == pytest.approx(3660)
    assert (moment - DEFAULT_MOMENT).total_seconds() == pytest.approx(3660)
    assert time.monotonic() - began < 5
    assert abs((now() - datetime.now(UTC)).total_seconds()) < 5


def test_leases_run_out_by_the_virtual_clock() -> None:
    """A lock of a store in memory can be taken over as soon as its owner has slept too long."""

    async def main() -> list[bool]:
        locks = InMemoryCheckpointStore()
        taken = [await locks.acquire_lock("x", "one", 30), await locks.acquire_lock("x", "two", 30)]
        await asyncio.sleep(31)
        return [*taken, await locks.acquire_lock("x", "two", 30)]

    assert simulate(main) == [True, False, True]


async def _race() -> str:
    found: list[str] = []

    async def one(name: str) -> None:
        await asyncio.sleep(0)
        found.append(name)

    async with asyncio.TaskGroup() as group:
        for name in "abcd":
            group.create_task(one(name))
    return "".join(found)


def test_the_seed_gives_the_order_of_tasks() -> None:
    """Equal seeds give one order, many seeds give many."""
    orders = [simulate(_race, seed=seed) for seed in range(20)]
    assert orders == [simulate(_race, seed=seed) for seed in range(20)]
    assert len(set(orders)) > 5


def test_the_seed_gives_ids_and_random_numbers() -> None:
    """`uuid4` and the ids of messages repeat with the seed."""

    async def ids() -> tuple[str, str]:
        return str(uuid4()), str(Paid().event_id)

    assert simulate(ids, seed=3) == simulate(ids, seed=3) != simulate(ids, seed=4)
    assert str(uuid4()) != simulate(ids, seed=3)[0]


def test_plain_callbacks_keep_their_order() -> None:
    """asyncio promises it, and its transports rely on it."""

    async def main() -> list[int]:
        found: list[int] = []
        for number in range(50):
            asyncio.get_running_loop().call_soon(found.append, number)
        await asyncio.sleep(1)
        return found

    assert all(simulate(main, seed=seed) == list(range(50)) for seed in range(5))


def test_a_lost_write_is_found_and_its_fault_replays_identically() -> None:
    """The message names seed and fault; the same fault fails in the same way, step by step."""
    with pytest.raises(TrialFailed, match="1 paid, balance 0") as failed:
        explore(TwoWrites, seed=11, interruptible=[Account])
    assert (failed.value.seed, failed.value.fault.partition(":")[0]) == (11, "crash")
    assert "test_scheduler.py" in failed.value.place
    with pytest.raises(TrialFailed, match="1 paid, balance 0"):
        replay(TwoWrites, failed.value.fault, seed=11, interruptible=[Account])
    repaired = [replay(Resumed, failed.value.fault, seed=11, interruptible=[Account]) for _ in range(2)]
    assert repaired[0] == repaired[1]
    found = explore(Resumed, seed=11, interruptible=[Account])
    assert found.points["crash"] >= 12
    assert len(found.tried) == sum(found.points.values())
    assert not found.unreached


def test_a_run_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Neither the seed of string hashes nor what ran before changes a step."""
    script = (
        "from tests.unit.testing.test_scheduler import *\nfrom tests.unit.testing.test_scheduler import _race\n"
        "print(replay(Resumed, 'crash:9', seed=5, interruptible=[Account]), [simulate(_race, seed=s) for s in range(9)])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1


def test_after_a_crash_nothing_of_the_program_runs() -> None:
    """No `except` and no `finally` runs before the check; a cancelled task runs both."""
    seen: list[tuple[str, ...]] = []

    class Guarded(Trial):
        def __init__(self) -> None:
            self.did: list[str] = []

        async def run(self) -> None:
            try:
                await asyncio.sleep(1)
                self.did.append("done")
            except BaseException:
                self.did.append("except")
                raise
            finally:
                await asyncio.sleep(1)
                self.did.append("finally")

        async def check(self) -> None:
            seen.append(tuple(self.did))

    found = explore(Guarded)
    assert found.points["crash"] == 3
    assert seen[0] == ("done", "finally")
    assert seen[1:4] == [(), (), ("done",)]
    assert ("except", "finally") in seen[4:]


def test_a_program_that_ignores_its_cancellation_is_reported() -> None:
    """A task that goes on for ever has swallowed it."""

    class Deaf(Trial):
        async def run(self) -> None:
            await asyncio.sleep(1)
            waiting = asyncio.ensure_future(self.wait())
            await asyncio.sleep(1)
            waiting.cancel()

        async def wait(self) -> None:
            while True:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    continue

    with pytest.raises(TrialFailed, match="do not end when they are cancelled"):
        explore(Deaf)


def test_a_program_that_waits_for_ever_is_reported() -> None:
    """Nothing is left that could wake it: the message says where it stands."""

    class Waiting(Trial):
        async def run(self) -> None:
            await asyncio.Event().wait()

    with pytest.raises(TrialFailed, match=r"waits for ever.*test_scheduler\.py:\d+ run"):
        explore(Waiting)


def test_a_recovery_that_takes_too_long_is_reported() -> None:
    """A program that never finishes what it found is stuck."""

    class Polling(Trial):
        async def run(self) -> None:
            await asyncio.sleep(1)

        async def recover(self) -> None:
            while True:
                await asyncio.sleep(1)

    with pytest.raises(TrialFailed, match=r"recover\(\) does not end"):
        explore(Polling, limit_seconds=100)


def test_a_recovery_may_take_its_time() -> None:
    """Only what goes on after a cancellation is shut down soon; a program that starts again has the whole limit."""

    class Slow(Trial):
        async def run(self) -> None:
            await asyncio.sleep(1000)

        async def recover(self) -> None:
            await asyncio.sleep(1000)

    assert len(explore(Slow).tried) == 5


def test_a_recovery_can_crash_too() -> None:
    """What is repaired in two steps must be repaired again if the second one is missing."""

    class HalfRepaired(TwoWrites):
        is_repaired = False

        async def recover(self) -> None:
            if not self.is_repaired:
                self.is_repaired = True
                await asyncio.sleep(1)
                self.account.balance = len(await self.store.read("a"))

    assert explore(HalfRepaired, interruptible=[Account], cancel=False).tried
    with pytest.raises(TrialFailed, match="again:"):
        for seed in range(20):
            explore(HalfRepaired, seed=seed, interruptible=[Account], cancel=False, crash=False, crash_again=True)


def test_a_stalled_task_is_overtaken() -> None:
    """The others go on meanwhile; a worker that does not look at its lease again does the work twice."""

    class TwoWorkers(Trial):
        def __init__(self) -> None:
            self.locks, self.done = InMemoryCheckpointStore(), 0

        async def worker(self, name: str) -> None:
            while not self.done:
                if await self.locks.acquire_lock("work", name, 10):
                    await asyncio.sleep(1)
                    self.done += 1
                await asyncio.sleep(1)

        async def run(self) -> None:
            await asyncio.gather(self.worker("one"), self.worker("two"))

        async def check(self) -> None:
            assert self.done == 1, f"done {self.done} times"

    assert explore(TwoWorkers, crash=False, cancel=False).tried == []
    with pytest.raises(TrialFailed, match="done 2 times"):
        explore(TwoWorkers, crash=False, cancel=False, stall_seconds=30)


def test_the_wall_clock_can_be_set_while_the_others_go_on() -> None:
    """A program that measures a duration by the wall clock is found."""

    class Measuring(Trial):
        async def run(self) -> None:
            began, by_wall = time.monotonic(), now()
            await asyncio.sleep(5)
            assert time.monotonic() - began == 5
            assert (now() - by_wall).total_seconds() == 5, "the clock was set"

    assert explore(Measuring, crash=False, cancel=False).tried == []
    with pytest.raises(TrialFailed, match="the clock was set"):
        explore(Measuring, crash=False, cancel=False, jump_seconds=-3600)


def test_time_waits_for_threads() -> None:
    """A timeout of a virtual minute does not fire while a thread works."""

    async def main() -> str:
        async with asyncio.timeout(60):
            return await asyncio.to_thread(lambda: time.sleep(0.2) or "done")  # type: ignore[func-returns-value]

    assert simulate(main) == "done"


def test_time_waits_for_sqlite(tmp_path: Path) -> None:
    """While the writer thread works, no timeout fires; while nothing is asked, a minute passes quickly."""

    async def main() -> float:
        async with SqliteEventStore(str(tmp_path / "slow.db")) as store:
            async with asyncio.timeout(5):
                await store.engine.run(lambda _: time.sleep(0.4))
            began = time.monotonic()
            await asyncio.sleep(10)
            return time.monotonic() - began

    began = time.monotonic()
    assert simulate(main, in_memory=False) == pytest.approx(10, abs=1)
    assert time.monotonic() - began < 8


def test_time_waits_for_postgres(postgres_url: str) -> None:
    """The same while a server works."""

    async def main() -> None:
        connection = await asyncpg.connect(postgres_url)
        async with asyncio.timeout(5):
            await connection.execute("SELECT pg_sleep(0.4)")
        await connection.close()

    simulate(main, in_memory=False)


def test_only_some_places_are_tried_on_request() -> None:
    """`at_most` of each kind, chosen by the seed; `crash` and `cancel` can be left out."""
    found = explore(Resumed, at_most=3, cancel=False)
    assert [fault.partition(":")[0] for fault in found.tried] == ["crash"] * 3
    assert "cancel" not in found.points
    assert found.tried != explore(Resumed, at_most=3, cancel=False, seed=1).tried


async def test_it_is_called_from_a_plain_function() -> None:
    """It has an event loop of its own, so inside of another one it refuses."""
    with pytest.raises(RuntimeError, match="plain function"):
        explore(Resumed)
    with pytest.raises(ValueError, match="crash:<n>"):
        replay(Resumed, "crash:x")


class InFile(Trial):
    """Writes lines to a file; what is not flushed is lost in a real crash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.remembered = 0

    async def run(self) -> None:
        with open(self.path, "a") as file:
            try:
                for _ in range(3):
                    file.write("line\n")
                    self.remembered += 1
                    await asyncio.sleep(0.001)
            finally:
                file.write("closed\n")

    async def check(self) -> None:
        text = self.path.read_text() if self.path.exists() else ""
        self.path.unlink(missing_ok=True)
        assert text in ("", "line\nline\nline\nclosed\n"), text
        assert self.remembered == (3 if text else 0)


def test_outside_of_memory_a_crash_kills_a_process(tmp_path: Path) -> None:
    """Neither buffers nor memory of the killed process survive; a run without a fault leaves the whole file."""
    found = explore(lambda: InFile(tmp_path / "lines"), cancel=False, in_memory=False)
    assert found.points["crash"] == 4
    assert len(found.tried) == 4
