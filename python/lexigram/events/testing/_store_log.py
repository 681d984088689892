"""The global log: order, paging, partitions, types, subscription, replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from lexigram.events.stores.partition import partition_of
from lexigram.events.testing.samples import (
    GiftAdded,
    ItemAdded,
    ItemRemoved,
    added,
    collect,
    positions,
    refuses,
    skus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lexigram.events.stores.base import AbstractEventStore


async def _fill(store: AbstractEventStore, count: int, streams: int = 7) -> None:
    for n in range(count):
        await store.append(f"s{n % streams}", added(str(n + 1)))


async def _take(stream: AsyncIterator[Any], count: int) -> list[Any]:
    """Return the next `count` items of a live stream within five seconds and close it."""
    taken = []
    async with asyncio.timeout(5):
        async for item in stream:
            taken.append(item)
            if len(taken) == count:
                break
    await cast(AsyncGenerator[Any, None], stream).aclose()
    return taken


class LogContract:
    """What reading across streams promises."""

    @pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
    async def test_stream_all_is_complete_at_every_batch_size(self, store: AbstractEventStore, batch_size: int) -> None:
        """Every event once, in order, from every starting point; `from_position` is exclusive."""
        await _fill(store, 10)
        for start in (0, 1, 5, 9, 10, 11, 99):
            events = await collect(store.stream_all(start, batch_size))
            assert positions(events) == list(range(start + 1, 11))
            batches = await collect(store.stream_batches(start, batch_size))
            assert [event for batch in batches for event in batch] == events
            assert all(0 < len(batch) <= batch_size for batch in batches)

    async def test_read_all_pages(self, store: AbstractEventStore) -> None:
        """`position` is exclusive, `count` a limit, None everything."""
        await _fill(store, 6)
        assert positions(await store.read_all(2, 3)) == [3, 4, 5]
        assert positions(await store.read_all(4)) == [5, 6]
        assert await store.read_all(6) == []
        assert await store.read_all(0, 0) == []

    @pytest.mark.parametrize("total", [1, 2, 3, 8])
    async def test_partitions_are_disjoint_and_complete(self, store: AbstractEventStore, total: int) -> None:
        """Each stream is in exactly the partition that the documented hash says, in global order."""
        await _fill(store, 60, streams=20)
        seen: list[int] = []
        for index in range(total):
            part = await collect(store.stream_all(0, 7, partition=index, total_partitions=total))
            assert positions(part) == sorted(positions(part))
            seen += positions(part)
            for event in part:
                assert partition_of(f"s{(int(event.sku) - 1) % 20}", total) == index
        assert sorted(seen) == list(range(1, 61))

    async def test_removed_events_leave_holes_that_readers_step_over(self, store: AbstractEventStore) -> None:
        """Paging with any batch size passes holes larger than a page."""
        await store.append("a", added(*map(str, range(50))))
        await store.append("b", added("x", "y"))
        await store.append("a", added("z"))
        await store.compact("a", 50)
        for batch_size in (1, 2, 10):
            assert skus(await collect(store.stream_all(0, batch_size))) == ["x", "y", "z"]
        assert positions(await store.read_all(10)) == [51, 52, 53]

    async def test_types_are_selected_by_class_name_and_full_name(self, store: AbstractEventStore) -> None:
        """A class includes its subclasses; a name stands for exactly that type."""
        await store.append("a", [ItemAdded(sku="1"), ItemRemoved(sku="2"), GiftAdded(sku="3"), ItemAdded(sku="4")])
        full = f"{ItemRemoved.__module__}.{ItemRemoved.__qualname__}"
        by_type = {
            "class": skus(await collect(store.stream_by_type([ItemAdded]))),
            "name": skus(await collect(store.stream_by_type([ItemAdded.__name__]))),
            "subclass": skus(await collect(store.stream_by_type(GiftAdded))),
            "full": skus(await collect(store.stream_by_type(full))),
            "two": skus(await collect(store.stream_by_type([ItemRemoved.__name__, GiftAdded], 2))),
            "unknown": skus(await collect(store.stream_by_type(["NoSuchEventType"]))),
            "none": skus(await collect(store.stream_by_type([]))),
        }
        assert by_type == {
            "class": ["1", "3", "4"],
            "name": ["1", "4"],
            "subclass": ["3"],
            "full": ["2"],
            "two": ["3"],
            "unknown": [],
            "none": [],
        }

    async def test_an_event_type_of_its_own_selects_an_event(self, store: AbstractEventStore) -> None:
        """Beside its class, not instead of it; also after a part of the log was removed."""
        own = [ItemAdded(sku="2", event_type="item.imported"), ItemAdded(sku="3", event_type="item.imported")]
        await store.append("a", [ItemAdded(sku="1"), *own, ItemRemoved(sku="4")])
        assert skus(await collect(store.stream_by_type(["item.imported"]))) == ["2", "3"]
        assert skus(await collect(store.stream_by_type("item.imported", 2))) == ["3"]
        assert skus(await collect(store.stream_by_type([ItemRemoved, "item.imported"]))) == ["2", "3", "4"]
        assert skus(await collect(store.stream_by_type([ItemAdded]))) == ["1", "2", "3"]
        assert skus(await store.find_by_type("item.imported", 1)) == ["2"]
        await store.compact("a", 2)
        assert skus(await collect(store.stream_by_type(["item.imported"]))) == ["3"]

    async def test_by_type_pages_and_finds(self, store: AbstractEventStore) -> None:
        """Matches far apart are all found at every batch size; `find_by_type` returns one page."""
        for n in range(30):
            await store.append("a", [ItemRemoved(sku=str(n)) if n % 10 == 9 else ItemAdded(sku=str(n))])
        for batch_size in (1, 2, 3, 4):
            found = await collect(store.stream_by_type([ItemRemoved], 5, batch_size))
            assert skus(found) == ["9", "19", "29"]
        assert skus(await store.find_by_type(ItemRemoved.__name__, 2)) == ["9", "19"]
        assert skus(await store.find_by_type(ItemRemoved.__name__, 5, start=10)) == ["19", "29"]
        assert await store.find_by_type(ItemRemoved.__name__, 0) == []

    async def test_bad_paging_arguments_are_refused(self, store: AbstractEventStore) -> None:
        """Each names its field, at the call, not at the first item."""
        calls: list[tuple[Any, str]] = [
            (lambda: store.stream_all(-1), "from_position"),
            (lambda: store.stream_all(0, 0), "batch_size"),
            (lambda: store.stream_all(0, 10, partition=1), "total_partitions"),
            (lambda: store.stream_all(0, 10, total_partitions=2), "partition"),
            (lambda: store.stream_all(0, 10, partition=2, total_partitions=2), "partition"),
            (lambda: store.stream_all(0, 10, partition=-1, total_partitions=2), "partition"),
            (lambda: store.stream_batches(0, -5), "batch_size"),
            (lambda: store.stream_by_type(cast(Any, [5])), "types"),
        ]
        for call, field in calls:
            with pytest.raises(ValueError, match=field) as caught:
                call()
            assert getattr(caught.value, "field", None) == field
        await refuses(store.find_by_type("x", -1), "count")
        await refuses(store.find_events_since(-1), "checkpoint")
        await refuses(store.find_events_since(0, -1), "limit")
        await refuses(store.get_stored_events_since(-1), "global_sequence")

    async def test_subscribe_goes_from_history_to_live_without_gap_or_duplicate(
        self, store: AbstractEventStore
    ) -> None:
        """Writers go on during catch-up; the subscriber sees 3, 4, 5, … exactly once each."""
        await _fill(store, 20)

        async def write() -> None:
            for n in range(30):
                await store.append(f"w{n % 3}", added(f"w{n}"))
                await asyncio.sleep(0)

        writer = asyncio.create_task(write())
        events = await _take(store.subscribe(2, batch_size=4), 48)
        await writer
        assert positions(events) == list(range(3, 51))

    async def test_subscribe_is_woken_not_polled(self, store: AbstractEventStore) -> None:
        """With a backstop of a minute, new events still arrive at once."""
        store.poll_interval_seconds = 60.0
        task = asyncio.create_task(_take(store.subscribe(), 2))
        await asyncio.sleep(0.02)
        await store.append("a", added("1"))
        await asyncio.sleep(0.02)
        await store.append("b", added("2"))
        assert skus(await asyncio.wait_for(task, 5)) == ["1", "2"]

    async def test_many_subscribers_each_see_everything(self, store: AbstractEventStore) -> None:
        """Filters by type apply per subscriber; a filtered one is not held up by other events."""
        everything = [asyncio.create_task(_take(store.subscribe(), 20)) for _ in range(3)]
        removed = asyncio.create_task(_take(store.subscribe(event_types=[ItemRemoved]), 2))
        for n in range(20):
            await store.append("a", [ItemRemoved(sku=str(n)) if n % 10 == 9 else ItemAdded(sku=str(n))])
            await asyncio.sleep(0)
        for task in everything:
            assert positions(await task) == list(range(1, 21))
        assert skus(await removed) == ["9", "19"]

    async def test_a_subscription_ends_when_its_task_is_cancelled(self, store: AbstractEventStore) -> None:
        """Cancelling the waiting task ends it at once; the store goes on working."""
        task = asyncio.create_task(_take(store.subscribe(), 1))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.append("a", added("1")) == 1

    async def test_a_following_reader_never_misses_a_position(self, store: AbstractEventStore) -> None:
        """A reader that pages while many writers append sees every position, in order, without a gap."""
        writers = [
            asyncio.create_task(store.append(f"s{n % 5}", added(*(f"{n}.{k}" for k in range(n % 4 + 1)))))
            for n in range(60)
        ]
        total = sum(n % 4 + 1 for n in range(60))
        seen: list[int] = []
        async with asyncio.timeout(20):
            while len(seen) < total:
                head = await store.head()
                page = await store.read_all(seen[-1] if seen else 0, 7)
                seen += positions(page)
                assert seen == list(range(1, len(seen) + 1))
                assert len(page) == 7 or not seen or seen[-1] >= head
                await asyncio.sleep(0)
        await asyncio.gather(*writers)

    async def test_wait_for_events_answers_when_there_is_one(self, store: AbstractEventStore) -> None:
        """At once if there is, on wake-up if it comes, False after the time."""
        assert not await store.wait_for_events(0, 0.02)
        store.poll_interval_seconds = 60.0
        waiting = asyncio.create_task(store.wait_for_events(0, 30.0))
        await asyncio.sleep(0.02)
        await store.append("a", added("1"))
        assert await asyncio.wait_for(waiting, 5)
        assert await store.wait_for_events(0, 0.0)
        assert not await store.wait_for_events(1, 0.0)

    async def test_events_since_a_position_or_a_time(self, store: AbstractEventStore) -> None:
        """Both are exclusive; a time without zone is UTC."""
        start = datetime(2024, 1, 1, tzinfo=UTC)
        events = [ItemAdded(sku=str(n), occurred_at=start + timedelta(hours=n)) for n in range(6)]
        await store.append("a", events)
        assert skus(await store.find_events_since(4)) == ["4", "5"]
        assert skus(await store.find_events_since(start + timedelta(hours=3))) == ["4", "5"]
        assert skus(await store.find_events_since(datetime(2024, 1, 1, 2), limit=2)) == ["3", "4"]
        assert await store.find_events_since(0, 0) == []

    async def test_stored_records_carry_stream_and_data(self, store: AbstractEventStore) -> None:
        """`get_stored_events_since` says where each event is and what its fields are."""
        await store.append("a", added("1"))
        await store.append("b", [ItemAdded(sku="2", quantity=5, metadata={"tenant_id": "t"})])
        (record,) = await store.get_stored_events_since(1)
        assert (record.global_sequence, record.stream_id, record.stream_version) == (2, "b", 1)
        assert (record.event_type, record.event_data["sku"], record.event_data["quantity"]) == (
            ItemAdded.__name__,
            "2",
            5,
        )
        assert record.metadata == {"tenant_id": "t"}
        assert [r.stream_id for r in await store.get_stored_events_since(limit=1)] == ["a"]

    async def test_replay_delivers_what_was_stored_and_reports_progress(self, store: AbstractEventStore) -> None:
        """Filters by type and time apply; events appended by the handler are not part of it."""
        start = datetime(2024, 1, 1, tzinfo=UTC)
        await store.append("a", [ItemAdded(sku=str(n), occurred_at=start + timedelta(hours=n)) for n in range(4)])
        await store.append("a", [ItemRemoved(sku="x", occurred_at=start)])
        seen: list[str] = []
        progress: list[tuple[int, int]] = []

        async def handler(event: Any) -> None:
            seen.append(event.sku)
            await store.append("b", added("new"))

        delivered = await store.replay_events(
            handler,
            since=start,
            event_types=[ItemAdded.__name__],
            on_progress=lambda done, total: progress.append((done, total)),
        )
        assert (delivered, seen) == (3, ["1", "2", "3"])
        assert progress == [(1, 3), (2, 3), (3, 3)]
        assert await store.replay_events(seen.append, event_types=[ItemRemoved]) == 1

    async def test_a_failing_replay_handler_ends_the_replay(self, store: AbstractEventStore) -> None:
        """Its exception comes out; nothing is skipped silently."""
        await _fill(store, 3)

        async def handler(event: Any) -> None:
            if event.sku == "2":
                raise RuntimeError("poison")

        with pytest.raises(RuntimeError, match="poison"):
            await store.replay_events(handler)
