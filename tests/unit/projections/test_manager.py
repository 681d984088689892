"""Events handed to projections, rebuilds, and what the manager tells."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lexigram.events.buses.dead_letter import InMemoryDeadLetterStore
from lexigram.events.config import ProjectionConfig
from lexigram.events.exceptions import EventValidationError, ProjectionNotFoundError, ProjectionRebuildError
from lexigram.events.messages.event import DomainEvent
from lexigram.events.projections.base import ProjectionProtocol
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.stores.memory import InMemoryEventStore


class Counted(DomainEvent):
    """A number came by."""

    number: int


class Ignored(DomainEvent):
    """Nobody handles this."""


class Numbers(ProjectionProtocol):
    """Keeps the numbers; refuses those in `poison`."""

    handles = (Counted,)
    in_memory = True

    def __init__(self, name: str = "numbers") -> None:
        super().__init__()
        self._given = name
        self.rows: list[int] = []
        self.calls: list[int] = []
        self.poison: set[int] = set()

    @property
    def name(self) -> str:
        return self._given

    async def apply(self, event: Counted) -> None:
        self.calls.append(event.number)
        if event.number in self.poison:
            raise ValueError(f"{event.number} is poisonous")
        self.rows.append(event.number)

    async def reset(self) -> None:
        self.rows.clear()
        await super().reset()


async def filled(count: int, **event_fields: Any) -> InMemoryEventStore:
    store = InMemoryEventStore()
    for number in range(1, count + 1):
        await store.append(f"s{number % 3}", [Counted(number=number, **event_fields)])
    return store


async def test_process_names_the_projections_that_applied_the_event() -> None:
    """Positions move; an event at or below the position is ignored, so handing it in twice has one effect."""
    manager, one, two = ProjectionManager(), Numbers("one"), Numbers("two")
    manager.register(one)
    manager.register(two)
    assert await manager.process(Counted(number=7), 1) == ["one", "two"]
    assert await manager.process(Counted(number=7), 1) == []
    assert await manager.process(Ignored(), 2) == []
    assert one.rows == two.rows == [7]
    assert one.position == 1


async def test_a_failing_projection_stops_alone_and_keeps_its_position() -> None:
    """The other one goes on; the status tells the event and the position."""
    manager, good, bad = ProjectionManager(), Numbers("good"), Numbers("bad")
    bad.poison.add(2)
    manager.register(bad)
    manager.register(good)
    counts = await manager.process_batch([(Counted(number=number), number) for number in (1, 2, 3)])
    assert counts == {"bad": 1, "good": 3}
    status = manager.get_status("bad")
    assert status is not None
    assert status["state"] == "faulted"
    assert status["position"] == 1
    assert "cannot apply Counted at position 2: ValueError: 2 is poisonous" in status["error"]
    assert bad.calls == [1, 2], "the poisonous event is tried once"
    assert await manager.process(Counted(number=4), 4) == ["good"]
    bad.poison.clear()
    assert manager.resume("bad")
    assert await manager.process_batch([(Counted(number=number), number) for number in (1, 2, 3, 4)]) == {
        "bad": 3,
        "good": 0,
    }
    assert bad.rows == [1, 2, 3, 4]


async def test_a_paused_projection_takes_nothing_until_it_is_resumed() -> None:
    """Unknown names are told apart by the return value."""
    manager, numbers = ProjectionManager(), Numbers()
    manager.register(numbers)
    assert manager.pause("numbers")
    assert not manager.pause("nope")
    assert not manager.resume("nope")
    assert await manager.process(Counted(number=1), 1) == []
    assert manager.resume("numbers")
    assert await manager.process(Counted(number=1), 1) == ["numbers"]


async def test_projections_run_after_those_they_depend_on() -> None:
    """Registration order does not matter."""
    order: list[str] = []

    class Named(ProjectionProtocol):
        def __init__(self, name: str, *after: str) -> None:
            super().__init__()
            self.given, self.depends_on = name, after  # type: ignore[misc]

        @property
        def name(self) -> str:
            return self.given

        async def apply(self, event: Any) -> None:
            order.append(self.given)

    manager = ProjectionManager()
    for projection in (Named("last", "middle"), Named("middle", "first"), Named("first")):
        manager.register(projection)
    await manager.process(Counted(number=1), 1)
    assert order == ["first", "middle", "last"]


async def test_rebuild_empties_replays_and_reports_progress() -> None:
    """The count is that of handled events; progress ends at the total."""
    store = await filled(10)
    await store.append("other", [Ignored()])
    manager, numbers = ProjectionManager(store), Numbers()
    manager.register(numbers)
    numbers.rows.append(99)
    progress: list[tuple[int, int]] = []
    assert await manager.rebuild("numbers", batch_size=4, on_progress=lambda *at: progress.append(at)) == 10
    assert numbers.rows == list(range(1, 11))
    assert progress == [(4, 11), (8, 11), (11, 11)]
    assert numbers.position == 11
    assert await manager.rebuild("numbers", from_position=8) == 2
    assert numbers.rows == [9, 10]


async def test_a_rebuild_never_skips_and_can_be_resumed() -> None:
    """Even with parking on, the failing event ends it; position and model stay for resume_rebuild."""
    store = await filled(6)
    manager = ProjectionManager(store, dead_letters=InMemoryDeadLetterStore(), on_error="park")
    numbers = Numbers()
    numbers.poison.add(4)
    manager.register(numbers)
    with pytest.raises(ProjectionRebuildError, match="position 4"):
        await manager.rebuild("numbers", batch_size=10)
    assert numbers.rows == [1, 2, 3]
    status = manager.get_status("numbers")
    assert status is not None
    assert (status["state"], status["position"]) == ("faulted", 3)
    numbers.poison.clear()
    assert await manager.resume_rebuild("numbers") == 3
    assert numbers.rows == [1, 2, 3, 4, 5, 6]


async def test_rebuild_all_and_reset_all_reach_every_projection() -> None:
    """One after the other or together."""
    store = await filled(5)
    manager, one, two = ProjectionManager(store), Numbers("one"), Numbers("two")
    manager.register(one)
    manager.register(two)
    assert await manager.rebuild_all() == {"one": 5, "two": 5}
    assert await manager.rebuild_all(parallel=True, batch_size=2) == {"one": 5, "two": 5}
    assert one.rows == two.rows == [1, 2, 3, 4, 5]
    await manager.reset_all()
    assert one.rows == two.rows == []
    assert one.position == 0


async def test_unknown_names_and_bad_arguments_are_told() -> None:
    """Each names what is registered or how to fix it."""
    manager = ProjectionManager()
    manager.register(Numbers())
    with pytest.raises(ProjectionNotFoundError, match="No projection is named 'nope'; registered: numbers"):
        await manager.wait_for("nope", 1)
    with pytest.raises(EventValidationError, match="event_store"):
        await manager.rebuild("numbers")
    with pytest.raises(EventValidationError, match="event_store"):
        await manager.start()
    with pytest.raises(EventValidationError, match="batch_size"):
        await ProjectionManager(await filled(1)).rebuild_all(batch_size=0) or await _rebuild(0)
    with pytest.raises(EventValidationError, match="dead_letters"):
        ProjectionManager(on_error="park")
    assert manager.get_status("nope") is None
    assert not manager.unregister("nope")
    assert manager.unregister("numbers")
    assert manager.get_all() == []


async def _rebuild(batch_size: int) -> None:
    manager = ProjectionManager(await filled(1), config=ProjectionConfig())
    manager.register(Numbers())
    await manager.rebuild("numbers", batch_size=batch_size)


class ContractStore:
    """Exactly the framework's `EventStoreProtocol`."""

    def __init__(self, stamps: bool) -> None:
        self.stamps = stamps
        self.log: list[Any] = []

    async def append(self, stream_id: str, events: list[Any], expected_version: int | None = None) -> int:
        for event in events:
            number = len(self.log) + 1
            self.log.append(dataclasses.replace(event, sequence_number=number) if self.stamps else event)
        return len(self.log)

    async def read(self, stream_id: str, start: int = 0, count: int | None = None) -> list[Any]:
        raise NotImplementedError

    async def read_all(self, position: int = 0, count: int | None = None) -> list[Any]:
        return self.log[position:][:count]


@pytest.mark.parametrize("stamps", [True, False])
async def test_a_store_that_is_only_the_frameworks_contract_is_enough(stamps: bool) -> None:
    """A rebuild replays all of it, and a started manager follows it, also where the store does not stamp events."""
    store = ContractStore(stamps)
    await store.append("a", [Counted(number=number) for number in range(1, 2301)])
    projection = Numbers()
    manager = ProjectionManager(store)
    manager.register(projection)
    assert await manager.rebuild("numbers", batch_size=100) == 2300
    assert projection.rows == list(range(1, 2301))
    await store.append("a", [Counted(number=2301)])
    async with manager:
        await manager.wait_for("numbers", 2301, timeout=10)
    assert projection.rows == list(range(1, 2302))
    assert projection.position == 2301
