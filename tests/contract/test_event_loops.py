"""A store that holds connections belongs to one event loop at a time, and says so in another one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.testing.samples import added, skus
from tests.backends import address, open_store


def in_a_loop(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run one coroutine in an event loop of its own, as a second `asyncio.run` of a program does."""
    asyncio.run(run())


@pytest.fixture
def where(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An address without events."""
    return address(backend, request, tmp_path, 0)


@pytest.mark.parametrize("backend", ["postgres", "mongodb", "redis"])
def test_another_loop_is_a_clear_error(backend: str, where: Any) -> None:
    """Reading, writing and the smaller stores: never an error of the driver, and nothing hangs."""
    store = open_store(backend, where)

    checkpoints = store.checkpoint_store()
    assert checkpoints is not None

    async def use_elsewhere() -> None:
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: store.append("a", added("2")),
            lambda: store.read("a"),
            store.head,
            lambda: checkpoints.save_checkpoint("p", 1),
        ]
        for call in calls:
            with pytest.raises(EventStoreConnectionError, match="another event loop"):
                await asyncio.wait_for(call(), 10)

    async def main() -> None:
        async with store, checkpoints:
            await store.append("a", added("1"))
            await checkpoints.save_checkpoint("p", 1)
            await asyncio.to_thread(in_a_loop, use_elsewhere)
            await store.append("a", added("2"))
            assert skus(await store.read("a")) == ["1", "2"]

    in_a_loop(main)


@pytest.mark.parametrize("backend", ["sqlite", "postgres", "mongodb", "redis"])
def test_one_loop_after_the_other(backend: str, where: Any) -> None:
    """Closed in the first loop and opened again in the next one, a store goes on."""
    store = open_store(backend, where)

    async def main() -> None:
        async with store:
            await store.append("a", added("1"))

    in_a_loop(main)
    in_a_loop(main)

    async def read() -> None:
        async with store:
            assert skus(await store.read("a")) == ["1", "1"]

    in_a_loop(read)


@pytest.mark.parametrize("backend", ["postgres", "mongodb", "redis"])
def test_of_two_loops_that_open_a_store_at_once_one_has_it(backend: str, where: Any) -> None:
    """The other one is told so; both had half of it, and Redis hung."""
    for _ in range(5):
        store, barrier, outcomes = open_store(backend, where), threading.Barrier(2), list[Any]()

        async def use(store: Any = store, barrier: Any = barrier, outcomes: Any = outcomes) -> None:
            barrier.wait(20)
            try:
                async with asyncio.timeout(20):
                    outcomes.append(await store.append("a", added("1")))
            except EventStoreConnectionError as error:
                outcomes.append(error)
                await asyncio.to_thread(barrier.wait, 20)
            else:
                await asyncio.to_thread(barrier.wait, 20)
                await store.close()

        threads = [threading.Thread(target=in_a_loop, args=(use,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        (refusal,) = [outcome for outcome in outcomes if not isinstance(outcome, int)]
        assert len(outcomes) == 2
        assert "another event loop" in str(refusal)
