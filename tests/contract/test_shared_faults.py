"""A shared projection that fails is faulted for every process, and any of them can let it go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import (
    DomainEvent,
    DurableProjection,
    ProjectionBuildError,
    ProjectionConfig,
    ProjectionManager,
    ProjectionProtocol,
    ProjectionRebuildError,
)
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from tests.backends import BACKENDS, address, open_store

LEASE_SECONDS = 0.6


class Paid(DomainEvent):
    cents: int


class Process:
    """One worker: a store, a manager, and whether its program knows what to do with negative amounts.

    Args:
        partitions: Of its one projection.
    """

    def __init__(self, store: Any, checkpoints: Any, partitions: int = 1, durable: bool = False) -> None:
        self.store = store
        self.seen: list[int] = []
        self.is_fixed = False
        self.manager = ProjectionManager(
            store,
            checkpoints,
            config=ProjectionConfig(shared=True, partitions=partitions, lease_seconds=LEASE_SECONDS),
        )
        self.manager.register(self._durable() if durable else self._plain())

    def take(self, event: Paid) -> None:
        """Fail like a program with a mistake, or note the event."""
        if event.cents < 0 and not self.is_fixed:
            raise ValueError(f"no such amount: {event.cents}")
        self.seen.append(event.cents)

    def _plain(self) -> ProjectionProtocol:
        process = self

        class Payments(ProjectionProtocol):
            name = "payments"
            handles = (Paid,)

            def apply(self, event: Paid) -> None:  # type: ignore[override]
                process.take(event)

        return Payments()

    def _durable(self) -> ProjectionProtocol:
        process = self

        class Payments(DurableProjection):
            name = "payments"
            handles = (Paid,)
            tables = ("shared_payments",)
            schema = ("CREATE TABLE IF NOT EXISTS shared_payments (position BIGINT PRIMARY KEY, cents BIGINT)",)

            async def handle_event(self, event: Paid) -> None:
                process.take(event)
                await self.db.execute("INSERT INTO shared_payments VALUES ($1, $2)", event.sequence_number, event.cents)

        return Payments()

    @property
    def status(self) -> dict[str, Any]:
        """What an operator sees."""
        found = self.manager.get_status("payments")
        assert found is not None
        return found

    async def until(self, state: str) -> dict[str, Any]:
        """Wait until an operator sees this state, at most ten seconds."""
        async with asyncio.timeout(10):
            while self.status["state"] != state:
                await asyncio.sleep(0.01)
        return self.status

    async def fails(self, position: int) -> str:
        """Return the error of a wait that has no timeout of its own."""
        async with asyncio.timeout(10):
            with pytest.raises(ProjectionBuildError) as failure:
                await self.manager.wait_for("payments", position)
        return str(failure.value)


Processes = Callable[..., Any]


@pytest.fixture
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Processes:
    """`async with processes(backend) as make`: makes processes on one empty database; they are not started."""

    @asynccontextmanager
    async def on(backend: str) -> AsyncIterator[Callable[..., Any]]:
        where, only, checkpoints = address(backend, request, tmp_path, 0), open_store("memory", None), None
        if backend == "memory":
            checkpoints = InMemoryCheckpointStore()
        async with AsyncExitStack() as stack:

            async def make(**options: Any) -> Process:
                store = only if backend == "memory" else open_store(backend, where)
                process = Process(await stack.enter_async_context(store), checkpoints, **options)
                stack.push_async_callback(process.manager.stop)
                return process

            yield make

    return on


@pytest.mark.parametrize("backend", BACKENDS)
async def test_every_process_sees_the_fault_and_another_one_overcomes_it(processes: Processes, backend: str) -> None:
    """Status and `wait_for` tell the same everywhere; `resume` in a process that can do it makes all of them go on."""
    async with processes(backend) as make:
        first, second = await make(), await make()
        watcher = await make()  # never started
        await first.manager.start()
        await second.manager.start()
        await first.store.append("a", [Paid(cents=1), Paid(cents=-2), Paid(cents=3)])
        messages = {await process.fails(3) for process in (first, second, watcher)}
        assert len(messages) == 1
        message = messages.pop()
        assert "no such amount: -2" in message
        for process in (first, second):
            status = await process.until("faulted")
            assert "no such amount: -2" in status["error"]
            assert not status["owner"]
        assert first.seen + second.seen == [1]
        await asyncio.sleep(LEASE_SECONDS)
        assert (first.status["state"], second.status["state"]) == ("faulted", "faulted")

        assert first.manager.resume("payments")  # the same mistake again
        assert "no such amount: -2" in await first.fails(3)
        second.is_fixed = True
        assert second.manager.resume("payments")
        for process in (second, first, watcher):
            await process.manager.wait_for("payments", 3, timeout=10)
        assert second.seen[-2:] == [-2, 3]
        async with asyncio.timeout(10):
            while "faulted" in (first.status["state"], second.status["state"]):
                await asyncio.sleep(0.01)
        assert first.status["error"] is None
        assert first.status["status"] == "running"
        await second.manager.stop()
        await first.store.append("a", [Paid(cents=4)])
        await first.manager.wait_for("payments", 4, timeout=10)
        assert first.seen[-1] == 4


@pytest.mark.parametrize("backend", ["memory", "sqlite", "postgres"])
async def test_a_process_of_a_new_program_takes_it_over(processes: Processes, backend: str) -> None:
    """Starting is a try too, as it is without sharing: a deployment mends it while the old processes still run."""
    async with processes(backend) as make:
        old = [await make(durable=backend != "memory", partitions=2) for _ in range(3)]
        for process in old:
            await process.manager.start()
        await old[0].store.append("a", [Paid(cents=cents) for cents in (1, -2, 3)])
        for process in old:
            assert "no such amount" in await process.fails(3)
        new = await make(durable=backend != "memory", partitions=2)
        new.is_fixed = True
        await new.manager.start()
        for process in (new, *old):
            await process.manager.wait_for("payments", 3, timeout=10)
        if backend != "memory":
            rows = await new.store.engine.fetch_all("SELECT cents FROM shared_payments ORDER BY position")
            assert [int(row[0]) for row in rows] == [1, -2, 3]


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_faulted_one_is_rebuilt_wherever_it_failed(processes: Processes, backend: str, partitions: int) -> None:
    """Its parts belong to nobody, so the rebuild takes them; one that fails is resumed after the mistake is mended."""
    async with processes(backend) as make:
        process = await make(durable=True, partitions=partitions)
        await process.manager.start()
        for number in range(9):
            await process.store.append(f"s{number}", [Paid(cents=number - 4)])
        assert "no such amount" in await process.fails(9)
        with pytest.raises(ProjectionRebuildError, match="no such amount"):
            await process.manager.rebuild("payments")
        await process.until("faulted")
        process.is_fixed = True
        await process.manager.resume_rebuild("payments")
        assert process.status["state"] != "faulted"
        assert await process.manager.rebuild("payments") == 9
        await process.manager.wait_for("payments", 9, timeout=10)
        rows = await process.store.engine.fetch_all("SELECT cents FROM shared_payments ORDER BY position")
        assert [int(row[0]) for row in rows] == list(range(-4, 5))
        await process.until("live")


async def test_a_projection_waits_for_another_that_runs_in_another_process(processes: Processes) -> None:
    """`depends_on` asks for the stored position: the other's position in this process is an old one."""

    class Totals(ProjectionProtocol):
        name = "totals"
        handles = (Paid,)
        depends_on = ("payments",)

        def apply(self, event: Paid) -> None:  # type: ignore[override]
            totals.append(event.cents)

    totals: list[int] = []
    async with processes("sqlite") as make:
        first, second = await make(), await make()
        await first.manager.start()  # has the lease of "payments"
        second.manager.register(Totals())
        await second.manager.start()
        for number in range(5):
            await first.store.append("a", [Paid(cents=number)])
        await second.manager.wait_for("totals", 5, timeout=5)
    assert (first.seen, second.seen, totals) == ([0, 1, 2, 3, 4], [], [0, 1, 2, 3, 4])
