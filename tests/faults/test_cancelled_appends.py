"""An append, and a unit of work, cancelled at each of its awaits, on every backend: whole or not there, and nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import ConcurrencyError
from tests.backends import BACKENDS, address, open_store
from tests.faults.batches import Posted, batch, check_log


class Interrupted:
    """Awaits a coroutine and cancels the running task at its n-th await.

    Args:
        late: Cancel when what it waits for is there already, and not as soon as it begins to wait.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], await_number: int, *, late: bool) -> None:
        self._coroutine, self._number, self._late = coroutine, await_number, late
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        awaits = self._coroutine.__await__()
        awaits_seen, error = 0, None
        while True:
            try:
                waited_for = next(awaits) if error is None else awaits.throw(error)
            except StopIteration as end:
                return end.value
            awaits_seen += 1
            if awaits_seen == self._number:
                self.reached = True
                if self._late and waited_for is not None:
                    waited_for.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            try:
                yield waited_for
                error = None
            except BaseException as thrown:
                error = thrown


def work_of(store: Any, kind: str, name: str) -> tuple[Coroutine[Any, Any, Any], list[tuple[str, list[Posted]]]]:
    """Return what is cancelled, and the appends that it makes."""
    if kind == "append":
        events = batch(name, 3)
        return store.append("a", events), [("a", events)]
    if kind == "append at a version":

        async def decide() -> None:
            version = await store.get_stream_version("a")
            await store.append("a", events, expected_version=version)

        events = batch(name, 3)
        return decide(), [("a", events)]
    first, second = batch(name, 2), batch(f"{name}+", 1)

    async def unit() -> None:
        async with store.unit_of_work():
            await store.append("a", first)
            await store.append("b", second)

    return unit(), [("a", first), ("b", second)]


@pytest.mark.parametrize("kind", ["append", "append at a version", "unit of work"])
@pytest.mark.parametrize("backend", BACKENDS)
async def test_cancelled_at_any_await_it_is_whole_or_not_there(
    backend: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The store and others go on at once, and the same events can be appended again, which stores nothing twice."""
    where = address(backend, request, tmp_path, 94)
    store = open_store(backend, where)
    other = store if backend == "memory" else open_store(backend, where)
    async with store, other:
        await store.append("a", batch("first", 1))
        cancelled = 0
        for late in (False, True):
            for number in range(1, 100):
                name = f"{number}{late}"
                coroutine, appends = work_of(store, kind, name)
                interrupted = Interrupted(coroutine, number, late=late)

                async def run(interrupted: Interrupted = interrupted) -> None:
                    await interrupted

                task = asyncio.create_task(run())
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                if not interrupted.reached:
                    assert outcome is None, outcome
                    break
                cancelled += task.cancelled()
                async with asyncio.timeout(5):
                    await other.append("b", batch(f"{name} other", 1))
                    await check_log(other)
                    if number % 2:
                        for stream, events in appends:
                            await store.append(stream, events)
                        assert name in await check_log(other)
            else:
                pytest.fail("it has more awaits than this test is made for")
        assert cancelled >= (0 if backend == "memory" else 1)
        if backend == "postgres":
            row = await other.engine.fetch_one(  # type: ignore[attr-defined]
                "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
            )
            assert row[0] == 0
        with pytest.raises(ConcurrencyError):
            await store.append("a", batch("wrong", 1), expected_version=0)
