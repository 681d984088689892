"""Stores in the hands of a program that knows only the documents."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import (
    DomainEvent,
    InMemoryEventStore,
    InMemorySnapshotStore,
    SqliteEventStore,
    SqliteIdempotencyStore,
    SqliteSnapshotStore,
)

MakeStore = Callable[[Path], Any]
EVENT_STORES: list[MakeStore] = [lambda _: InMemoryEventStore(), SqliteEventStore]
SNAPSHOT_STORES: list[MakeStore] = [lambda _: InMemorySnapshotStore(), SqliteSnapshotStore]


class Counted(DomainEvent):
    n: int = 0


def writers() -> int:
    """Return how many threads there are."""
    return threading.active_count()


@pytest.mark.parametrize("make", EVENT_STORES)
def test_an_event_store_is_used_in_one_event_loop_after_the_other(make: MakeStore, tmp_path: Path) -> None:
    """Many tasks open it, append, subscribe and close it at once in each loop, as `asyncio.run` twice does."""
    store = make(tmp_path / "events.db")

    async def work() -> None:
        await asyncio.gather(*[store.connect() for _ in range(5)])
        await asyncio.gather(*[store.append("s", [Counted(n=n)]) for n in range(10)])
        follower = asyncio.create_task(anext(store.subscribe(from_position=await store.head())))
        await asyncio.sleep(0.01)
        await store.append("s", [Counted(n=10)])
        assert (await asyncio.wait_for(follower, 5)).n == 10
        await store.close()

    for _ in range(3):
        asyncio.run(work())

    async def check() -> None:
        async with store:
            assert [event.version for event in await store.read("s")] == list(range(1, 34))

    asyncio.run(check())


@pytest.mark.parametrize("make", SNAPSHOT_STORES)
def test_a_snapshot_store_is_opened_once_by_many_tasks(make: MakeStore, tmp_path: Path) -> None:
    """Tasks that save first at the same time share one database, which closing gives back, in every loop."""
    store = make(tmp_path / "events.db")

    async def work() -> None:
        await store.connect()
        await store.close()
        before = writers()
        await asyncio.gather(*[store.connect() for _ in range(10)])
        await asyncio.gather(*[store.save("a", {"n": n}, n) for n in range(10)])
        assert await store.load("a") == ({"n": 9}, 9)
        await store.close()
        assert writers() <= before

    for _ in range(2):
        asyncio.run(work())


def test_a_small_store_is_opened_by_many_tasks_in_each_loop(tmp_path: Path) -> None:
    """The lock that opening takes belongs to the loop that runs."""
    store = SqliteIdempotencyStore(tmp_path / "events.db")

    async def work() -> None:
        await asyncio.gather(*[store.connect() for _ in range(10)])
        await store.mark_processed("consumer", "message")
        assert await store.is_processed("consumer", "message")
        await store.close()

    for _ in range(2):
        asyncio.run(work())


@pytest.mark.parametrize("make", EVENT_STORES)
@pytest.mark.parametrize("delay", [0, 0.0002, 0.002])
async def test_a_cancelled_append_is_whole_or_absent_and_can_be_repeated(
    make: MakeStore, delay: float, tmp_path: Path
) -> None:
    """The same call with the same objects then succeeds, stamps them and stores nothing twice."""
    async with make(tmp_path / "events.db") as store:
        for attempt in range(5):
            stream, events = f"s-{attempt}", [Counted(n=n) for n in range(50)]
            task = asyncio.create_task(store.append(stream, events))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await store.get_stream_version(stream) in (0, 50)
            assert await store.append(stream, events, expected_version=0) == 50
            assert [event.version for event in events] == list(range(1, 51))
            assert await store.read(stream) == events
        assert await store.head() == 250


@pytest.mark.parametrize("make", EVENT_STORES)
async def test_stream_ids_are_compared_exactly(make: MakeStore, tmp_path: Path) -> None:
    """No pattern, no case folding, no normalisation, no SQL."""
    names = [
        "ORDER",
        "order",
        "e\u0301",
        "\u00e9",
        "%",
        "_",
        "x'; DROP TABLE events; --",
        " ",
        "\n",
        "\U0001f600" * 255,
    ]
    async with make(tmp_path / "events.db") as store:
        for number, name in enumerate(names):
            await store.append(name, [Counted(n=number)], expected_version=0)
        for number, name in enumerate(names):
            assert [event.n for event in await store.read(name)] == [number]
        assert await store.get_stream_ids() == sorted(names)
