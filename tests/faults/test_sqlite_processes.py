"""Two processes on one file: both write, both read, and nobody misses or reorders anything."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from pathlib import Path

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.sqlite.checkpoint_store import SqliteCheckpointStore
from lexigram.events.stores.sqlite.event_store import SqliteEventStore

METHOD = "spawn" if sys.platform == "win32" else "forkserver"
EACH = 400
RACES = 60


class Counted(DomainEvent):
    """Says who wrote it and which of that writer's events it is."""

    writer: str
    number: int


def write(path: str, name: str) -> None:
    """Append single events and batches from four coroutines; the whole of it is `EACH` events."""
    asyncio.run(_write(path, name))


async def _write(path: str, name: str) -> None:
    async with SqliteEventStore(path) as store:

        async def one(part: int) -> None:
            for number in range(part, EACH, 4):
                await store.append(f"shared-{number % 7}", [Counted(writer=f"{name}{part}", number=number)])

        await asyncio.gather(*(one(part) for part in range(4)))


def race(path: str, name: str) -> None:
    """Increase one counter stream by optimistic concurrency, again and again."""
    asyncio.run(_race(path, name))


async def _race(path: str, name: str) -> None:
    async with SqliteEventStore(path) as store:
        won = 0
        while won < RACES:
            version = await store.get_stream_version("counter")
            try:
                await store.append("counter", [Counted(writer=name, number=won)], expected_version=version)
            except ConcurrencyError as error:
                assert error.expected_version == version
                assert (error.actual_version or 0) > version
            else:
                won += 1


def in_processes(target: object, path: str, names: tuple[str, ...]) -> list[multiprocessing.process.BaseProcess]:
    """Start one process per name."""
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload([__name__])
    processes = [context.Process(target=target, args=(path, name), daemon=True) for name in names]  # type: ignore[attr-defined]
    for process in processes:
        process.start()
    return processes


async def until_ended(processes: list[multiprocessing.process.BaseProcess]) -> None:
    """Wait for the processes and check that they succeeded."""
    for process in processes:
        while process.is_alive():
            await asyncio.sleep(0.01)
        assert process.exitcode == 0


async def test_a_following_reader_skips_nothing_that_two_processes_write(tmp_path: Path) -> None:
    """The reader follows from the first event on, while this process writes too; its view is the final log."""
    path = str(tmp_path / "events.db")
    processes = in_processes(write, path, ("a", "b"))
    seen: list[Counted] = []
    async with SqliteEventStore(path) as store, SqliteEventStore(path) as writing:
        ours = asyncio.create_task(_write(path, "c"))
        async for event in store.subscribe():
            seen.append(event)
            if len(seen) == 3 * EACH:
                break
        await ours
        await until_ended(processes)
        assert [event.sequence_number for event in seen] == list(range(1, 3 * EACH + 1))
        assert await writing.head() == 3 * EACH
        assert [event async for event in writing.stream_all(batch_size=500)] == seen
    for writer in "abc":
        for part in range(4):
            numbers = [event.number for event in seen if event.writer == f"{writer}{part}"]
            assert numbers == list(range(part, EACH, 4)), "each coroutine's events are there, in its order"


async def test_of_racing_processes_one_wins_each_version(tmp_path: Path) -> None:
    """The losers get a ConcurrencyError with both versions, never the driver's error."""
    path = str(tmp_path / "events.db")
    await until_ended(in_processes(race, path, ("a", "b")))
    async with SqliteEventStore(path) as store:
        events = await store.read("counter")
        assert [event.version for event in events] == list(range(1, 2 * RACES + 1))
        for name in "ab":
            assert [event.number for event in events if event.writer == name] == list(range(RACES))


def connect_and_lock(path: str, name: str) -> None:
    """Create the tables, all processes at once, and try to take one lock."""

    async def main() -> None:
        async with SqliteCheckpointStore(path) as store:
            if await store.acquire_lock("projection", name, timeout=60):
                await store.save_checkpoint("owners", await store.get_checkpoint("owners") + 1)

    asyncio.run(main())


async def test_tables_are_created_safely_by_processes_that_start_together(tmp_path: Path) -> None:
    """Four processes connect to a file that does not exist yet; exactly one gets the lock."""
    path = str(tmp_path / "events.db")
    await until_ended(in_processes(connect_and_lock, path, ("a", "b", "c", "d")))
    async with SqliteCheckpointStore(path) as store:
        assert await store.get_checkpoint("owners") == 1
