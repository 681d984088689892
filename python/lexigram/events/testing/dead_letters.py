"""The contract suite of dead-letter stores. Subclass `DeadLetterStoreContract` and write `make_store`."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from lexigram.contracts.core.result import Err, Ok
from lexigram.events.buses.dead_letter import DeadLetterEntry, DeadLetterFilter, DeadLetterStore
from lexigram.events.buses.dead_letter_operations import DeadLetterOperations
from lexigram.events.exceptions import EventHandlerError, EventValidationError
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.testing.samples import GiftAdded, ItemAdded, refuses


class RecordingBus:
    """A bus that redelivers to one list and fails for the skus it is told to."""

    def __init__(self, *failing: str) -> None:
        self.failing = set(failing)
        self.delivered: list[tuple[str, str]] = []

    async def redeliver(self, event: Any, handler_name: str) -> Any:
        """Take a replayed event."""
        await asyncio.sleep(0)
        if event.sku in self.failing:
            cause = ValueError(f"no {event.sku}")
            return Err(EventHandlerError(ItemAdded.__name__, handler_name, str(cause), cause))
        self.delivered.append((handler_name, event.sku))
        return Ok(None)


class KilledBus(RecordingBus):
    """A bus whose process is killed after some deliveries."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    async def redeliver(self, event: Any, handler_name: str) -> Any:
        """Take a replayed event, or die."""
        if len(self.delivered) >= self.after:
            raise asyncio.CancelledError
        return await super().redeliver(event, handler_name)


def letter(sku: str, aggregate: UUID | None = None, *, handler: str = "app.mail", waiting: bool = False) -> Any:
    """Return an entry for a fresh event."""
    event = ItemAdded(sku=sku, aggregate_id=aggregate)
    return DeadLetterEntry.of(event, handler, None if waiting else ValueError("first failure"), 0 if waiting else 4)


class DeadLetterStoreContract:
    """Everything that a dead-letter store promises."""

    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make_store(self) -> DeadLetterStore:
        """Return a new, empty store."""

    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[DeadLetterStore]:
        """A new, empty store, closed after the test."""
        store = await self.make_store()
        yield store
        await store.close()

    async def test_a_store_is_opened_and_closed_by_async_with(self, store: DeadLetterStore) -> None:
        """Like every other store."""
        async with store as opened:
            assert opened is store
            await store.save(letter("1"))

    async def test_an_entry_comes_back_with_its_typed_event(self, store: DeadLetterStore) -> None:
        """Class, field types, ids, error, attempts and handler are kept."""
        aggregate = uuid4()
        event = GiftAdded(sku="1", price=Decimal("9.90"), aggregate_id=aggregate)
        entry = DeadLetterEntry.of(event, "app.mail", KeyError("smtp"), 4)
        await store.save(entry)
        kept = await store.get(entry.entry_id)
        assert kept is not None
        assert kept.event == event
        assert type(kept.event) is GiftAdded
        assert kept.event.price == Decimal("9.90")
        assert kept.event.event_id == event.event_id
        assert (kept.event_type, kept.handler_name, kept.attempts) == (GiftAdded.__name__, "app.mail", 4)
        assert (kept.error_type, kept.error) == ("KeyError", "'smtp'")
        assert kept.aggregate_id == str(aggregate)
        assert not kept.waiting
        assert not kept.replayed
        assert abs(kept.failed_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert kept.event_data["sku"] == "1"

    @pytest.mark.parametrize("error", ["a\0b", "\ud800", "x" * 100_000, "\U0001f600"])
    async def test_any_error_text_can_be_stored(self, store: DeadLetterStore, error: str) -> None:
        """What no database takes is escaped."""
        entry = DeadLetterEntry.of(ItemAdded(sku="1"), "app.mail", ValueError(error), 1)
        await store.save(entry)
        (kept,) = await store.list_entries()
        assert kept.error == entry.error
        assert kept.error in (error, r"a\x00b", r"\ud800")

    async def test_any_aggregate_id_makes_a_lane(self, store: DeadLetterStore) -> None:
        """However long it is, and whatever characters it has; different ones make different lanes."""
        long = "".join(f"{number:x}" for number in range(5_000))
        names = [long + "a", long + "b", "a\0b", "\ud800"]
        for name in names:
            event = ItemAdded(sku="1", aggregate_id=name)
            await store.save(DeadLetterEntry.of(event, "app.mail", ValueError("x"), 1))
        kept = await store.list_entries()
        assert len({entry.lane for entry in kept}) == len(names)
        assert {entry.lane for entry in kept} == set(await store.pending_lanes())
        assert [entry.event.aggregate_id for entry in kept if entry.event] == names

    async def test_positions_count_up_and_order_the_list(self, store: DeadLetterStore) -> None:
        """Saving again keeps the place; listing pages by position."""
        entries = [letter(sku) for sku in "abc"]
        for entry in entries:
            await store.save(entry)
        entries[0].error = "changed"
        await store.save(entries[0])
        listed = await store.list_entries()
        assert [entry.entry_id for entry in listed] == [entry.entry_id for entry in entries]
        assert listed[0].error == "changed"
        places = [entry.position for entry in listed]
        assert places == sorted(set(places))
        assert places[0] >= 1
        second = await store.list_entries(limit=1, after=places[0])
        assert [entry.position for entry in second] == [places[1]]

    async def test_filters_select_by_type_handler_aggregate_and_state(self, store: DeadLetterStore) -> None:
        """Listing and counting see the same entries."""
        aggregate = uuid4()
        await store.save(letter("1", aggregate))
        await store.save(letter("2", handler="app.bill"))
        gift = DeadLetterEntry.of(GiftAdded(sku="3"), "app.mail", ValueError("x"), 1)
        await store.save(gift)
        await store.mark_replayed(gift.entry_id)
        assert await store.get_count() == 3
        assert await store.get_count(GiftAdded.__name__) == 1
        assert await store.get_count(replayed=False) == 2
        assert len(await store.list_entries(event_type=ItemAdded.__name__)) == 2
        assert len(await store.list_entries(handler_name="app.bill")) == 1
        assert len(await store.list_entries(aggregate_id=str(aggregate))) == 1
        assert [entry.replayed for entry in await store.list_entries(replayed=True)] == [True]
        assert await store.count(DeadLetterFilter(handler_name="app.mail", replayed=False)) == 1
        soon, long_ago = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) - timedelta(hours=1)
        assert await store.count(DeadLetterFilter(failed_before=soon)) == 3
        assert await store.count(DeadLetterFilter(failed_before=long_ago)) == 0

    async def test_bad_arguments_are_refused_by_name(self, store: DeadLetterStore) -> None:
        """No handler name, no id, no limit."""
        await refuses(store.save(DeadLetterEntry(entry_id="x")), "handler_name")
        await refuses(store.save(DeadLetterEntry(entry_id="", handler_name="h")), "entry_id")
        await refuses(store.list_entries(limit=0), "limit")
        await refuses(store.replay_all(RecordingBus(), limit=0), "limit")
        assert await store.get_count() == 0

    async def test_deleting_tells_whether_there_was_something(self, store: DeadLetterStore) -> None:
        """The second time there is not."""
        entry = letter("1")
        await store.save(entry)
        assert await store.delete(entry.entry_id) is True
        assert await store.delete(entry.entry_id) is False
        assert await store.get(entry.entry_id) is None

    async def test_purging_needs_the_right_count(self, store: DeadLetterStore) -> None:
        """A wrong number removes nothing."""
        for sku in "abc":
            await store.save(letter(sku))
        await store.save(letter("d", handler="app.bill"))
        wanted = DeadLetterFilter(handler_name="app.mail")
        with pytest.raises(EventValidationError):
            await store.purge(wanted, expected=2)
        assert await store.get_count() == 4
        assert await store.purge(wanted, expected=await store.count(wanted)) == 3
        assert [entry.handler_name for entry in await store.list_entries()] == ["app.bill"]

    async def test_lanes_are_parked_until_all_of_it_is_replayed(self, store: DeadLetterStore) -> None:
        """Only events with an aggregate id have a lane."""
        first, second = uuid4(), uuid4()
        entries = [letter("1", first), letter("2", first, waiting=True), letter("3", second), letter("4")]
        for entry in entries:
            await store.save(entry)
        assert sorted(await store.pending_lanes()) == sorted([("app.mail", str(first)), ("app.mail", str(second))])
        assert await store.is_parked(("app.mail", str(first)))
        assert not await store.is_parked(("app.bill", str(first)))
        await store.mark_replayed(entries[0].entry_id)
        assert await store.is_parked(("app.mail", str(first)))
        await store.mark_replayed(entries[1].entry_id)
        assert not await store.is_parked(("app.mail", str(first)))
        assert await store.pending_lanes() == [("app.mail", str(second))]

    async def test_replay_hands_over_the_event_and_what_waited_behind(self, store: DeadLetterStore) -> None:
        """In order, to the handler that failed; each is marked."""
        aggregate = uuid4()
        entries = [letter("1", aggregate), letter("2", aggregate, waiting=True), letter("3", aggregate, waiting=True)]
        for entry in entries:
            await store.save(entry)
        bus = RecordingBus()
        assert await store.replay(entries[1].entry_id, bus) is False, "an earlier entry of the lane is pending"
        assert await store.replay(entries[0].entry_id, bus) is True
        assert bus.delivered == [("app.mail", "1"), ("app.mail", "2"), ("app.mail", "3")]
        assert all(entry.replayed and entry.replayed_at for entry in await store.list_entries())
        assert await store.replay(entries[0].entry_id, bus) is False, "already replayed"
        assert await store.replay("unknown", bus) is False

    async def test_a_failed_replay_keeps_the_entry_and_its_order(self, store: DeadLetterStore) -> None:
        """Error and attempts are updated; nothing behind it is tried."""
        aggregate = uuid4()
        entries = [letter("1", aggregate), letter("2", aggregate, waiting=True), letter("3", aggregate, waiting=True)]
        for entry in entries:
            await store.save(entry)
        bus = RecordingBus("2")
        assert await store.replay(entries[0].entry_id, bus) is True
        first, second, third = await store.list_entries()
        assert (first.replayed, first.attempts) == (True, 5)
        assert (second.replayed, second.attempts, second.waiting) == (False, 1, False)
        assert (second.error, second.error_type) == ("no 2", "ValueError")
        assert (third.replayed, third.attempts, third.waiting) == (False, 0, True)
        assert bus.delivered == [("app.mail", "1")]

    async def test_bulk_replay_is_bounded_and_goes_on_where_it_stopped(self, store: DeadLetterStore) -> None:
        """A dry run only counts; a failing lane blocks itself and no other."""
        one, two = uuid4(), uuid4()
        order = [("1", one), ("2", two), ("3", one), ("4", None), ("5", two)]
        for sku, aggregate in order:
            await store.save(letter(sku, aggregate, waiting=sku in "35"))
        bus = RecordingBus("1")
        dry = await store.replay_all(bus, dry_run=True)
        assert (dry.matched, dry.replayed, bus.delivered) == (5, 0, [])
        first = await store.replay_all(bus, limit=3)
        assert (first.matched, first.replayed, first.failed, first.blocked, first.finished) == (5, 1, 1, 1, False)
        second = await store.replay_all(bus, limit=3, after=first.position)
        assert (second.replayed, second.failed, second.blocked, second.finished) == (2, 0, 0, True)
        assert [sku for _, sku in bus.delivered] == ["2", "4", "5"]
        bus.failing.clear()
        third = await store.replay_all(bus)
        assert (third.matched, third.replayed, third.finished) == (2, 2, True)
        assert [sku for _, sku in bus.delivered] == ["2", "4", "5", "1", "3"]

    async def test_a_filter_cannot_change_the_order_of_a_lane(self, store: DeadLetterStore) -> None:
        """An entry behind another type's entry stays blocked."""
        aggregate = uuid4()
        await store.save(letter("1", aggregate))
        gift = DeadLetterEntry.of(GiftAdded(sku="2", aggregate_id=aggregate), "app.mail")
        await store.save(gift)
        bus = RecordingBus()
        report = await store.replay_all(bus, DeadLetterFilter(event_type=GiftAdded.__name__))
        assert (report.matched, report.replayed, report.blocked) == (1, 0, 1)
        assert bus.delivered == []

    async def test_an_edited_event_is_what_gets_replayed(self, store: DeadLetterStore) -> None:
        """The aggregate cannot be changed, a replayed entry not edited."""
        aggregate = uuid4()
        entry = letter("wrong", aggregate)
        await store.save(entry)
        with pytest.raises(EventValidationError):
            await store.edit(entry.entry_id, ItemAdded(sku="right"))
        await refuses(store.edit(entry.entry_id, {"sku": "right"}), "event")  # type: ignore[arg-type]
        edited = await store.edit(entry.entry_id, ItemAdded(sku="right", aggregate_id=aggregate))
        assert edited.position == entry.position
        bus = RecordingBus("wrong")
        assert await store.replay(entry.entry_id, bus) is True
        assert bus.delivered == [("app.mail", "right")]
        with pytest.raises(EventValidationError):
            await store.edit(entry.entry_id, ItemAdded(sku="again", aggregate_id=aggregate))

    async def test_a_bus_without_redelivery_gets_the_event_published(self, store: DeadLetterStore) -> None:
        """As programs with a bus of their own expect."""

        class OtherBus:
            def __init__(self) -> None:
                self.published: list[Any] = []

            async def publish(self, event: Any) -> Any:
                self.published.append(event)
                return Ok(None)

        entry, bus = letter("1"), OtherBus()
        await store.save(entry)
        assert await store.replay(entry.entry_id, bus) is True
        assert [event.sku for event in bus.published] == ["1"]

    async def test_two_replays_at_once_deliver_once(self, store: DeadLetterStore) -> None:
        """They take turns on the lane."""
        aggregate = uuid4()
        for sku in "123":
            await store.save(letter(sku, aggregate, waiting=sku != "1"))
        bus = RecordingBus()
        await asyncio.gather(store.replay_all(bus), store.replay_all(bus))
        assert [sku for _, sku in bus.delivered] == ["1", "2", "3"]

    async def test_failures_are_grouped(self, store: DeadLetterStore) -> None:
        """Entries with the same error, handler and event type are one group with count, times and a sample."""
        for number in range(3):
            await store.save(letter(f"a{number}"))
        await store.save(letter("b", handler="app.stock"))
        lane = uuid4()
        await store.save(letter("c", lane))
        await store.save(letter("d", lane, waiting=True))
        groups = await DeadLetterOperations(store, RecordingBus(), InMemoryCheckpointStore()).groups()
        assert [(group.error_type, group.handler_name, group.count) for group in groups] == [
            ("ValueError", "app.mail", 4),
            ("", "app.mail", 1),
            ("ValueError", "app.stock", 1),
        ]
        assert groups[0].first_seen <= groups[0].last_seen
        assert groups[0].sample is not None
        assert groups[0].sample.event.sku == "a0"  # type: ignore[union-attr]

    async def test_a_replay_goes_on_where_it_was_killed(self, store: DeadLetterStore) -> None:
        """A job is counted in advance, keeps order per aggregate, and its next call goes on at the stored place."""
        lanes = [uuid4() for _ in range(4)]
        for number in range(40):
            await store.save(letter(f"s{number:02}", lanes[number % 4]))
        bus, places = KilledBus(after=17), InMemoryCheckpointStore()
        operations = DeadLetterOperations(store, bus, places)
        assert (await operations.replay("job", dry_run=True)).total == 40
        with pytest.raises(asyncio.CancelledError):
            await operations.replay("job", page_size=10, concurrency=2)
        await store.save(letter("later", uuid4()))
        bus.after = 1000
        for name, value in (("rate_per_second", 0), ("rate_per_second", -1), ("page_size", 0), ("limit", 0)):
            await refuses(DeadLetterOperations(store, bus, places).replay("job", **{name: value}), name)  # type: ignore[arg-type]
        first = await DeadLetterOperations(store, bus, places).replay("job", page_size=10, limit=10)
        assert not first.finished
        rest = await DeadLetterOperations(store, bus, places).replay("job", page_size=10, rate_per_second=10_000)
        assert (rest.finished, rest.failed, rest.blocked) == (True, 0, 0)
        delivered = [sku for _, sku in bus.delivered]
        assert sorted(delivered) == [f"s{number:02}" for number in range(40)]
        assert all(delivered.index(f"s{n:02}") < delivered.index(f"s{n + 4:02}") for n in range(36))
        assert await store.count(DeadLetterFilter(replayed=False)) == 1

    async def test_a_replay_passes_what_fails_again(self, store: DeadLetterStore) -> None:
        """An entry that fails keeps its place and blocks only its aggregate; the job ends."""
        lane, other = uuid4(), uuid4()
        for sku, aggregate in (("bad", lane), ("behind", lane), ("good", other)):
            await store.save(letter(sku, aggregate))
        done = await DeadLetterOperations(store, RecordingBus("bad"), InMemoryCheckpointStore()).replay("job")
        assert (done.replayed, done.failed, done.blocked, done.finished) == (1, 1, 1, True)

    async def test_a_purge_needs_the_token_of_its_plan(self, store: DeadLetterStore) -> None:
        """The token confirms the letters that were counted: what came meanwhile stays, and if one is gone nothing is removed."""
        operations = DeadLetterOperations(store, RecordingBus(), InMemoryCheckpointStore())
        for number in range(3):
            await store.save(letter(f"a{number}"))
        wanted = DeadLetterFilter(handler_name="app.mail")
        plan = await operations.plan_purge(wanted, sample=2)
        assert (plan.count, len(plan.sample)) == (3, 2)
        other = await operations.plan_purge(DeadLetterFilter(handler_name="x"))
        await store.save(letter("another"))
        assert await store.delete(plan.sample[0].entry_id)
        for token in (plan.token, "", "purge-3", other.token):
            with pytest.raises(EventValidationError, match="token"):
                await operations.purge(wanted, token)
        assert await store.get_count() == 3
        plan = await operations.plan_purge(wanted)
        await store.save(letter("one more"))
        assert await operations.purge(wanted, plan.token) == 3
        assert [entry.event_data["sku"] for entry in await store.list_entries()] == ["one more"]


class DurableDeadLetterStoreContract(DeadLetterStoreContract):
    """What stores promise beyond it whose entries outlive the store object."""

    @abstractmethod
    async def reopen(self, store: DeadLetterStore) -> DeadLetterStore:
        """Close `store` and return another one on the same data."""

    async def test_everything_is_there_after_reopening(self) -> None:
        """Events, order, lanes and positions survive."""
        store = await self.make_store()
        aggregate = uuid4()
        entries = [letter("1", aggregate), letter("2", aggregate, waiting=True)]
        for entry in entries:
            await store.save(entry)
        store = await self.reopen(store)
        kept = await store.list_entries()
        assert [entry.event for entry in kept] == [entry.event for entry in entries]
        assert [entry.position for entry in kept] == [entry.position for entry in entries]
        assert await store.pending_lanes() == [("app.mail", str(aggregate))]
        later = letter("3", aggregate, waiting=True)
        await store.save(later)
        assert later.position > entries[1].position
        bus = RecordingBus()
        assert await store.replay(entries[0].entry_id, bus) is True
        assert [sku for _, sku in bus.delivered] == ["1", "2", "3"]
        await store.close()
