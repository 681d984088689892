"""Appending: versions, conflicts, stamping, retries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lexigram.events.exceptions import ConcurrencyError, EventError, SerializationError
from lexigram.events.messages.event import DomainEvent
from lexigram.events.testing.samples import (
    ForeignEvent,
    ItemAdded,
    ItemRemoved,
    added,
    positions,
    skus,
    versions,
)

if TYPE_CHECKING:
    from lexigram.events.stores.base import AbstractEventStore


class Holder(DomainEvent):
    """Its annotation allows anything."""

    held: Any


class AppendContract:
    """What `append` promises."""

    async def test_versions_count_from_one_in_each_stream(self, store: AbstractEventStore) -> None:
        """Streams are numbered on their own, the global order over all of them."""
        assert await store.append("a", added("1", "2")) == 2
        assert await store.append("b", added("3")) == 1
        assert await store.append("a", added("4")) == 3
        assert versions(await store.read("a")) == [1, 2, 3]
        assert versions(await store.read("b")) == [1]
        assert positions(await store.read_all()) == [1, 2, 3, 4]
        assert skus(await store.read_all()) == ["1", "2", "3", "4"]

    async def test_expected_version_zero_means_new(self, store: AbstractEventStore) -> None:
        """0 succeeds once and then conflicts, with both versions in the error."""
        assert await store.append("a", added("1", "2"), expected_version=0) == 2
        with pytest.raises(ConcurrencyError) as caught:
            await store.append("a", added("3"), expected_version=0)
        assert (caught.value.expected_version, caught.value.actual_version) == (0, 2)
        assert skus(await store.read("a")) == ["1", "2"]

    @pytest.mark.parametrize("expected", [1, 3, 99])
    async def test_a_wrong_expected_version_writes_nothing(self, store: AbstractEventStore, expected: int) -> None:
        """Lower and higher than the real version conflict alike; the store stays usable."""
        await store.append("a", added("1", "2"))
        events = added("3", "4")
        with pytest.raises(ConcurrencyError) as caught:
            await store.append("a", events, expected_version=expected)
        assert (caught.value.expected_version, caught.value.actual_version) == (expected, 2)
        assert [event.sequence_number for event in events] == [None, None]
        assert await store.head() == 2
        assert await store.append("a", events, expected_version=2) == 4

    async def test_a_new_stream_conflicts_with_a_higher_expectation(self, store: AbstractEventStore) -> None:
        """Expecting version 1 of a stream that does not exist creates nothing."""
        with pytest.raises(ConcurrencyError) as caught:
            await store.append("a", added("1"), expected_version=1)
        assert (caught.value.expected_version, caught.value.actual_version) == (1, 0)
        assert not await store.stream_exists("a")
        assert await store.get_stream_ids() == []

    async def test_an_empty_append_changes_nothing(self, store: AbstractEventStore) -> None:
        """No events: no stream, no position, the current version as the answer."""
        assert await store.append("a", []) == 0
        assert not await store.stream_exists("a")
        await store.append("a", added("1", "2"))
        assert await store.append("a", []) == 2
        assert await store.head() == 2

    async def test_fresh_events_are_stamped_in_place(self, store: AbstractEventStore) -> None:
        """The objects given know their version and position afterwards, and equal what is read."""
        await store.append("other", added("0"))
        events = added("1", "2")
        await store.append("a", events)
        assert versions(events) == [1, 2]
        assert positions(events) == [2, 3]
        assert await store.read("a") == events

    async def test_a_failed_append_stamps_nothing(self, store: AbstractEventStore) -> None:
        """After a conflict the events are as fresh as before."""
        await store.append("a", added("1"))
        (event,) = added("2")
        with pytest.raises(ConcurrencyError):
            await store.append("a", [event], expected_version=0)
        assert (event.version, event.sequence_number) == (0, None)

    async def test_a_stamped_event_is_stored_as_a_copy(self, store: AbstractEventStore) -> None:
        """An event that another store has stamped keeps its stamp; this store has its own."""
        (event,) = added("1")
        other = event.with_version(7)
        object.__setattr__(other, "sequence_number", 70)
        await store.append("a", added("0"))
        await store.append("a", [other])
        assert (other.version, other.sequence_number) == (7, 70)
        (_, stored) = await store.read("a")
        assert (stored.version, stored.sequence_number, stored.sku) == (2, 2, "1")

    async def test_events_of_the_frameworks_own_class_are_stored(self, store: AbstractEventStore) -> None:
        """An instance of the contract's class is stored as a stamped copy, class and fields kept."""
        event = ForeignEvent(note="hello")
        assert await store.append("a", [event, *added("1")]) == 2
        stored, _ = await store.read("a")
        assert type(stored) is ForeignEvent
        assert (stored.note, stored.event_id, stored.sequence_number) == ("hello", event.event_id, 1)
        assert event.sequence_number is None

    async def test_of_racing_writers_exactly_one_wins(self, store: AbstractEventStore) -> None:
        """Twenty appends with the same expected version: one success, nineteen ConcurrencyErrors."""
        await store.append("a", added("0"))
        outcomes = await asyncio.gather(
            *(store.append("a", added(str(n)), expected_version=1) for n in range(20)), return_exceptions=True
        )
        assert outcomes.count(2) == 1
        assert sum(type(outcome) is ConcurrencyError for outcome in outcomes) == 19
        assert versions(await store.read("a")) == [1, 2]

    async def test_racing_batches_are_whole_and_in_order(self, store: AbstractEventStore) -> None:
        """Batches of many writers never interleave within a stream, and leave no hole in versions or positions."""
        batches = [added(*(f"{writer}.{n}" for n in range(5))) for writer in range(12)]
        await asyncio.gather(*(store.append(f"s{n % 3}", batch) for n, batch in enumerate(batches)))
        assert positions(await store.read_all()) == list(range(1, 61))
        for stream in ("s0", "s1", "s2"):
            events = await store.read(stream)
            assert versions(events) == list(range(1, 21))
            found = skus(events)
            for start in range(0, 20, 5):
                writer = found[start].split(".")[0]
                assert found[start : start + 5] == [f"{writer}.{n}" for n in range(5)]

    @pytest.mark.parametrize("expected", [None, 0])
    async def test_a_retry_stores_nothing_twice(self, store: AbstractEventStore, expected: int | None) -> None:
        """The same ids again, as after a lost connection: the first answer, no duplicates, same positions."""
        events = added("1", "2")
        assert await store.append("a", events, expected_version=expected) == 2
        await store.append("b", added("x"))
        again = [ItemAdded(sku=e.sku, event_id=e.event_id, occurred_at=e.occurred_at) for e in events]
        assert await store.append("a", again, expected_version=expected) == 2
        assert skus(await store.read("a")) == ["1", "2"]
        assert await store.head() == 3
        assert positions(again) == [1, 2]

    async def test_a_retry_succeeds_although_the_stream_went_on(self, store: AbstractEventStore) -> None:
        """Somebody else's append in between does not turn the retry into a conflict."""
        await store.append("a", added("0"))
        events = added("1", "2")
        await store.append("a", events, expected_version=1)
        await store.append("a", added("3"))
        assert await store.append("a", events, expected_version=1) == 3
        assert skus(await store.read("a")) == ["0", "1", "2", "3"]

    async def test_a_partial_overlap_is_an_error(self, store: AbstractEventStore) -> None:
        """Some ids stored and some not, another order, another stream: refused, nothing written."""
        first, second, third = added("1", "2", "3")
        await store.append("a", [first, second])
        for stream, events in (
            ("a", [second, third]),
            ("a", [third, first]),
            ("a", [second, first]),
            ("b", [first, second]),
            ("b", [third, first]),
        ):
            with pytest.raises(EventError) as caught:
                await store.append(stream, events)
            assert not isinstance(caught.value, ConcurrencyError)
        assert await store.head() == 2
        assert not await store.stream_exists("b")

    async def test_one_batch_may_mix_types(self, store: AbstractEventStore) -> None:
        """Types, fields and metadata come back as they went in."""
        events: list[Any] = [
            ItemAdded(sku="1", quantity=3, tags=("t",), metadata={"tenant_id": "acme"}, aggregate_type="Cart"),
            ItemRemoved(sku="1", actor_id="me"),
        ]
        await store.append("a", events)
        read = await store.read("a")
        assert read == events
        assert [type(event) for event in read] == [ItemAdded, ItemRemoved]
        assert read[0].tags == ("t",)
        assert dict(read[0].metadata) == {"tenant_id": "acme"}
        assert (read[0].event_id, read[0].occurred_at) == (events[0].event_id, events[0].occurred_at)

    async def test_what_cannot_be_stored_is_refused(self, store: AbstractEventStore) -> None:
        """The error names event and field and nothing is written, the second time too; whatever the annotation says."""
        for attempt in range(2):
            for held in (lambda: 1, object(), 1j, range(3), memoryview(b"x"), [1j], {"deep": {"er": range(3)}}):
                with pytest.raises(SerializationError, match=r"Holder\.held"):
                    await store.append(f"a{attempt}", [*added("1"), Holder(held=held)])
            await store.append("b", [Holder(held="fine")])
        assert await store.head() == 2
        assert await store.get_stream_ids() == ["b"]
