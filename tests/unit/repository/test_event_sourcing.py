"""Loading and saving aggregates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import pytest

from lexigram.contracts.core.result import Err, Ok
from lexigram.contracts.events.protocols.store import EventSourcedRepositoryProtocol
from lexigram.events import (
    AggregateNotFoundError,
    AggregateRoot,
    ConcurrencyError,
    DomainEvent,
    EventCountPolicy,
    EventError,
    EventLoadError,
    EventSourcingRepository,
    EventValidationError,
    OnDemandPolicy,
    VersionedAggregateRoot,
)
from lexigram.events.repository.base import AbstractRepository
from lexigram.events.stores.memory import InMemoryEventStore
from tests.unit.aggregates.domain import Counter, ItemAdded, Order, OrderCancelled, Unheard


class Bus:
    """Remembers what is published; fails as told."""

    def __init__(self, outcome: Callable[[], Any] = lambda: Ok(None)) -> None:
        self.published: list[Any] = []
        self.outcome = outcome

    async def publish(self, events: list[Any]) -> Any:
        self.published.extend(events)
        return self.outcome()


def broken() -> Any:
    raise RuntimeError("the bus is down")


class Owned(VersionedAggregateRoot):
    allow_unhandled_events = True
    owner: str


T = TypeVar("T")


class Box(AggregateRoot, Generic[T]):
    allow_unhandled_events = True
    content: T | None = None


async def test_a_repository_may_name_the_type_arguments_of_its_aggregate() -> None:
    """`Box[int]` is a `Box`."""
    boxes = EventSourcingRepository(Box[int], InMemoryEventStore())
    box = Box[int](id="b")
    box._apply(Unheard())
    await boxes.save(box)
    assert type(await boxes.get_or_raise("b")) is Box


@pytest.mark.parametrize("make_id", [uuid4, lambda: str(uuid4()), lambda: "order-1"])
async def test_an_aggregate_comes_back_under_the_id_it_was_asked_for(event_store: Any, make_id: Any) -> None:
    """UUID or str, with the type that was asked for; and the change after it can be saved, again and again."""
    repository = EventSourcingRepository(Order, event_store)
    order_id = make_id()
    order = Order(id=order_id)
    order.add("apple", 2, Decimal("1.50"))
    await repository.save(order)
    for round_ in range(1, 6):
        loaded = await repository.get(order_id)
        assert loaded is not None
        assert (loaded.id, type(loaded.id), loaded.version) == (order_id, type(order_id), round_)
        assert type((await repository.get_or_raise(str(order_id))).id) is str
        loaded.add("pear")
        await repository.save(loaded)
    assert [event.version for event in await event_store.read(str(order_id))] == [1, 2, 3, 4, 5, 6]


async def test_what_is_not_there_is_none_or_an_error(event_store: Any, snapshot_store: Any) -> None:
    """`get` returns None, `get_or_raise` raises with class and id, `exists` is False."""
    repository = EventSourcingRepository(Order, event_store, snapshot_store)
    assert await repository.get("none") is None
    assert not await repository.exists("none")
    with pytest.raises(AggregateNotFoundError, match="no Order with id 'none'"):
        await repository.get_or_raise("none")


async def test_saving_clears_publishes_and_counts(event_store: Any) -> None:
    """The bus gets the stored events as one list, stamped; nothing is pending afterwards."""
    bus = Bus()
    repository = EventSourcingRepository(Counter, event_store, event_bus=bus)
    counter = Counter(id="c")
    counter.add(), counter.add()
    await repository.save(counter)
    assert [(event.version, event.sequence_number) for event in bus.published] == [(1, 1), (2, 2)]
    assert (counter.version, counter.expected_version, counter.has_uncommitted_events) == (2, 2, False)
    counter.add()
    await repository.save(counter)
    await repository.save(counter)
    assert len(bus.published) == 3
    assert await event_store.get_stream_version("c") == 3


async def test_a_conflict_writes_nothing_and_keeps_the_pending_events(event_store: Any) -> None:
    """The later of two saves of the same version raises with both versions; it can be retried on a fresh load."""
    repository = EventSourcingRepository(Counter, event_store)
    first = Counter(id="c")
    first.add()
    await repository.save(first)
    one, other = await repository.get_or_raise("c"), await repository.get_or_raise("c")
    one.add(10)
    other.add(5), other.add(5)
    await repository.save(one)
    with pytest.raises(ConcurrencyError) as caught:
        await repository.save(other)
    assert (caught.value.expected_version, caught.value.actual_version) == (1, 2)
    assert [event.quantity for event in other.pull_events()] == [5, 5]
    assert await event_store.get_stream_version("c") == 2


async def test_two_new_aggregates_with_one_id_conflict(event_store: Any) -> None:
    """A new aggregate expects that there is no stream."""
    repository = EventSourcingRepository(Counter, event_store)
    for expected in (None, ConcurrencyError):
        counter = Counter(id="c")
        counter.add()
        if expected is None:
            await repository.save(counter)
        else:
            with pytest.raises(expected):
                await repository.save(counter)


async def test_the_caller_can_say_which_version_it_saw(event_store: Any) -> None:
    """`set_expected_version` other than the loaded version fails before anything is written."""
    repository = EventSourcingRepository(Owned, event_store)
    owned = Owned(id="o", owner="me")
    owned._apply(Unheard())
    owned.set_expected_version(0)
    await repository.save(owned)
    loaded = await repository.get_or_raise("o")
    loaded._apply(Unheard())
    loaded.set_expected_version(7)
    with pytest.raises(ConcurrencyError) as caught:
        await repository.save(loaded)
    assert (caught.value.expected_version, caught.value.actual_version) == (7, 1)
    loaded.set_expected_version(1)
    await repository.save(loaded)
    assert loaded.version == 2


@pytest.mark.parametrize("outcome", [broken, lambda: Err(EventError("no handlers"))])
async def test_if_publishing_fails_the_events_are_committed(
    event_store: Any, outcome: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The save has succeeded, nothing is pending, and the failure is logged as an error."""
    repository = EventSourcingRepository(Counter, event_store, event_bus=Bus(outcome))
    counter = Counter(id="c")
    counter.add()
    with caplog.at_level(logging.ERROR):
        await repository.save(counter)
    assert await event_store.get_stream_version("c") == 1
    assert counter.pull_events() == []
    assert any("c are saved but" in record.message for record in caplog.records)


async def test_exists_reads_no_events(event_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constant cost, whatever the history."""
    repository = EventSourcingRepository(Counter, event_store)
    counter = Counter(id="c")
    counter.add()
    await repository.save(counter)

    async def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("events were read")

    monkeypatch.setattr(event_store, "_read", forbidden)
    monkeypatch.setattr(event_store, "_read_all", forbidden)
    assert await repository.exists("c")
    assert not await repository.exists("d")


async def test_a_replay_failure_names_stream_version_and_event(event_store: Any) -> None:
    """And no aggregate is returned."""
    await event_store.append("o-1", [ItemAdded(sku="a"), OrderCancelled(reason="boom"), ItemAdded(sku="b")])
    with pytest.raises(EventLoadError) as caught:
        await EventSourcingRepository(Order, event_store).get("o-1")
    assert caught.value.details == {"stream_id": "o-1", "version": 2, "event_type": "OrderCancelled"}


async def test_a_stream_without_its_beginning_cannot_be_loaded(event_store: Any, snapshot_store: Any) -> None:
    """Unless a snapshot covers what is gone; also if everything is gone."""
    repository = EventSourcingRepository(Counter, event_store, snapshot_store, snapshot_policy=OnDemandPolicy())
    counter = Counter(id="c")
    for _ in range(6):
        counter.add()
    await repository.save(counter)
    await event_store.compact("c", 3)
    with pytest.raises(EventLoadError, match="does not continue"):
        await repository.get("c")
    await event_store.compact("c", 6)
    with pytest.raises(EventLoadError, match="all 6 events"):
        await repository.get("c")
    await repository.force_snapshot(counter)
    loaded = await repository.get_or_raise("c")
    assert (loaded.count, loaded.version) == (6, 6)
    assert await repository.exists("c")
    loaded.add()
    await repository.save(loaded)
    assert (await repository.get_or_raise("c")).count == 7


async def test_the_pending_events_survive_a_failed_append(event_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the store raises, the aggregate can be saved again."""
    repository = EventSourcingRepository(Counter, event_store)
    counter = Counter(id="c")
    counter.add()
    with monkeypatch.context() as patch:

        async def fail(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("disk full")

        patch.setattr(event_store, "append", fail)
        with pytest.raises(RuntimeError, match="disk full"):
            await repository.save(counter)
    assert len(counter.pull_events()) == 1
    await repository.save(counter)
    assert await event_store.get_stream_version("c") == 1


async def test_saving_again_after_an_unknown_outcome_stores_nothing_twice(event_store: Any) -> None:
    """The append happened, its answer was lost: the same events are saved again and are there once."""
    repository = EventSourcingRepository(Counter, event_store)
    counter = Counter(id="c")
    counter.add()
    await event_store.append("c", counter.pull_events(), 0)
    await repository.save(counter)
    assert await event_store.get_stream_version("c") == 1
    assert (await repository.get_or_raise("c")).count == 1


async def test_inside_a_unit_of_work_publishing_waits_for_the_commit(event_store: Any, snapshot_store: Any) -> None:
    """After a rollback nothing was stored, published or snapshotted."""
    bus = Bus()
    repository = EventSourcingRepository(Counter, event_store, snapshot_store, bus, EventCountPolicy(1))
    counter = Counter(id="c")
    counter.add()
    with pytest.raises(RuntimeError):
        async with event_store.unit_of_work():
            await repository.save(counter)
            raise RuntimeError("changed my mind")
    assert bus.published == []
    assert await snapshot_store.get_latest("c") is None
    assert not await repository.exists("c")
    counter = Counter(id="c")
    counter.add()
    async with event_store.unit_of_work():
        await repository.save(counter)
        assert bus.published == []
    assert [event.version for event in bus.published] == [1]
    latest = await snapshot_store.get_latest("c")
    assert latest is not None
    assert latest.version == 1


async def test_outbox_rows_are_written_in_the_transaction_of_the_append(event_store: Any) -> None:
    """If they cannot be written, the events are not stored either and stay pending."""

    class Outbox:
        rows: list[Any] = []
        fails = True

        async def append_batch(self, events: list[Any]) -> None:
            if self.fails:
                raise RuntimeError("outbox full")
            self.rows.extend(events)

    outbox = Outbox()
    repository = EventSourcingRepository(Counter, event_store, outbox=outbox)
    counter = Counter(id="c")
    counter.add()
    with pytest.raises(RuntimeError, match="outbox full"):
        await repository.save(counter)
    assert not await repository.exists("c")
    assert len(counter.pull_events()) == 1
    outbox.fails = False
    await repository.save(counter)
    assert await repository.exists("c")
    assert [event.sku for event in outbox.rows] == ["x"]


async def test_of_many_racing_saves_exactly_one_wins(event_store: Any, snapshot_store: Any) -> None:
    """The others raise `ConcurrencyError` and can be repeated on what is there then, until all have happened."""
    repository = EventSourcingRepository(Counter, event_store, snapshot_store, snapshot_every=7)
    counter = Counter(id="c")
    counter.add()
    await repository.save(counter)
    won: list[int] = []

    async def add_one(task: int) -> None:
        while True:
            mine = await repository.get_or_raise("c")
            mine.add()
            try:
                await repository.save(mine)
            except ConcurrencyError:
                continue
            won.append(mine.version)
            return

    await asyncio.gather(*(add_one(task) for task in range(20)))
    assert sorted(won) == list(range(2, 22))
    assert (await repository.get_or_raise("c")).count == 21


async def test_saves_are_published_in_the_order_of_the_stream(
    event_store: Any, snapshot_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow snapshot of one save does not let a later save of the same aggregate overtake it on the bus."""
    bus, original = Bus(), snapshot_store.save_snapshot

    async def slow(snapshot: Any) -> None:
        await asyncio.sleep(0.02)
        await original(snapshot)

    monkeypatch.setattr(snapshot_store, "save_snapshot", slow)
    repository = EventSourcingRepository(Counter, event_store, snapshot_store, bus, EventCountPolicy(1))
    counter = Counter(id="c")
    counter.add()
    first = asyncio.create_task(repository.save(counter))
    while not await event_store.stream_exists("c"):
        await asyncio.sleep(0)
    later = await repository.get_or_raise("c")
    later.add()
    await repository.save(later)
    await first
    assert [event.version for event in bus.published] == [1, 2]


async def test_all_aggregates_of_the_class(event_store: Any) -> None:
    """In order of their ids, in pages, with UUID ids as UUID; other classes in the same store are left out."""
    counters, orders = EventSourcingRepository(Counter, event_store), EventSourcingRepository(Order, event_store)
    ids = sorted((uuid4() for _ in range(5)), key=str)
    for counter_id in ids:
        counter = Counter(id=counter_id)
        counter.add()
        await counters.save(counter)
        order = Order(id=f"order-{counter_id}")
        order.add("a")
        await orders.save(order)
    assert [counter.id for counter in await counters.get_all()] == ids
    assert [counter.id for counter in await counters.get_all(limit=2, offset=1)] == ids[1:3]
    assert await counters.get_all(limit=0) == []
    assert await counters.get_all(offset=9) == []
    assert len(await orders.get_all()) == 5
    for bad in ({"limit": -1}, {"offset": -1}, {"limit": True}):
        with pytest.raises(EventValidationError):
            await counters.get_all(**bad)


async def test_wrong_arguments_are_named(event_store: Any) -> None:
    """Another class, no id, not an aggregate class, an impossible threshold."""
    repository = EventSourcingRepository(Counter, event_store)
    with pytest.raises(EventValidationError, match="saves Counter, not Order"):
        await repository.save(Order(id="o"))  # type: ignore[arg-type]
    nameless = Counter()
    nameless.id = None
    with pytest.raises(EventValidationError) as caught:
        await repository.save(nameless)
    assert caught.value.field == "aggregate.id"
    with pytest.raises(EventValidationError, match="AggregateRoot"):
        EventSourcingRepository(dict, event_store)  # type: ignore[type-var]
    with pytest.raises(EventValidationError, match="snapshot_every"):
        EventSourcingRepository(Counter, event_store, snapshot_every=0)
    with pytest.raises(EventValidationError, match="no snapshot store"):
        await repository.force_snapshot(Counter(id="c"))


async def test_required_fields_are_set_by_the_first_event(event_store: Any) -> None:
    """A repository makes aggregates without values for them; a factory can be given instead."""

    class Renamed(DomainEvent):
        name: str

    class Person(AggregateRoot):
        name: str

        def _handle_renamed(self, event: Renamed) -> None:
            self.name = event.name

    made: list[UUID | str] = []

    def factory(aggregate_id: UUID | str) -> Person:
        made.append(aggregate_id)
        return Person(id=aggregate_id, name="?")

    class Factory:
        def create(self, aggregate_id: UUID | str) -> Person:
            return factory(aggregate_id)

    await event_store.append("p", [Renamed(name="Ada")])
    for chosen in (None, factory, Factory()):
        person = await EventSourcingRepository(Person, event_store, factory=chosen).get_or_raise("p")
        assert (person.id, person.name) == ("p", "Ada")
    assert made == ["p", "p"]


async def test_any_store_of_the_contract_will_do() -> None:
    """Only `append`, `read(start, count)` and `save`/`load` of the contracts are needed."""

    class Events:
        def __init__(self) -> None:
            self.streams: dict[str, list[Any]] = {}

        async def append(self, stream_id: str, events: list[Any], expected_version: int | None = None) -> int:
            stream = self.streams.setdefault(stream_id, [])
            assert expected_version == len(stream)
            stream.extend(events)
            return len(stream)

        async def read(self, stream_id: str, start: int = 0, count: int | None = None) -> list[Any]:
            return self.streams.get(stream_id, [])[start:][:count]

        async def read_all(self, position: int = 0, count: int | None = None) -> list[Any]:
            return []

    class Snapshots:
        def __init__(self) -> None:
            self.kept: dict[str, tuple[Any, int]] = {}

        async def save(self, aggregate_id: str, snapshot: Any, version: int) -> None:
            self.kept[aggregate_id] = (snapshot, version)

        async def load(self, aggregate_id: str) -> tuple[Any, int] | None:
            return self.kept.get(aggregate_id)

    snapshots = Snapshots()
    repository = EventSourcingRepository(Order, Events(), snapshots, snapshot_every=2)
    order = Order(id="o")
    order.add("a"), order.add("b")
    await repository.save(order)
    order.ship(datetime.now(UTC))
    await repository.save(order)
    loaded = await repository.get_or_raise("o")
    assert (loaded.status, loaded.version, snapshots.kept["o"][1]) == ("shipped", 3, 2)
    assert await repository.exists("o")
    assert await repository.get("none") is None


def test_the_repository_is_the_contracts() -> None:
    """And can be subscripted for injection."""
    assert isinstance(EventSourcingRepository(Order, InMemoryEventStore()), EventSourcedRepositoryProtocol)
    assert issubclass(EventSourcingRepository, AbstractRepository)
    assert EventSourcingRepository[Order] == EventSourcingRepository[Order]
    assert EventSourcingRepository(Order, InMemoryEventStore()).aggregate_type is Order


async def test_an_aggregate_without_id_is_not_looked_for() -> None:
    """None is no id, and must not find the stream called "None"."""
    repository = EventSourcingRepository(Order, InMemoryEventStore())
    for look in (repository.get, repository.exists, repository.get_or_raise):
        with pytest.raises(EventValidationError, match="aggregate_id"):
            await look(None)  # type: ignore[arg-type]


async def test_an_aggregate_that_begins_while_it_is_loaded_is_found() -> None:
    """A stream that was empty a moment ago has not lost its events."""

    class Late(InMemoryEventStore):
        async def read(self, *args: Any, **kwargs: Any) -> list[Any]:
            events = await super().read(*args, **kwargs)
            if not await self.get_stream_version("o"):
                await self.append("o", [ItemAdded(sku="tea")])
            return events

    order = await EventSourcingRepository(Order, Late()).get("o")
    assert order is not None
    assert order.version == 1
