"""Reading one stream, information about streams, removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.testing.samples import ItemAdded, added, collect, positions, refuses, skus, versions

if TYPE_CHECKING:
    from lexigram.events.stores.base import AbstractEventStore


class ReadContract:
    """What `read`, stream information and removal promise."""

    async def test_version_bounds_are_inclusive(self, store: AbstractEventStore) -> None:
        """Both ends are returned; bounds beyond the stream are clamped; a reversed range is empty."""
        await store.append("a", added(*"12345"))
        assert skus(await store.read("a", 2, 4)) == ["2", "3", "4"]
        assert skus(await store.read("a", from_version=4)) == ["4", "5"]
        assert skus(await store.read("a", 0, 2)) == ["1", "2"]
        assert skus(await store.read("a", 5, 99)) == ["5"]
        assert await store.read("a", 6) == []
        assert await store.read("a", 4, 3) == []
        assert await store.read("a", 0, 0) == []

    async def test_limit_counts_from_the_first_version(self, store: AbstractEventStore) -> None:
        """`limit` cuts the end; 0 returns nothing."""
        await store.append("a", added(*"12345"))
        assert skus(await store.read("a", 2, None, 2)) == ["2", "3"]
        assert skus(await store.read("a", 2, 3, 4)) == ["2", "3"]
        assert skus(await store.read("a", limit=99)) == list("12345")
        assert await store.read("a", limit=0) == []

    async def test_start_is_the_last_version_seen(self, store: AbstractEventStore) -> None:
        """The contract's keywords: `start` exclusive, `count` a limit."""
        await store.append("a", added(*"12345"))
        assert skus(await store.read("a", start=3)) == ["4", "5"]
        assert skus(await store.read("a", start=0, count=2)) == ["1", "2"]
        assert skus(await store.read("a", count=1)) == ["1"]
        assert await store.read("a", start=5) == []

    @pytest.mark.parametrize(
        "arguments",
        [
            {"start": 1, "from_version": 1},
            {"start": 0, "to_version": 2},
            {"start": 1, "limit": 2},
            {"count": 1, "limit": 1},
            {"count": 1, "from_version": 2},
        ],
    )
    async def test_mixing_the_two_spellings_raises(self, store: AbstractEventStore, arguments: dict[str, int]) -> None:
        """start/count and from_version/to_version/limit cannot be told apart when mixed."""
        with pytest.raises(ValueError, match="not both"):
            await store.read("a", **arguments)

    async def test_an_unknown_stream_is_empty(self, store: AbstractEventStore) -> None:
        """No error, no stream made by asking."""
        assert await store.read("none") == []
        assert await store.get_stream_version("none") == 0
        assert not await store.stream_exists("none")
        assert await store.get_stream_info("none") is None
        assert await store.compact("none", 5) == 0
        assert await store.delete_stream("none") == 0
        assert await store.get_stream_ids() == []

    async def test_stream_information(self, store: AbstractEventStore) -> None:
        """Version, count, times of the first and last event, aggregate type."""
        events = [ItemAdded(sku=str(n), aggregate_type="Cart") for n in range(3)]
        await store.append("a", events)
        info = await store.get_stream_info("a")
        assert info is not None
        assert (info.stream_id, info.version, info.event_count, info.aggregate_type) == ("a", 3, 3, "Cart")
        assert (info.created_at, info.updated_at) == (events[0].occurred_at, events[2].occurred_at)
        assert await store.stream_exists("a")

    async def test_stream_ids_are_sorted(self, store: AbstractEventStore) -> None:
        """Every stream that holds events, once."""
        for stream in ("b", "a", "ä", "c", "a"):
            await store.append(stream, added("1"))
        assert await store.get_stream_ids() == ["a", "b", "c", "ä"]
        assert await store.get_events_count() == 5
        assert await store.get_events_count("a") == 2
        assert await store.get_events_count("z") == 0

    async def test_find_by_aggregate_takes_uuid_and_string(self, store: AbstractEventStore) -> None:
        """The stream of an aggregate is `str(id)`."""
        aggregate_id = uuid4()
        await store.append(str(aggregate_id), added("1"))
        assert skus(await store.find_by_aggregate(str(aggregate_id))) == ["1"]
        assert skus(await store.find_by_aggregate(aggregate_id)) == ["1"]

    async def test_compaction_keeps_every_number(self, store: AbstractEventStore) -> None:
        """What stays keeps version and position; the stream goes on counting; positions are not reused."""
        await store.append("a", added(*"1234"))
        await store.append("b", added("x"))
        assert await store.compact("a", 3) == 3
        (left,) = await store.read("a")
        assert (left.version, left.sequence_number, left.sku) == (4, 4, "4")
        assert positions(await store.read_all()) == [4, 5]
        assert await store.get_stream_version("a") == 4
        assert await store.append("a", added("5"), expected_version=4) == 5
        assert await store.head() == 6
        assert await store.compact("a", 3) == 0
        info = await store.get_stream_info("a")
        assert info is not None
        assert (info.version, info.event_count) == (5, 2)

    async def test_compaction_beyond_the_end_removes_all_and_counts_on(self, store: AbstractEventStore) -> None:
        """An emptied stream does not exist any more but its version is not given again."""
        await store.append("a", added(*"123"))
        assert await store.compact("a", 99) == 3
        assert await store.read("a") == []
        assert not await store.stream_exists("a")
        assert await store.get_stream_ids() == []
        assert await store.get_stream_version("a") == 3
        with pytest.raises(ConcurrencyError):
            await store.append("a", added("4"), expected_version=0)
        assert await store.append("a", added("4"), expected_version=3) == 4
        assert versions(await store.read("a")) == [4]

    async def test_compaction_to_zero_removes_nothing(self, store: AbstractEventStore) -> None:
        """Version 0 is before the first event."""
        await store.append("a", added("1"))
        assert await store.compact("a", 0) == 0
        assert skus(await store.read("a")) == ["1"]

    async def test_the_archiver_gets_the_events_first(self, store: AbstractEventStore) -> None:
        """An async or plain callback sees exactly what is removed, while it is still stored."""
        await store.append("a", added(*"1234"))
        archive: list[Any] = []

        async def take(events: list[Any]) -> None:
            assert len(await store.read("a")) == 4
            archive.extend(events)

        assert await store.compact("a", 2, take) == 2
        assert skus(archive) == ["1", "2"]
        assert await store.compact("a", 3, archive.extend) == 1
        assert skus(archive) == ["1", "2", "3"]

    async def test_a_failing_archiver_removes_nothing(self, store: AbstractEventStore) -> None:
        """If the events cannot be archived they stay."""
        await store.append("a", added(*"12"))

        def fail(events: list[Any]) -> None:
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            await store.compact("a", 2, fail)
        assert skus(await store.read("a")) == ["1", "2"]

    async def test_a_deleted_stream_keeps_its_version_counter(self, store: AbstractEventStore) -> None:
        """Deletion returns the count; other streams and their positions are untouched."""
        await store.append("a", added(*"12"))
        await store.append("b", added("x"))
        assert await store.delete_stream("a") == 2
        assert await store.delete_stream("a") == 0
        assert positions(await store.read_all()) == [3]
        assert await store.get_stream_version("a") == 2
        assert await store.append("a", added("3")) == 3
        assert positions(await collect(store.stream_all())) == [3, 4]

    async def test_bad_event_types_are_refused(self, store: AbstractEventStore) -> None:
        """A type of its own that some backend could not store; nothing is written."""
        for bad in ("a\0b", "\ud800", "x" * 256):
            events = [ItemAdded(sku="1"), ItemAdded(sku="2", event_type=bad)]
            await refuses(store.append("a", events), "events[1].event_type")
        assert await store.head() == 0

    @pytest.mark.parametrize("stream_id", ["", "x" * 256, "a\x00b", "\ud800", 5, None, uuid4()])
    async def test_bad_stream_ids_are_refused_everywhere(self, store: AbstractEventStore, stream_id: Any) -> None:
        """One clear error that names the field, whatever the method."""
        for call in (
            store.append(stream_id, added("1")),
            store.read(stream_id),
            store.get_stream_version(stream_id),
            store.stream_exists(stream_id),
            store.get_stream_info(stream_id),
            store.compact(stream_id, 1),
            store.delete_stream(stream_id),
        ):
            await refuses(call, "stream_id")
        assert await store.head() == 0

    async def test_the_longest_stream_id_fits(self, store: AbstractEventStore) -> None:
        """255 characters, whatever they need in bytes; quotes and percent signs are plain characters."""
        for stream in ("é" * 255, "𝄞" * 255, "'; drop table events; --", "%_*:{}"):
            await store.append(stream, added(stream[:3]))
            assert skus(await store.read(stream)) == [stream[:3]]

    async def test_stream_ids_are_taken_literally(self, store: AbstractEventStore) -> None:
        """Case, spaces, accents and what comes after 255 bytes tell streams apart."""
        streams = ["a", "A", "a ", " a", "\u00e1", "a\u0301", "ss", "ß", "ı", "I", "é" * 254 + "1", "é" * 254 + "2"]
        for stream in streams:
            assert await store.append(stream, added(stream), expected_version=0) == 1
        assert [skus(await store.read(stream)) for stream in streams] == [[stream] for stream in streams]
        assert await store.get_stream_ids() == sorted(streams)

    async def test_long_streams_and_large_events_are_whole(self, store: AbstractEventStore) -> None:
        """Beyond any page and any short text column."""
        events = added(*map(str, range(2500)))
        assert await store.append("long", events) == 2500
        assert await store.append("large", added("ü" * 100_000)) == 1
        assert await store.read("long") == events
        assert versions(await store.read("long", from_version=1200, to_version=2300)) == list(range(1200, 2301))
        assert positions(await store.read_all()) == list(range(1, 2502))
        assert skus(await store.read("large")) == ["ü" * 100_000]

    async def test_bad_numbers_are_refused(self, store: AbstractEventStore) -> None:
        """Negative, too large, fractional and boolean numbers name their field."""
        bad: Any
        for bad in (-1, 2**63, 1.0, "1", True):
            await refuses(store.append("a", added("1"), expected_version=bad), "expected_version")
            await refuses(store.read("a", from_version=bad), "from_version")
            await refuses(store.read("a", to_version=bad), "to_version")
            await refuses(store.read("a", limit=bad), "limit")
            await refuses(store.read("a", start=bad), "start")
            await refuses(store.read("a", count=bad), "count")
            await refuses(store.read_all(bad), "position")
            await refuses(store.read_all(0, bad), "count")
            await refuses(store.compact("a", bad), "up_to_version")
            await refuses(store.query(from_position=bad), "from_position")

    async def test_the_largest_numbers_are_numbers(self, store: AbstractEventStore) -> None:
        """Beyond the end there is nothing, however far."""
        await store.append("a", added("1"))
        largest = 2**63 - 1
        assert await store.read("a", start=largest) == await store.read("a", from_version=largest) == []
        assert await store.read_all(largest) == await store.query(from_position=largest) == []
        assert skus(await store.read("a", to_version=largest, limit=largest)) == ["1"]

    @pytest.mark.parametrize("events", [None, "text", 5, ItemAdded(sku="1"), [None], [{"sku": "1"}], [ItemAdded]])
    async def test_what_is_no_list_of_events_is_refused(self, store: AbstractEventStore, events: Any) -> None:
        """A single event, a mapping or a class in place of events names the field and writes nothing."""
        await refuses(store.append("a", events), "events")
        assert await store.head() == 0

    async def test_the_same_event_twice_in_a_batch_is_refused(self, store: AbstractEventStore) -> None:
        """One event is stored once."""
        (event,) = added("1")
        await refuses(store.append("a", [event, event]), "events")
        assert event.sequence_number is None
