"""Read-only and generic repositories."""

from __future__ import annotations

import dataclasses as dc
from typing import Any
from uuid import uuid4

import pytest

from lexigram.contracts.events.protocols.store import EventSourcedReadRepositoryProtocol
from lexigram.events import (
    AbstractReadOnlyRepository,
    ConcurrencyError,
    EventSourcingRepository,
    ReadOnlyRepositoryProtocol,
    RepositoryProtocol,
)
from lexigram.events.repository.generic import GenericEventSourcingRepository, InMemoryRepository
from lexigram.events.repository.read_only import ReadOnlyEventSourcingRepository
from tests.unit.aggregates.domain import Counter, Line, Money, Order


@dc.dataclass
class AtLeast:
    """A specification."""

    minimum: int

    def is_satisfied_by(self, candidate: Any) -> bool:
        return bool(candidate.count >= self.minimum)


@pytest.fixture
async def filled(event_store: Any) -> Any:
    """Counters "a" to "e" with counts 0 to 4 times two, and an order."""
    repository = EventSourcingRepository(Counter, event_store)
    for number, name in enumerate("abcde"):
        counter = Counter(id=name)
        counter.add(number * 2)
        await repository.save(counter)
    order = Order(id="order")
    order.add("x")
    await EventSourcingRepository(Order, event_store).save(order)
    return event_store


def test_they_are_what_the_contracts_ask_for(event_store: Any) -> None:
    """Both the event-sourcing and the generic protocol hold."""
    read_only = ReadOnlyEventSourcingRepository(Counter, event_store)
    generic = GenericEventSourcingRepository(Counter, event_store)
    assert isinstance(read_only, AbstractReadOnlyRepository)
    assert isinstance(read_only, ReadOnlyRepositoryProtocol)
    assert isinstance(read_only, EventSourcedReadRepositoryProtocol)
    assert not hasattr(read_only, "save")
    assert isinstance(generic, RepositoryProtocol)
    assert isinstance(InMemoryRepository(), RepositoryProtocol)


async def test_reading_only(filled: Any) -> None:
    """One, all, some, matching, counted."""
    repository = ReadOnlyEventSourcingRepository(Counter, filled)
    assert (await repository.get("c")).count == 4  # type: ignore[union-attr]
    assert await repository.get("z") is None
    assert await repository.exists("a")
    assert not await repository.exists("z")
    assert [c.id for c in await repository.get_all()] == list("abcde")
    assert [c.id for c in await repository.list(skip=1, limit=2)] == ["b", "c"]
    assert [c.id for c in await repository.list(count=6)] == ["d"]
    assert await repository.list(limit=0, count=6) == []
    assert await repository.list(skip=1, count=6) == []
    assert [c.id for c in await repository.find_by_spec(AtLeast(5))] == ["d", "e"]
    assert (await repository.count(), await repository.count(count=6), await repository.count(count=5)) == (5, 1, 0)


async def test_saving_several_aggregates_is_all_or_nothing(filled: Any) -> None:
    """A conflict on one of them leaves all of them unsaved."""
    repository = GenericEventSourcingRepository(Counter, filled)
    one, other, rival = [await repository.get(name) for name in ("a", "b", "b")]
    one.add(), other.add(), rival.add()
    assert await repository.save(rival) is rival
    with pytest.raises(ConcurrencyError):
        await repository.save_many([one, other])
    assert [(await repository.get(name)).version for name in ("a", "b")] == [1, 2]
    fresh = [await repository.get(name) for name in ("a", "b")]
    for counter in fresh:
        counter.add()
    assert await repository.save_many(fresh) == fresh
    assert [(await repository.get(name)).version for name in ("a", "b")] == [2, 3]


async def test_deleting(filled: Any, snapshot_store: Any) -> None:
    """Events and snapshots are gone, the answer says whether there were any."""
    repository = GenericEventSourcingRepository(Counter, filled, snapshot_store, snapshot_every=1)
    counter = await repository.get("a")
    counter.add()
    await repository.save(counter)
    assert await repository.delete("a")
    assert not await repository.delete("a")
    assert await repository.get("a") is None
    assert await snapshot_store.get_latest("a") is None
    assert await repository.delete_many(["a", "b", "c"]) == 2
    assert [c.id for c in await repository.list()] == ["d", "e"]


async def test_objects_in_memory() -> None:
    """Copies in and out, filters, specifications, ids of any type."""
    repository: InMemoryRepository[Line] = InMemoryRepository()
    key = uuid4()
    line = Line(key, "apple", 1, Money(1))
    assert await repository.save(line) is line
    line.quantity = 9
    kept = await repository.get(str(key))
    assert kept is not None
    assert kept.quantity == 1
    await repository.save_many([Line("b", "pear", 2, Money(2)), Line("c", "pear", 3, Money(3))])
    assert [item.id for item in await repository.list(sku="pear")] == ["b", "c"]
    assert [item.id for item in await repository.list(skip=1, limit=1)] == ["b"]
    assert (await repository.count(), await repository.count(sku="pear")) == (3, 2)

    class Heavy:
        def is_satisfied_by(self, candidate: Line) -> bool:
            return candidate.quantity > 2

    assert [item.id for item in await repository.find_by_spec(Heavy())] == ["c"]  # type: ignore[arg-type]
    assert await repository.delete(key)
    assert await repository.delete_many([key, "b", "c"]) == 2
    assert await repository.get(key) is None
