"""What is special to the in-memory stores: eviction, threads, the garbage collector, clearing."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from lexigram.events.exceptions import ConcurrencyError, EventPersistenceError, SerializationError
from lexigram.events.messages.event import DomainEvent, Event
from lexigram.events.messages.unknown import UnknownEvent
from lexigram.events.stores.memory import InMemoryEventStore, InMemorySnapshotStore
from lexigram.events.testing.samples import GiftAdded, ItemAdded, ItemRemoved, added, collect, positions, skus, versions
from lexigram.events.types import Snapshot


class Holder(DomainEvent):
    """An event with an arbitrary object in it."""

    held: Any


async def test_eviction_keeps_the_latest_and_all_numbers() -> None:
    """The oldest events go from stream, global order and type index; versions and positions go on."""
    store = InMemoryEventStore(max_events_per_stream=3)
    assert await store.append("a", added(*"12345")) == 5
    await store.append("b", [ItemRemoved(sku="x")])
    assert await store.append("a", added("6"), expected_version=5) == 6
    assert versions(await store.read("a")) == [4, 5, 6]
    assert positions(await store.read_all()) == [4, 5, 6, 7]
    assert skus(await collect(store.stream_by_type(ItemAdded))) == ["4", "5", "6"]
    assert await store.get_stream_version("a") == 6
    assert store.get_global_position() == 7
    info = await store.get_stream_info("a")
    assert info is not None
    assert (info.version, info.event_count) == (6, 3)


async def test_eviction_also_cuts_a_batch_larger_than_the_limit() -> None:
    """Only the end of the batch stays."""
    store = InMemoryEventStore(max_events_per_stream=2)
    events = added(*map(str, range(10)))
    assert await store.append("a", events) == 10
    assert versions(await store.read("a")) == [9, 10]
    assert versions(events) == list(range(1, 11))


async def test_zero_keeps_everything() -> None:
    """`max_events_per_stream=0` is unbounded; the default is 10,000."""
    store = InMemoryEventStore(max_events_per_stream=0)
    for start in range(0, 12_000, 4_000):
        await store.append("a", [ItemAdded(sku=str(n)) for n in range(start, start + 4_000)])
    assert len(await store.read("a")) == 12_000
    default = InMemoryEventStore()
    await default.append("a", [ItemAdded(sku=str(n)) for n in range(10_001)])
    assert versions(await default.read("a", limit=1)) == [2]


@pytest.mark.parametrize("limit", [-1, 1.5, "5", True])
def test_a_bad_limit_is_refused(limit: Any) -> None:
    """The error names the argument."""
    with pytest.raises(ValueError, match="max_events_per_stream"):
        InMemoryEventStore(max_events_per_stream=limit)
    with pytest.raises(ValueError, match="max_snapshots_per_aggregate"):
        InMemorySnapshotStore(max_snapshots_per_aggregate=limit)


async def test_closing_does_nothing_and_clearing_forgets_all() -> None:
    """Events survive close(); clear() starts at position 1 again."""
    store = InMemoryEventStore()
    await store.append("a", added("1"))
    await store.close()
    await store.close()
    assert store.get_all_streams() == ["a"]
    assert await store.append("a", added("2")) == 2
    store.clear()
    assert (store.get_all_streams(), store.get_global_position()) == ([], 0)
    assert await store.append("a", added("3"), expected_version=0) == 1
    assert positions(await store.read_all()) == [1]
    assert store.log.append("a", added("4"), None) == 2, "a class seen before is appended the fast way again"


async def test_reading_returns_the_stored_objects() -> None:
    """No copies are made: what was appended is what is read."""
    store = InMemoryEventStore()
    events = [*added("1"), GiftAdded(sku="2"), Event(sku="3")]
    await store.append("a", events)
    assert all(read is event for read, event in zip(await store.read("a"), events, strict=True))


async def test_events_made_in_another_order_than_stored_are_found_by_type_and_id() -> None:
    """Ids lower than ones stored before take no other path: no duplicates, no false retries."""
    store = InMemoryEventStore()
    events = added(*map(str, range(50)))
    for event in reversed(events):
        await store.append("a", [event])
    assert skus(await store.read("a")) == [str(n) for n in reversed(range(50))]
    for event in events:
        assert await store.append("a", [event]) == event.version
    assert store.get_global_position() == 50


async def test_ids_that_are_not_in_order_are_recognised_too() -> None:
    """Random ids among ordered ones: retries are found, partial overlaps refused, others stored."""
    store = InMemoryEventStore()
    high = UUID(int=(1 << 128) - 1)
    await store.append("a", [ItemAdded(sku="1", event_id=high)])
    await store.append("a", added("2"))
    fresh = [*added("3"), ItemAdded(sku="1", event_id=high)]
    with pytest.raises(EventPersistenceError):
        await store.append("a", fresh)
    assert await store.append("a", [ItemAdded(sku="1", event_id=high)]) == 1
    assert await store.append("a", [fresh[0], ItemAdded(sku="4", event_id=UUID(int=high.int - 1))]) == 4
    assert skus(await store.read("a")) == ["1", "2", "3", "4"]


async def test_unknown_events_are_stored_under_their_own_type_names() -> None:
    """Events of types that this program does not have keep their names and are selected by them."""
    store = InMemoryEventStore()
    events = [UnknownEvent(type_name=f"elsewhere.Type{n % 2}", payload=b"{}", data={"n": n}) for n in range(4)]
    await store.append("a", events)
    found = await collect(store.stream_by_type("elsewhere.Type1"))
    assert [event.data["n"] for event in found] == [1, 3]


async def test_a_class_defined_again_under_its_name_is_the_same_type() -> None:
    """Both generations of the class are found under the one stored name."""
    store = InMemoryEventStore()

    def define() -> type[Any]:
        class Redefined(DomainEvent):
            sku: str

        return Redefined

    first, second = define(), define()
    await store.append("a", [first(sku="1")])
    await store.append("a", [second(sku="2")])
    await store.append("a", [first(sku="3"), second(sku="4")])
    name = f"{second.__module__}.{second.__qualname__}"
    assert skus(await collect(store.stream_by_type(name))) == ["1", "2", "3", "4"]


def test_threads_see_a_gap_free_log_of_stamped_events() -> None:
    """Four writer threads and two reader threads on one store: every version and position once, nothing unstamped."""
    store = InMemoryEventStore(max_events_per_stream=0)
    problems: list[str] = []
    finished = threading.Event()

    async def write(name: str) -> None:
        for n in range(300):
            await store.append(f"s{n % 3}", added(f"{name}.{n}", f"{name}.{n}'"))

    async def follow() -> None:
        seen = 0
        while seen < 2400 and not finished.is_set():
            for event in await store.read_all(seen, 50):
                if event.sequence_number != seen + 1 or event.version < 1:
                    problems.append(f"position {event.sequence_number} after {seen}, version {event.version}")
                seen += 1
        if seen != 2400:
            problems.append(f"a reader saw {seen} events")

    def start(work: Any) -> threading.Thread:
        thread = threading.Thread(target=lambda: asyncio.run(work))
        thread.start()
        return thread

    readers = [start(follow()) for _ in range(2)]
    writers = [start(write(str(n))) for n in range(4)]
    for thread in writers:
        thread.join(60)
    for thread in readers:
        thread.join(30)
    finished.set()
    assert problems == []
    for stream in ("s0", "s1", "s2"):
        assert versions(asyncio.run(store.read(stream))) == list(range(1, 801))


def test_of_racing_threads_exactly_one_wins() -> None:
    """The version check and the append are one step, also between threads."""
    store = InMemoryEventStore()
    barrier = threading.Barrier(8)
    won: list[int] = []

    def race() -> None:
        for round_ in range(50):
            barrier.wait(30)
            try:
                asyncio.run(store.append("a", added("x"), expected_version=round_))
                won.append(round_)
            except ConcurrencyError:
                pass
            barrier.wait(30)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(won) == list(range(50))


def test_a_subscriber_is_woken_from_another_thread() -> None:
    """The wake-up crosses threads and loops."""
    store = InMemoryEventStore()
    store.poll_interval_seconds = 60.0

    async def first() -> Any:
        async with asyncio.timeout(10):
            async for event in store.subscribe():
                return event.sku
        return None

    async def main() -> Any:
        task = asyncio.create_task(first())
        await asyncio.sleep(0.02)
        thread = threading.Thread(target=lambda: asyncio.run(store.append("a", added("1"))))
        thread.start()
        try:
            return await task
        finally:
            await asyncio.to_thread(thread.join)

    assert asyncio.run(main()) == "1"


REENTRANT = """
import faulthandler, gc
faulthandler.dump_traceback_later(60, exit=True)
import asyncio
from lexigram.events import DomainEvent
from lexigram.events.stores.memory import InMemoryEventStore

class Plain(DomainEvent):
    n: int

class Holder(DomainEvent):
    held: object

store = InMemoryEventStore(max_events_per_stream=5)
calls = 0

def call(work):
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value

class Cycle:
    def __init__(self): self.me = self
    def __del__(self):
        global calls
        calls += 1
        call(store.append("from-del", [Plain(n=calls)]))
        call(store.read("s"))
        call(store.compact("from-del", calls - 2))

gc.freeze()  # a collection looks at what is made from here on, which takes no time
gc.set_threshold(1, 1, 1)
for n in range(300):
    holder, tagged = Holder(held=[]), Holder(held=[]).with_tags("x")
    call(store.append("s", [Plain(n=n), holder]))
    holder.held.append(Cycle())
    Cycle()
    call(store.read("s")); call(store.read_all(0)); call(store.query(tags=["x"])); call(store.get_stream_ids())
    call(store.append("s", [tagged, Plain(n=n)]))
    tagged.held.append(Cycle())
    call(store.compact("s", 3 * n))
del n, holder, tagged
store.clear()
gc.collect()
assert calls > 300, calls
print("alive", calls)
"""


def test_a_finalizer_may_call_back_into_the_store() -> None:
    """The collector runs while events are appended, read, evicted and dropped; `__del__` appends: no deadlock."""
    done = subprocess.run([sys.executable, "-c", REENTRANT], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("alive")


def test_a_store_in_a_cycle_with_its_events_is_collected() -> None:
    """The collector sees through the log: store → event → store goes away."""

    class Marker:
        pass

    markers: list[weakref.ref[Marker]] = []
    for _ in range(100):
        store = InMemoryEventStore()
        marker = Marker()
        markers.append(weakref.ref(marker))
        holder = Holder(held=[])
        asyncio.run(store.append("a", [holder]))
        holder.held.extend([store, marker])  # what cannot be stored is refused, so it comes later
        del store, marker, holder
    gc.collect()
    assert [ref() for ref in markers] == [None] * 100


def test_evicted_and_compacted_events_are_freed() -> None:
    """Nothing in the log keeps an event that has left it."""

    class Marker:
        pass

    def held() -> Iterator[tuple[Marker, Holder]]:
        for _ in range(50):
            marker = Marker()
            yield marker, Holder(held=[])

    store = InMemoryEventStore(max_events_per_stream=10)
    refs = []
    for marker, event in held():
        refs.append(weakref.ref(marker))
        asyncio.run(store.append("a", [event]))
        event.held.append(marker)
    del marker, event
    gc.collect()
    assert sum(ref() is not None for ref in refs) == 10
    asyncio.run(store.compact("a", 45))
    gc.collect()
    assert [ref() is not None for ref in refs] == [False] * 45 + [True] * 5


async def test_what_no_backend_could_store_is_refused_in_memory_too() -> None:
    """The error names event and field, nothing is written, in an append of its own and in a unit of work."""
    store = InMemoryEventStore()
    for held in (lambda: 1, [object()], {"deep": {"er": store}}):
        with pytest.raises(SerializationError, match=r"Holder\.held"):
            await store.append("a", [*added("1"), Holder(held=held)])
        with pytest.raises(SerializationError, match=r"Holder\.held"):
            async with store.unit_of_work():
                await store.append("a", [Holder(held=held)])
    assert await store.head() == 0


async def test_references_do_not_leak() -> None:
    """Appending, reading and refused appends leave no reference behind."""
    store = InMemoryEventStore()
    (event,) = added("1")
    await store.append("a", [event])
    before = sys.getrefcount(event)
    for _ in range(50):
        await store.read("a")
        await store.read_all()
        await collect(store.stream_by_type(ItemAdded))
        await store.append("a", [event])
        with pytest.raises(ConcurrencyError):
            await store.append("a", added("2"), expected_version=0)
    assert sys.getrefcount(event) == before


async def test_snapshots_beyond_the_limit_are_removed_oldest_first() -> None:
    """The highest versions stay, whatever the order of saving."""
    store = InMemorySnapshotStore(max_snapshots_per_aggregate=2)
    for version in (5, 1, 9, 7):
        await store.save_snapshot(Snapshot(aggregate_id="o", aggregate_type="Order", version=version, state={}))
    assert [v for v in range(10) if await store.get_by_version("o", v) is not None] == [7, 9]
    store.clear()
    assert await store.get_latest("o") is None
