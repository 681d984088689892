"""A shared projection that is paused stands still in every process, until any of them resumes it."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import pytest

from tests.backends import BACKENDS
from tests.contract.test_shared_faults import Paid, Process, Processes, processes

__all__ = ["processes"]


async def until_paused(*workers: Process, paused: bool = True) -> None:
    """Wait until an operator sees it in each process, at most ten seconds."""
    async with asyncio.timeout(10):
        while any((worker.status["status"] == "paused") is not paused for worker in workers):
            await asyncio.sleep(0.01)


async def owner_of(*workers: Process) -> Process:
    """Return the one that runs the projection."""
    async with asyncio.timeout(10):
        while True:
            for worker in workers:
                if worker.status["owner"]:
                    return worker
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_pause_holds_in_every_process(processes: Processes, backend: str) -> None:
    """Asked of one that does not run it; seen by all, by one that starts later too; and any of them ends it."""
    async with processes(backend) as make:
        first, second = await make(), await make()
        await first.manager.start()
        await second.manager.start()
        owner = await owner_of(first, second)
        other = second if owner is first else first
        await other.store.append("a", [Paid(cents=1)])
        await other.manager.wait_for("payments", 1, timeout=10)

        assert other.manager.pause("payments")
        assert other.status["status"] == "paused"
        await until_paused(first, second)
        await other.store.append("a", [Paid(cents=2)])
        with pytest.raises(TimeoutError, match="stopped"):
            await other.manager.wait_for("payments", 2, timeout=0.3)
        later = await make()
        await later.manager.start()
        assert later.status["status"] == "paused"
        await owner.manager.stop()  # whoever takes over stands still, too
        await owner_of(other, later)
        with pytest.raises(TimeoutError, match="stopped"):
            await later.manager.wait_for("payments", 2, timeout=0.3)
        assert owner.seen + other.seen + later.seen == [1]

        assert later.manager.resume("payments")
        await until_paused(other, later, paused=False)
        await other.manager.wait_for("payments", 2, timeout=10)
        assert owner.seen + other.seen + later.seen == [1, 2]


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_program_that_only_asks_for_it_is_enough(processes: Processes, partitions: int) -> None:
    """Its manager is never started: `stop` returns when the pause is stored. A resume right behind a pause wins."""
    async with processes("sqlite") as make:
        worker, tool, late = [await make(partitions=partitions) for _ in range(3)]
        await worker.manager.start()
        await worker.store.append("a", [Paid(cents=1)])
        await worker.manager.wait_for("payments", 1, timeout=10)
        tool.manager.pause("payments")
        await tool.manager.stop()
        await until_paused(worker)
        await late.manager.start()
        assert late.status["status"] == "paused"
        tool = await make(partitions=partitions)
        for wanted in (tool.manager.resume, tool.manager.pause, tool.manager.resume):
            wanted("payments")
        await tool.manager.stop()
        await until_paused(worker, late, paused=False)
        await worker.store.append("a", [Paid(cents=2)])
        await worker.manager.wait_for("payments", 2, timeout=10)


async def test_a_paused_projection_is_rebuilt_and_stays_paused(processes: Processes) -> None:
    """As without sharing: a rebuild is asked for, what comes later waits."""
    async with processes("sqlite") as make:
        worker = await make(durable=True)
        await worker.manager.start()
        await worker.store.append("a", [Paid(cents=1)])
        await worker.manager.wait_for("payments", 1, timeout=10)
        worker.manager.pause("payments")
        assert await worker.manager.rebuild("payments") == 1
        await worker.store.append("a", [Paid(cents=2)])
        with pytest.raises(TimeoutError, match="stopped"):
            await worker.manager.wait_for("payments", 2, timeout=1.5)
        assert worker.status["status"] == "paused"


async def test_a_pause_is_stored_when_the_database_is_back(processes: Processes) -> None:
    """Here it holds meanwhile, whatever the database says."""
    async with processes("memory") as make:
        first, second = await make(), await make()
        for worker in (first, second):
            await worker.manager.start()
        checkpoints: Any = first.manager._checkpoints
        away = asyncio.Event()
        acquire = checkpoints.acquire_lock

        async def refuse(name: str, owner: str, timeout: float = 30.0) -> bool:
            if name.startswith("paused:"):
                away.set()
                raise ConnectionError
            return bool(await acquire(name, owner, timeout))

        with mock.patch.object(checkpoints, "acquire_lock", refuse):
            first.manager.pause("payments")
            await away.wait()
            await asyncio.sleep(1.2)  # everybody has looked
            assert (first.status["status"], second.status["status"]) == ("paused", "running")
        await until_paused(first, second)


async def test_where_no_faults_are_kept_this_process_pauses(processes: Processes) -> None:
    """A checkpoint store of one's own without them cannot tell the others."""
    async with processes("memory") as make:
        worker = await make()
        pause = worker.manager.parts("payments").group.pause
        with mock.patch.object(pause, "_is_kept", False):
            await worker.manager.start()
            worker.manager.pause("payments")
            await asyncio.sleep(1.2)  # it has looked
            assert worker.status["status"] == "paused"
            worker.manager.resume("payments")
            assert worker.status["status"] == "running"
