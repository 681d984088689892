"""The contract suite of projections over an event store. Subclass and write `make_store`."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events.config import ProjectionConfig
from lexigram.events.exceptions import ProjectionBuildError
from lexigram.events.projections.base import ProjectionProtocol
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.stores.base import AbstractCheckpointStore, AbstractEventStore
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.testing.samples import GiftAdded, ItemAdded, ItemRemoved, added

_SECONDS = 60.0


class Recorder(ProjectionProtocol):
    """Keeps the positions of what it was given outside of the event store, like a read model in another system."""

    handles = (ItemAdded,)

    def __init__(self, name: str = "recorder", seen: list[int] | None = None) -> None:
        super().__init__()
        self.seen: list[int] = [] if seen is None else seen
        self.failing: str | None = None
        self._name = name

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self._name

    async def apply(self, event: ItemAdded) -> None:
        """Note the position."""
        if event.sku == self.failing:
            raise RuntimeError("the read model is away")
        assert event.sequence_number is not None
        self.seen.append(event.sequence_number)

    async def reset(self) -> None:
        """Forget what was noted."""
        self.seen.clear()
        await super().reset()


class ProjectionContract:
    """Projections over a store see each event once, in order, and go on where they stopped."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make_store(self) -> AbstractEventStore:
        """Return a new, empty event store."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[AbstractEventStore]:
        """A new, empty store, closed after the test."""
        async with await self.make_store() as opened:
            yield opened

    @pytest_asyncio.fixture
    async def checkpoints(self, store: AbstractEventStore) -> AsyncIterator[AbstractCheckpointStore]:
        """The store's own checkpoints, or some in memory where it has none."""
        async with store.checkpoint_store() or InMemoryCheckpointStore() as opened:
            yield opened

    async def test_catching_up_and_going_on_live_has_neither_gap_nor_duplicate(
        self, store: AbstractEventStore, checkpoints: AbstractCheckpointStore
    ) -> None:
        """Started in the middle of concurrent appends, the projection sees each event once, in order."""
        recorder = Recorder()
        manager = ProjectionManager(store, checkpoints, config=ProjectionConfig(batch_size=7))
        manager.register(recorder)

        async def write(stream: str) -> None:
            for number in range(15):
                await store.append(stream, added(*("x" * (1 + number % 3))))

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(write(f"s-{number}"))
            await store.append("first", added("first"))
            await manager.start()
        await manager.wait_for("recorder", await store.head(), timeout=_SECONDS)
        await manager.stop()
        assert recorder.seen == list(range(1, await store.head() + 1))
        assert len(recorder.seen) == 4 * 30 + 1

    async def test_it_goes_on_where_it_stopped(
        self, store: AbstractEventStore, checkpoints: AbstractCheckpointStore
    ) -> None:
        """A new object with the same name is given only what came after the stored position."""
        for round_ in range(3):
            await store.append("s", added("a", "b"))
            recorder = Recorder()
            manager = ProjectionManager(store, checkpoints)
            manager.register(recorder)
            async with manager:
                await manager.wait_for("recorder", await store.head(), timeout=_SECONDS)
            assert recorder.seen == [2 * round_ + 1, 2 * round_ + 2]
            assert await checkpoints.get_checkpoint("recorder") == 2 * round_ + 2

    async def test_only_what_it_handles_is_applied(
        self, store: AbstractEventStore, checkpoints: AbstractCheckpointStore
    ) -> None:
        """Subclasses of a handled class included; the position moves past everything."""
        recorder = Recorder()
        manager = ProjectionManager(store, checkpoints)
        manager.register(recorder)
        await store.append("s", [ItemRemoved(sku="a"), *added("b"), GiftAdded(sku="c"), ItemRemoved(sku="d")])
        async with manager:
            await manager.wait_for("recorder", 4, timeout=_SECONDS)
            status = manager.get_status("recorder")
        assert recorder.seen == [2, 3]
        assert status is not None
        assert (status["position"], status["lag"]) == (4, 0)

    async def test_a_failing_event_stops_it_just_before_and_resume_goes_on_there(
        self, store: AbstractEventStore, checkpoints: AbstractCheckpointStore
    ) -> None:
        """Another projection of the manager is not affected."""
        broken, whole = Recorder(), Recorder("other")
        broken.failing = "bad"
        manager = ProjectionManager(store, checkpoints)
        manager.register(broken)
        manager.register(whole)
        await store.append("s", added("a", "b", "bad", "c"))
        async with manager:
            with pytest.raises(ProjectionBuildError, match="the read model is away"):
                await manager.wait_for("recorder", 4, timeout=_SECONDS)
            await manager.wait_for("other", 4, timeout=_SECONDS)
            assert (broken.seen, whole.seen) == ([1, 2], [1, 2, 3, 4])
            broken.failing = None
            assert manager.resume("recorder")
            await manager.wait_for("recorder", 4, timeout=_SECONDS)
        assert broken.seen == [1, 2, 3, 4]

    async def test_a_crash_repeats_at_most_the_checkpoint_interval(
        self, store: AbstractEventStore, checkpoints: AbstractCheckpointStore
    ) -> None:
        """Nothing is skipped; what comes again is what followed the last stored position."""
        await store.append("s", added(*["x"] * 20))
        config, first = ProjectionConfig(batch_size=5, checkpoint_interval=5), Recorder()
        first.failing = "gone"
        manager = ProjectionManager(store, checkpoints, config=config)
        manager.register(first)
        await manager.start()
        await manager.wait_for("recorder", 20, timeout=_SECONDS)
        await store.append("s", added("x", "x", "gone"))
        with pytest.raises(ProjectionBuildError):
            await manager.wait_for("recorder", 23, timeout=_SECONDS)
        stored = await checkpoints.get_checkpoint("recorder")  # as a process that dies now would leave it
        again = Recorder()
        other = ProjectionManager(store, checkpoints, config=config)
        other.register(again)
        await manager.stop()
        await checkpoints.save_checkpoint("recorder", stored)
        async with other:
            await other.wait_for("recorder", 23, timeout=_SECONDS)
        assert again.seen == list(range(stored + 1, 24))
        assert 20 - 5 <= stored <= 22

    async def test_a_rebuild_starts_from_nothing_and_goes_on_live(
        self, store: AbstractEventStore, checkpoints: AbstractCheckpointStore
    ) -> None:
        """The read model is emptied first; what is appended afterwards arrives too."""
        recorder, progress = Recorder(), list[tuple[int, int]]()
        manager = ProjectionManager(store, checkpoints, config=ProjectionConfig(rebuild_batch_size=4))
        manager.register(recorder)
        await store.append("s", added(*["x"] * 10))
        async with manager:
            await manager.wait_for("recorder", 10, timeout=_SECONDS)
            assert await manager.rebuild("recorder", on_progress=lambda *step: progress.append(step)) == 10
            assert recorder.seen == list(range(1, 11))
            assert progress[-1] == (10, 10)
            await store.append("s", added("y"))
            await manager.wait_for("recorder", 11, timeout=_SECONDS)
        assert recorder.seen == list(range(1, 12))

    async def test_workers_share_it_and_take_over_from_each_other(
        self, store: AbstractEventStore, checkpoints: AbstractCheckpointStore
    ) -> None:
        """With partitions each event is applied by one of them, each stream in order; what one leaves another goes on with."""
        seen: list[int] = []
        config = ProjectionConfig(shared=True, partitions=3, lease_seconds=1.0)
        workers: list[ProjectionManager] = []
        for _ in range(2):
            worker = ProjectionManager(store, checkpoints, config=config)
            worker.register(Recorder(seen=seen))
            await worker.start()
            workers.append(worker)
        streams: dict[str, list[int]] = {f"s-{number}": [] for number in range(6)}

        async def write(count: int) -> None:
            for _ in range(count):
                for stream in streams:
                    await store.append(stream, added("x"))

        try:
            await write(3)
            await workers[1].wait_for("recorder", await store.head(), timeout=_SECONDS)
            await workers.pop(0).stop()
            await write(3)
            await workers[0].wait_for("recorder", await store.head(), timeout=_SECONDS)
        finally:
            for worker in workers:
                await worker.stop()
        assert sorted(seen) == list(range(1, 6 * 6 + 1))
        for stream in streams:
            own: list[Any] = [event.sequence_number for event in await store.read(stream)]
            assert [position for position in seen if position in own] == own
