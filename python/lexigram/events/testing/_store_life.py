"""Life cycle, protocols, hooks, schema evolution and units of work."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any

import pytest

from lexigram.contracts.core.health import HealthStatus
from lexigram.contracts.events.protocols.store import EventReplayProtocol, EventStoreProtocol
from lexigram.events.exceptions import ConcurrencyError, EventError
from lexigram.events.hooks import EventStoredHook
from lexigram.events.messages.event import DomainEvent
from lexigram.events.schema.evolution import SchemaEvolution, Upcaster
from lexigram.events.schema.models import EventSchema
from lexigram.events.schema.registry import SchemaRegistry
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.testing.samples import ItemAdded, added, collect, positions, skus, versions

if TYPE_CHECKING:
    from lexigram.events.stores.base import AbstractEventStore


class PriceSet(DomainEvent):
    """An event whose second schema version has a currency."""

    amount: int
    currency: str = "none"


class PriceSetWithCurrency(DomainEvent):
    """The class of the second schema version where the two are different classes; it requires the new field."""

    amount: int
    currency: str


class _AddCurrency(Upcaster):
    event_type = "PriceSet"
    from_version = 1
    to_version = 2

    async def upcast(self, data: dict[str, Any]) -> dict[str, Any]:
        if data["amount"] == 13:
            raise RuntimeError("unlucky")
        return {**data, "currency": "EUR"}


async def _evolution(second: type[Any] = PriceSet) -> SchemaEvolution:
    registry = SchemaRegistry(enforce_compatibility=False)
    for version, cls in ((1, PriceSet), (2, second)):
        await registry.register_schema(EventSchema(event_type="PriceSet", version=version, event_class=cls))
    evolution = SchemaEvolution(registry)
    evolution.register_upcaster(_AddCurrency())
    return evolution


class _Hooks:
    """Records the hooks fired."""

    def __init__(self) -> None:
        self.fired: list[tuple[str, Any]] = []

    def has_action(self, hook_name: str) -> bool:
        return hook_name == EventStoredHook.name

    async def call_action(self, hook_name: str, **kwargs: Any) -> None:
        self.fired.append((hook_name, kwargs["payload"]))


class LifeContract:
    """What opening, closing and the seams promise."""

    async def make_store(self, **options: Any) -> AbstractEventStore:
        """Written by the suite's user."""
        raise AssertionError

    async def test_it_fulfils_the_frameworks_protocols(self, store: AbstractEventStore) -> None:
        """isinstance holds at runtime."""
        assert isinstance(store, EventStoreProtocol)
        assert isinstance(store, EventReplayProtocol)

    async def test_it_is_its_own_context_manager(self) -> None:
        """`async with` opens and closes; closing twice and connecting twice are harmless."""
        store = await self.make_store()
        async with store as entered:
            assert entered is store
            await store.connect()
            await store.append("a", added("1"))
        await store.close()
        await store.close()

    async def test_health_is_reported_not_raised(self, store: AbstractEventStore) -> None:
        """A working store is healthy and says how long it took."""
        result = await store.health_check(timeout=5.0)
        assert result.status is HealthStatus.HEALTHY
        assert result.component == "event_store"
        assert result.duration_ms >= 0

    async def test_the_stored_hook_fires_for_each_event(self, store: AbstractEventStore) -> None:
        """After the append, with type and stream; not after a conflict."""
        hooks = _Hooks()
        store.set_hook_registry(hooks)  # type: ignore[arg-type]
        await store.append("a", added("1", "2"))
        with pytest.raises(ConcurrencyError):
            await store.append("a", added("3"), expected_version=0)
        full = f"{ItemAdded.__module__}.{ItemAdded.__name__}"
        assert hooks.fired == [(EventStoredHook.name, EventStoredHook(event_type=full, stream_id="a"))] * 2

    async def test_older_events_are_converted_on_every_way_of_reading(self) -> None:
        """read, read_all, stream_all, by type, query and subscribe all return the latest schema."""
        async with await self.make_store(schema_evolution=await _evolution()) as store:
            await store.append("a", [PriceSet(amount=1), PriceSet(amount=2, currency="USD", schema_version=2)])
            subscribed = store.subscribe()
            ways = {
                "read": await store.read("a"),
                "read_all": await store.read_all(),
                "stream_all": await collect(store.stream_all()),
                "by_type": await collect(store.stream_by_type(PriceSet)),
                "query": await store.query(PriceSet),
                "since": await store.find_events_since(0),
                "subscribe": [await anext(aiter(subscribed)), await anext(aiter(subscribed))],
            }
            await subscribed.aclose()  # type: ignore[attr-defined]
            for way, events in ways.items():
                assert [event.currency for event in events] == ["EUR", "USD"], way
                assert [event.schema_version for event in events] == [2, 2], way
                assert versions(events) == positions(events) == [1, 2], way

    async def test_an_older_event_becomes_one_of_the_newer_class(self) -> None:
        """Data is converted before the object is built, so the newer class may require what the older one lacks."""
        async with await self.make_store(schema_evolution=await _evolution(PriceSetWithCurrency)) as store:
            written = PriceSet(amount=1)
            await store.append("a", [written])
            for events in (await store.read("a"), await store.read_all(), await store.query(PriceSet)):
                (event,) = events
                assert type(event) is PriceSetWithCurrency
                assert (event.amount, event.currency, event.schema_version) == (1, "EUR", 2)
                assert (event.event_id, event.version, event.sequence_number) == (written.event_id, 1, 1)

    async def test_a_failing_upcaster_raises(self) -> None:
        """Nothing is skipped and nothing passed on unconverted."""
        async with await self.make_store(schema_evolution=await _evolution()) as store:
            await store.append("a", [PriceSet(amount=1), PriceSet(amount=13)])
            with pytest.raises(EventError, match="unlucky"):
                await store.read("a")
            with pytest.raises(EventError, match="unlucky"):
                await collect(store.stream_all())


class UnitOfWorkContract:
    """What `unit_of_work` promises."""

    async def test_appends_become_visible_together_at_the_end(self, store: AbstractEventStore) -> None:
        """Inside, nobody sees them and they are not stamped; afterwards all are there."""
        first, second = added("1"), added("2", "3")
        async with store.unit_of_work():
            assert await store.append("a", first, expected_version=0) == 1
            assert await store.append("b", second) == 2
            assert await store.append("a", added("4"), expected_version=1) == 2
            assert first[0].sequence_number is None
            assert await asyncio.create_task(_outside(store)) == 0
        assert skus(await store.read_all()) == ["1", "2", "3", "4"]
        assert positions(first + second) == [1, 2, 3]
        assert versions(first + second) == [1, 1, 2]

    @pytest.mark.parametrize("error", [RuntimeError("no"), asyncio.CancelledError(), KeyboardInterrupt()])
    async def test_any_exception_rolls_everything_back(self, store: AbstractEventStore, error: BaseException) -> None:
        """Cancellation included; events stay fresh and can be appended later."""
        events = added("1")
        with pytest.raises(type(error)):
            async with store.unit_of_work():
                await store.append("a", events)
                raise error
        assert await store.head() == 0
        assert events[0].sequence_number is None
        assert await store.append("a", events, expected_version=0) == 1

    async def test_a_conflict_inside_is_raised_at_once(self, store: AbstractEventStore) -> None:
        """Expected versions count what the unit of work has appended itself."""
        await store.append("a", added("0"))
        with pytest.raises(ConcurrencyError) as caught:
            async with store.unit_of_work():
                await store.append("a", added("1"), expected_version=1)
                await store.append("a", added("2"), expected_version=1)
        assert (caught.value.expected_version, caught.value.actual_version) == (1, 2)
        assert skus(await store.read("a")) == ["0"]

    async def test_conditions_hold_inside(self, store: AbstractEventStore) -> None:
        """A condition also sees what the unit of work itself appended before."""
        condition = AppendCondition(EventQuery(tags="x"))
        with pytest.raises(ConcurrencyError):
            async with store.unit_of_work():
                await store.append("a", added("1", tags=["x"]), condition=condition)
                await store.append("b", added("2", tags=["x"]), condition=condition)
        assert await store.head() == 0

    async def test_an_inner_block_joins_the_outer_one(self, store: AbstractEventStore) -> None:
        """Its appends are committed, or rolled back, with the outer block."""
        with pytest.raises(RuntimeError):
            async with store.unit_of_work():
                async with store.unit_of_work():
                    await store.append("a", added("1"))
                raise RuntimeError
        assert await store.head() == 0
        async with store.unit_of_work():
            async with store.unit_of_work():
                await store.append("a", added("1"))
            await store.append("b", added("2"))
        assert await store.head() == 2

    async def test_appends_from_elsewhere_meanwhile_are_kept(self, store: AbstractEventStore) -> None:
        """They come before or after the unit's own, and nothing is lost or numbered twice."""
        async with store.unit_of_work():
            await store.append("a", added("1"))
            elsewhere = asyncio.create_task(store.append("b", added("2")), context=Context())
            await asyncio.sleep(0.05)
            await store.append("a", added("3"))
        assert await elsewhere == 1
        assert skus(await store.read("a")) == ["1", "3"]
        assert skus(await store.read("b")) == ["2"]
        assert positions(await store.read_all()) == [1, 2, 3]

    async def test_tasks_inside_take_turns(self, store: AbstractEventStore) -> None:
        """Each append sees what the others have appended: versions are given once, and one expectation holds."""
        async with store.unit_of_work():
            assert sorted(await asyncio.gather(*(store.append("a", added(str(n))) for n in range(5)))) == [
                1,
                2,
                3,
                4,
                5,
            ]
            racing = (store.append("b", added(str(n)), expected_version=0) for n in range(3))
            answers = await asyncio.gather(*racing, return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == [
                "ConcurrencyError",
                "ConcurrencyError",
                "int",
            ]
        assert await store.head() == 6

    async def test_what_was_stored_before_is_not_counted_again(self, store: AbstractEventStore) -> None:
        """A unit that repeats an append and goes on after it expects the versions that there are."""
        first, second = added("1"), added("2")
        await store.append("a", first)
        async with store.unit_of_work():
            assert await store.append("a", first, expected_version=0) == 1
            assert await store.append("a", second, expected_version=1) == 2
            assert await store.append("a", added("3")) == 3
        assert skus(await store.read("a")) == ["1", "2", "3"]
        assert second[0].version == 2

    async def test_callbacks_run_after_commit_only(self, store: AbstractEventStore) -> None:
        """`on_commit` in order after a commit, `on_rollback` after a rollback."""
        calls: list[str] = []
        async with store.unit_of_work() as unit:
            unit.on_commit(lambda: calls.append("first"))
            unit.on_commit(lambda: calls.append("second"))
            unit.on_rollback(lambda: calls.append("never"))
            assert calls == []
        assert calls == ["first", "second"]
        with pytest.raises(RuntimeError):
            async with store.unit_of_work() as unit:
                unit.on_commit(lambda: calls.append("never"))
                unit.on_rollback(lambda: calls.append("undone"))
                raise RuntimeError
        assert calls == ["first", "second", "undone"]

    async def test_a_subscriber_is_woken_by_the_commit(self, store: AbstractEventStore) -> None:
        """Not before it, and once for all."""
        store.poll_interval_seconds = 60.0
        waiting = asyncio.create_task(store.wait_for_events(0, 30.0))
        await asyncio.sleep(0.02)
        async with store.unit_of_work():
            await store.append("a", added("1"))
            await asyncio.sleep(0.02)
            assert not waiting.done()
        assert await asyncio.wait_for(waiting, 5)


async def _outside(store: AbstractEventStore) -> int:
    return len(await store.read_all())
