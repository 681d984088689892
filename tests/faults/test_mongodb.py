"""MongoDB under concurrency, cancellation, cut connections and kills: nothing lost, doubled, skipped or half done."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import random
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from lexigram.events.exceptions import (
    ConcurrencyError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventStoreError,
    EventValidationError,
)
from lexigram.events.stores.mongodb.checkpoint_store import MongoDBCheckpointStore
from lexigram.events.stores.mongodb.config import MongoDBConfig
from lexigram.events.stores.mongodb.event_store import MongoDBEventStore
from lexigram.events.stores.mongodb.idempotency_store import MongoDBIdempotencyStore
from lexigram.events.testing.samples import ItemAdded, ItemRemoved, added, positions, skus, versions
from tests.faults import mongo_writer
from tests.faults.mongo_writer import EACH, RACES, Counted, a_store, race, write

METHOD = "spawn" if sys.platform == "win32" else "forkserver"


@pytest.fixture(autouse=True)
def _sockets_of_the_driver() -> Iterator[None]:
    """pymongo leaves a socket to the collector when a client is closed while it connects; that is not our finding."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest_asyncio.fixture
async def database(mongo_url: str) -> AsyncIterator[str]:
    """The name of a database of this test alone, dropped at its end."""
    name = f"lx_{uuid4().hex}"
    yield name
    async with AsyncMongoClient[Any](mongo_url) as client:
        await client.drop_database(name)


@pytest_asyncio.fixture
async def store(mongo_url: str, database: str) -> AsyncIterator[MongoDBEventStore]:
    async with a_store(mongo_url, database) as store:
        yield store


def store_at(url: str, database: str, seconds: float) -> MongoDBEventStore:
    """Return a store that gives up when the server has been away for `seconds`."""
    config = MongoDBConfig(uri=f"{url}?connectTimeoutMS=500", database=database, max_pool_size=4)
    store = MongoDBEventStore(None, config)
    settings = store.mongo.settings
    store.mongo.settings = type(settings)(
        **{name: getattr(settings, name) for name in settings.__slots__ if name != "timeout_seconds"},
        timeout_seconds=seconds,
    )
    return store


async def check_log(store: MongoDBEventStore, count: int) -> list[Any]:
    """Check that positions and versions have no gap and ids no duplicate; return the events."""
    events = [event async for event in store.stream_all(batch_size=500)]
    assert positions(events) == list(range(1, count + 1)), "positions are gap-free and complete"
    assert await store.head() == count
    assert len({event.event_id for event in events}) == count, "every event is there once"
    for stream_id in await store.get_stream_ids():
        stored = await store.read(stream_id)
        assert versions(stored) == list(range(1, len(stored) + 1)), f"versions of {stream_id}"
    return events


async def test_concurrent_appends_share_commits_and_conflicts_stay_alone(store: MongoDBEventStore) -> None:
    """Forty appends make a few documents; those that conflict fail by themselves and the others are in order."""
    await store.append("hot", added("0"))
    appends = [store.append("hot", added(f"{n}"), expected_version=9 if n % 4 == 0 else None) for n in range(40)]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [type(outcome) is ConcurrencyError for outcome in outcomes] == [n % 4 == 0 for n in range(40)]
    assert [outcome for outcome in outcomes if isinstance(outcome, int)] == list(range(2, 32))
    assert skus(await store.read("hot")) == ["0", *(f"{n}" for n in range(40) if n % 4)]
    assert await store.events.count_documents({}) <= 4
    await check_log(store, 31)


async def test_a_unit_of_work_is_one_document(store: MongoDBEventStore, mongo_url: str, database: str) -> None:
    """Several streams in one commit; if another process comes first where it matters, nothing of it is stored."""
    async with store.unit_of_work():
        await store.append("a", added("1"), expected_version=0)
        await store.append("b", added("2", "3"))
    assert await store.events.count_documents({}) == 1
    async with a_store(mongo_url, database) as other:
        with pytest.raises(ConcurrencyError):
            async with store.unit_of_work():
                await store.append("c", added("4"))
                await store.append("a", added("5"), expected_version=1)
                await other.append("a", added("6"))
    assert skus(await store.read_all()) == ["1", "2", "3", "6"]
    with pytest.raises(EventStoreError, match="no SQL connection"):
        async with store.unit_of_work() as unit:
            await unit.execute("SELECT 1")


async def test_small_stores_follow_the_unit_of_work(store: MongoDBEventStore) -> None:
    """Checkpoints and marks are written after the commit, never after a rollback; a claim is given back."""
    checkpoints, marks = MongoDBCheckpointStore(store), MongoDBIdempotencyStore(store)
    with pytest.raises(KeyError):
        async with store.unit_of_work():
            await checkpoints.save_checkpoint("p", 7)
            await marks.mark_processed("c", "m1")
            assert await marks.claim("c", "m2")
            raise KeyError
    await marks.close()
    await marks.connect()
    assert await checkpoints.get_checkpoint("p") == 0
    assert not await marks.is_processed("c", "m1")
    async with store.unit_of_work():
        await checkpoints.save_checkpoint("p", 7)
        assert await marks.claim("c", "m2")
        assert not await marks.claim("c", "m2")
        assert await checkpoints.get_checkpoint("p") == 0
    assert await checkpoints.get_checkpoint("p") == 7
    assert await marks.is_processed("c", "m2")
    await marks.close()
    await checkpoints.close()


async def test_stale_knowledge_is_never_the_reason_of_a_conflict(
    store: MongoDBEventStore, mongo_url: str, database: str
) -> None:
    """Two processes take turns on one stream; each knows only its own appends and still judges by what is stored."""
    async with a_store(mongo_url, database) as other:
        for version in range(6):
            writer = (store, other)[version % 2]
            assert await writer.append("a", added(str(version)), expected_version=version) == version + 1
        with pytest.raises(ConcurrencyError) as caught:
            await store.append("a", added("x"), expected_version=5)
        assert caught.value.actual_version == 6
    await check_log(store, 6)


async def test_a_follower_of_two_stores_and_two_processes_skips_nothing(mongo_url: str, database: str) -> None:
    """Its view, followed from the first event on, is the final log; every writer's events are there in its order."""
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload([mongo_writer.__name__])
    processes = [
        context.Process(target=mongo_writer.work, args=(mongo_url, database, name), daemon=True)  # type: ignore[attr-defined]
        for name in "ab"
    ]
    for process in processes:
        process.start()
    total, seen = 4 * EACH + 4 * RACES, []
    async with a_store(mongo_url, database) as store:
        store.poll_interval_seconds = 0.02
        ours = [asyncio.create_task(part(mongo_url, database, name)) for part in (write, race) for name in "cd"]
        async with asyncio.timeout(60):
            async for event in store.subscribe():
                seen.append(event)
                if len(seen) == total:
                    break
        await asyncio.gather(*ours)
        for process in processes:
            while process.is_alive():
                await asyncio.sleep(0.01)
            assert process.exitcode == 0
        assert await check_log(store, total) == seen
        counter = await store.read("counter")
        for name in "abcd":
            assert [event.number for event in counter if event.writer == name] == list(range(RACES))
    for writer in "abcd":
        for part in range(4):
            numbers = [event.number for event in seen if event.writer == f"{writer}{part}"]
            assert numbers == list(range(part, EACH, 4)), "each coroutine's events are there, in its order"


async def test_cancelled_appends_are_whole_or_absent_and_can_be_repeated(store: MongoDBEventStore) -> None:
    """Cancelled at many moments; no batch is torn, and appending the same events again stores nothing twice."""
    chance = random.Random(5)
    batches = [(f"s{n % 3}", [Counted(writer=f"w{n}", number=k) for k in range(3)]) for n in range(24)]
    tasks = []
    for stream_id, events in batches:
        tasks.append(asyncio.create_task(store.append(stream_id, events)))
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.004)))
        if chance.random() < 0.7:
            tasks[-1].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    for stream_id, events in batches:
        await store.append(stream_id, events)
    events = await check_log(store, 72)
    for start in range(0, 72, 3):
        batch = events[start : start + 3]
        assert len({event.writer for event in batch}) == 1
        assert [event.number for event in batch] == [0, 1, 2]


async def test_a_cancelled_unit_of_work_is_whole_or_absent(store: MongoDBEventStore) -> None:
    """Cancelled before, at and after its commit; both of its streams agree each time."""

    async def work(number: int) -> None:
        async with store.unit_of_work():
            await store.append("a", [Counted(writer="u", number=number)])
            await store.append("b", [Counted(writer="u", number=number)])

    for number in range(12):
        task = asyncio.create_task(work(number))
        await asyncio.sleep(0.002 * number)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(10):  # the server may carry out a cancelled call between two reads
        while len(first := await store.read("a")) != len(second := await store.read("b")):
            await asyncio.sleep(0.02)
    assert [event.number for event in first] == [event.number for event in second]
    await check_log(store, 2 * len(first))


async def test_after_giving_up_the_same_events_can_be_appended_again(
    mongo_url: str, database: str, services: Any
) -> None:
    """The server stays away for longer than allowed: one clear error, and a retry finds or stores the events once."""
    proxy = services.get("toxiproxy")
    host, _, rest = mongo_url.removeprefix("mongodb://").partition("/")
    port = proxy.proxy(database, int(host.rpartition(":")[2]))
    async with store_at(f"mongodb://127.0.0.1:{port}/{rest.partition('?')[0]}", database, 0.5) as store:
        await store.append("a", added("0"))
        events = added("1", "2")
        toxic = {"name": "cut", "type": "limit_data", "stream": "downstream", "attributes": {"bytes": 10}}
        await asyncio.to_thread(proxy.call, "POST", f"/proxies/{database}/toxics", toxic)
        with pytest.raises(EventStoreConnectionError, match="MongoDB: "):
            await store.append("a", events, expected_version=1)
        await asyncio.to_thread(proxy.call, "DELETE", f"/proxies/{database}/toxics/cut")
        assert events[0].sequence_number is None
        await asyncio.sleep(0.6)
        assert await store.append("a", events, expected_version=1) == 3
        assert positions(events) == [2, 3]
        await check_log(store, 3)


async def test_an_unreachable_server_is_one_clear_error() -> None:
    """Never the driver's own error, and the password is not in it."""
    store = store_at("mongodb://ada:s3cr3t@127.0.0.1:1/", "nowhere", 0.3)
    with pytest.raises(EventStoreConnectionError) as caught:
        await store.connect()
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in repr(store.mongo.settings)
    await store.close()


async def test_a_batch_larger_than_a_document_is_refused_whole(store: MongoDBEventStore) -> None:
    """One clear error, nothing written, neighbours unharmed; just below the limit it is stored as one commit."""
    half = "x" * (7 * 1024 * 1024)
    fits = [ItemAdded(sku=half), ItemAdded(sku=half)]
    outcomes = await asyncio.gather(
        store.append("a", added("0")),
        store.append("big", [ItemAdded(sku=half), *fits]),
        store.append("b", added("1")),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], EventValidationError)
    assert outcomes[1].field == "events"
    assert [outcomes[0], outcomes[2]] == [1, 1]
    assert await store.append("big", fits, expected_version=0) == 2
    assert await store.events.count_documents({"n": 2}) >= 1
    assert await store.head() == 4


async def test_ids_stored_by_another_process_are_noticed(
    store: MongoDBEventStore, mongo_url: str, database: str
) -> None:
    """A retry in another process finds the first attempt; half of a batch is an error, never a duplicate."""
    events = [ItemAdded(sku=str(n)) for n in range(3)]
    copies = [ItemAdded(sku=e.sku, event_id=e.event_id, occurred_at=e.occurred_at) for e in events]
    async with a_store(mongo_url, database) as other:
        await other.append("a", added("0"))
        await store.append("a", events, expected_version=1)
        assert await other.append("a", copies, expected_version=1) == 4
        with pytest.raises(EventPersistenceError):
            await other.append("a", [copies[2].with_version(0), *added("4")])
    await check_log(store, 4)


async def test_readers_of_a_stream_being_compacted_see_no_hole(store: MongoDBEventStore) -> None:
    """What is read is always a piece without a hole, up to the last version."""
    for n in range(40):
        await store.append("a", added(str(n)))

    async def compact() -> None:
        for version in range(4, 40, 4):
            await store.compact("a", version)

    compacting = asyncio.create_task(compact())
    while not compacting.done():
        found = versions(await store.read("a"))
        assert found == list(range(found[0], 41))
    await compacting


async def test_watching_yields_what_is_stored_from_now_on(
    store: MongoDBEventStore, mongo_url: str, database: str
) -> None:
    """Another process's events come by change stream or by looking; types are selected; order is the log's."""
    await store.append("a", added("old"))
    store.poll_interval_seconds = 0.05
    watching: Any = store.watch_events([ItemAdded, ItemRemoved.__name__])
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(0.2)
    async with a_store(mongo_url, database) as other:
        await other.append("a", [Counted(writer="x", number=1), ItemAdded(sku="1"), ItemRemoved(sku="2")])
        assert (await asyncio.wait_for(first, 5)).sku == "1"
        assert (await asyncio.wait_for(anext(watching), 5)).sku == "2"
    await watching.aclose()


async def test_change_streams_wake_the_watcher(store: MongoDBEventStore, mongo_url: str, database: str) -> None:
    """Where the server has change streams, nothing waits for the next look."""
    store.poll_interval_seconds = 60.0
    watching: Any = store.watch_events()
    first = asyncio.create_task(anext(watching))
    await asyncio.sleep(1.0)
    if store._signal.is_supported is False:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        pytest.skip("the server refuses change streams; name a replica set in LEXIGRAM_TEST_MONGO_URL to run this")
    async with a_store(mongo_url, database) as other:
        await other.append("a", added("1"))
    assert (await asyncio.wait_for(first, 5)).sku == "1"
    await watching.aclose()
