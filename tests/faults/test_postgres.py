"""PostgreSQL under races, crashes, cuts and cancellation: nothing acknowledged is lost, nothing is stored twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.exceptions import (
    ConcurrencyError,
    EventError,
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventStoreError,
)
from lexigram.events.sagas.postgres import PostgresSagaStore
from lexigram.events.sagas.types import SagaStatus
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.stores.postgres import PostgresCheckpointStore, PostgresEventStore
from lexigram.events.testing.samples import ItemAdded, added, positions, skus, versions
from tests.faults import postgres_shop, postgres_writer
from tests.faults.postgres_writer import Posted, batch
from tests.flow import shop_worker
from tests.postgres_schemas import EmptySchemas

if TYPE_CHECKING:
    from tools.services import Services

METHOD = "spawn" if sys.platform == "win32" else "forkserver"


@pytest.fixture
def config(postgres_url: str) -> PostgresEventStoreConfig:
    """Empty tables on the shared server."""
    return EmptySchemas(postgres_url, purpose="faults").config()


@pytest_asyncio.fixture
async def store(config: PostgresEventStoreConfig) -> AsyncIterator[PostgresEventStore]:
    """A store on them."""
    async with PostgresEventStore(config) as opened:
        yield opened


async def works(process: Any, reading: Any) -> None:
    """Wait until a process says that it works; one that does not is ended, so that it disturbs no other test."""
    if not await asyncio.to_thread(reading.poll, 60):
        process.kill()
        pytest.fail("the process does not say that it works")


def through(config: PostgresEventStoreConfig, port: int, **changes: Any) -> PostgresEventStoreConfig:
    """Return the same tables by way of another port."""
    assert config.dsn is not None
    head, _, rest = config.dsn.get_secret_value().rpartition(":")
    dsn = f"{head}:{port}/{rest.partition('/')[2]}"
    return PostgresEventStoreConfig(dsn=dsn, schema_name=config.schema_name, pool_min_size=1, **changes)


async def check_log(store: PostgresEventStore, acknowledged: set[str] = frozenset()) -> list[Posted]:  # type: ignore[assignment]
    """Assert that positions and versions have no hole, batches are whole and contiguous, and nothing is there twice."""
    events: list[Posted] = [event async for event in store.stream_all(batch_size=2000)]
    assert positions(events) == list(range(1, await store.head() + 1))
    assert len({event.event_id for event in events}) == len(events)
    batches: dict[str, list[Posted]] = defaultdict(list)
    for event in events:
        batches[event.batch].append(event)
    for name, found in batches.items():
        assert [event.index for event in found] == list(range(found[0].size)), f"batch {name} is torn or out of order"
        assert positions(found) == list(range(positions(found)[0], positions(found)[0] + len(found))), name
    assert acknowledged <= set(batches), "an acknowledged batch is missing"
    for stream_id in await store.get_stream_ids():
        stored = await store.read(stream_id)
        assert versions(stored) == list(range(1, len(stored) + 1)), stream_id
    return events


async def follow(store: PostgresEventStore, count: int) -> list[int]:
    """Return the positions of the first `count` events as a subscriber sees them."""
    seen: list[int] = []
    async for event in store.subscribe(batch_size=50):
        seen.append(event.sequence_number)
        if len(seen) == count:
            return seen
    raise AssertionError


async def open_transactions(store: PostgresEventStore) -> int:
    """Return how many sessions of the server are inside a transaction, this one aside."""
    row = await store.engine.fetch_one(
        "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
    )
    return int(row[0])


async def test_a_reader_skips_nothing_behind_a_transaction_held_open(
    store: PostgresEventStore, config: PostgresEventStoreConfig
) -> None:
    """A writer appends first and commits last; the reader that follows sees every position, in order."""
    async with PostgresEventStore(config) as slow, PostgresEventStore(config) as other:
        reading = asyncio.create_task(follow(store, 3 + 2 * 150))

        async def slow_writer() -> None:
            for n in range(3):
                async with slow.unit_of_work():
                    await slow.append("slow", batch(f"slow{n}", 1))
                    await asyncio.sleep(0.15)

        async def writer(one: PostgresEventStore, name: str) -> None:
            for n in range(150):
                await one.append(f"{name}{n % 3}", batch(f"{name}{n}", 1))

        await asyncio.gather(slow_writer(), writer(store, "a"), writer(other, "b"))
        async with asyncio.timeout(20):
            assert await reading == list(range(1, 304))
        await check_log(store)


async def test_a_transaction_that_has_not_appended_yet_holds_nobody_up(
    store: PostgresEventStore, config: PostgresEventStoreConfig
) -> None:
    """The lock is taken by the first append, so a unit of work that only reads and computes blocks no one."""
    async with store.unit_of_work() as unit:
        assert await unit.fetch_one("SELECT 1") == (1,)
        async with asyncio.timeout(5):
            async with PostgresEventStore(config) as other:
                await other.append("outside", added("1"))
        await store.append("inside", added("2"))
    assert skus(await store.read_all()) == ["1", "2"]


async def test_two_processes_and_two_stores_share_one_log(
    store: PostgresEventStore, config: PostgresEventStoreConfig
) -> None:
    """Their appends interleave without a hole, and a subscriber in a third place is woken by each of them."""
    assert config.dsn is not None
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload([postgres_writer.__name__])
    arguments = (config.dsn.get_secret_value(), config.schema_name)
    processes = [
        context.Process(target=postgres_writer.write, args=(*arguments, name, 90), daemon=True)  # type: ignore[attr-defined]
        for name in ("p", "q")
    ]
    total = 3 * 180
    reading = asyncio.create_task(follow(store, total))
    for process in processes:
        process.start()
    async with PostgresEventStore(config) as second:
        await asyncio.gather(*(second.append(f"shared-{n % 5}", batch(f"r/{n}", 1 + n % 3)) for n in range(90)))
    while any(process.is_alive() for process in processes):
        await asyncio.sleep(0.01)
    assert [process.exitcode for process in processes] == [0, 0]
    async with asyncio.timeout(20):
        assert await reading == list(range(1, total + 1))
    await check_log(store)


async def test_appends_share_commits_and_a_conflict_costs_its_neighbours_nothing(store: PostgresEventStore) -> None:
    """200 concurrent appends, half of them wrong, take a few commits; each gets its own answer."""
    await store.append("taken", added("0"))
    before = store.engine.committer.commits
    outcomes = await asyncio.gather(
        *(
            store.append("taken", added("no"), expected_version=0)
            if n % 2
            else store.append(f"free{n}", added("yes"), expected_version=0)
            for n in range(200)
        ),
        return_exceptions=True,
    )
    assert outcomes[::2] == [1] * 100
    assert all(isinstance(outcome, ConcurrencyError) and outcome.actual_version == 1 for outcome in outcomes[1::2])
    assert store.engine.committer.commits - before <= 5
    assert await store.head() == 101


async def test_one_append_that_cannot_be_stored_costs_its_neighbours_nothing(postgres_url: str) -> None:
    """A payload that jsonb refuses fails alone, with an error of ours."""
    config = EmptySchemas(postgres_url, "jsonb", "faults").config()
    async with PostgresEventStore(config) as store:
        outcomes = await asyncio.gather(
            *(store.append(f"s{n}", [ItemAdded(sku="a\x00b" if n == 3 else "fine")]) for n in range(8)),
            return_exceptions=True,
        )
        assert isinstance(outcomes.pop(3), EventError)
        assert outcomes == [1] * 7
        assert await store.head() == 7


async def test_cancelled_appends_leave_no_open_transaction_and_no_half_batch(store: PostgresEventStore) -> None:
    """Cancelled after 0, 1, 2, … turns of the loop, alone and inside units of work: whole or not at all."""

    async def plain(n: int) -> None:
        await store.append(f"c{n % 3}", batch(f"plain{n}", 3))

    async def in_unit(n: int) -> None:
        async with store.unit_of_work():
            await store.append(f"c{n % 3}", batch(f"unit{n}", 2))
            await store.append("other", batch(f"unit{n}+", 1))

    for n in range(60):
        task = asyncio.create_task((plain if n % 2 else in_unit)(n))
        for _ in range(n // 2):
            await asyncio.sleep(0)
        if n >= 40:
            await asyncio.sleep(random.uniform(0, 0.01))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await store.append("after", batch("after", 1))
    events = await check_log(store, {"after"})
    names = {event.batch for event in events}
    assert all((f"{name}+" in names) for name in names if name.startswith("unit") and not name.endswith("+"))
    assert await open_transactions(store) == 0


async def test_cancelled_reads_leave_the_connections_usable(config: PostgresEventStoreConfig) -> None:
    """A hundred reads cancelled at any point, with two connections: every later read is answered, and rightly."""
    narrow = PostgresEventStoreConfig(dsn=config.dsn, schema_name=config.schema_name, pool_min_size=1, pool_max_size=2)
    async with PostgresEventStore(narrow) as store:
        await store.append("a", batch("a", 200))
        for n in range(100):
            task = asyncio.create_task(store.read("a"))
            for _ in range(n % 12):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        async with asyncio.timeout(10):
            found = await asyncio.gather(*(store.read("a", 1, n) for n in range(1, 9)))
        assert [len(events) for events in found] == list(range(1, 9))


@pytest.mark.slow
async def test_projections_and_sagas_are_exactly_once_under_kill(
    store: PostgresEventStore, config: PostgresEventStoreConfig
) -> None:
    """kill -9 at random moments: every saga reaches one end, no step ran twice, read models equal the log."""
    assert config.dsn is not None
    orders, context, hits = 40, multiprocessing.get_context(METHOD), 0
    await store.engine.execute("DROP TABLE IF EXISTS shop_sold, shop_done")
    for attempt in range(4):
        reading, writing = context.Pipe(duplex=False)
        arguments = (config.dsn.get_secret_value(), config.schema_name, orders, writing)
        process = context.Process(target=postgres_shop.main, args=arguments, daemon=True)  # type: ignore[attr-defined]
        process.start()
        writing.close()
        await works(process, reading)
        if attempt < 3:
            await asyncio.to_thread(process.join, random.uniform(0.02, 0.3))
            hits += process.is_alive()
            process.kill()
        await asyncio.to_thread(process.join, 60)
        reading.close()
    assert process.exitcode == 0
    assert hits >= 1
    sold: Counter[str] = Counter()
    deeds: dict[int, list[str]] = defaultdict(list)
    events = await store.read_all()
    assert positions(events) == list(range(1, len(events) + 1))
    for event in events:
        if isinstance(event, shop_worker.OrderPlaced):
            sold[event.item] += 1
        else:
            deeds[event.order].append(event.what)
    happy, undone = ["reserved", "charged", "shipped"], ["reserved", "charged", "refunded", "released"]
    assert dict(deeds) == {order: happy if order % 3 else undone for order in range(orders)}
    done = Counter(what for whats in deeds.values() for what in whats)
    for table, expected in (("shop_sold", sold), ("shop_done", done)):
        assert dict(map(tuple, await store.engine.fetch_all(f"SELECT * FROM {table}"))) == dict(expected)
    async with PostgresSagaStore(store) as sagas:
        states = {int(str(record.correlation_key)): record.status for record in await sagas.list_by_name("fulfil")}
    assert states == {order: SagaStatus.COMPLETED if order % 3 else SagaStatus.COMPENSATED for order in range(orders)}


class Cuts:
    """A proxy in front of the server whose answers, requests or both can be stopped."""

    def __init__(self, services: Services) -> None:
        self._toxiproxy: Any = services.get("toxiproxy")
        self.name = f"postgres_{uuid4().hex[:8]}"
        self.port: int = self._toxiproxy.proxy(self.name, services.get("postgres").port)  # type: ignore[attr-defined]

    def add(self, kind: str, stream: str, **attributes: int) -> None:
        body = {"name": f"{kind}_{stream}", "type": kind, "stream": stream, "attributes": attributes}
        self._toxiproxy.call("POST", f"/proxies/{self.name}/toxics", body)

    def remove(self, kind: str, stream: str) -> None:
        self._toxiproxy.call("DELETE", f"/proxies/{self.name}/toxics/{kind}_{stream}")


async def test_a_unit_of_work_whose_commit_got_no_answer_is_looked_up(
    services: Services, config: PostgresEventStoreConfig
) -> None:
    """The answer to COMMIT is lost, the transaction is there: the block ends well and its events are stamped."""
    cuts = Cuts(services)
    async with PostgresEventStore(through(config, cuts.port, listen=False)) as store:
        events = batch("unit", 2)
        lifted = asyncio.create_task(asyncio.sleep(0))
        async with store.unit_of_work():
            await store.append("a", events)
            await asyncio.to_thread(cuts.add, "limit_data", "downstream", bytes=0)

            async def lift() -> None:
                await asyncio.sleep(0.3)
                await asyncio.to_thread(cuts.remove, "limit_data", "downstream")

            lifted = asyncio.create_task(lift())
        await lifted
        assert positions(events) == [1, 2]
        await check_log(store, {"unit"})


async def test_a_server_that_is_away_gives_one_clear_error(config: PostgresEventStoreConfig) -> None:
    """Connecting to a closed port fails at once, with our error and without the password."""
    store = PostgresEventStore("postgresql://ada:s3cr3t@127.0.0.1:1/x")
    with pytest.raises(EventStoreConnectionError) as caught:
        await store.connect()
    assert "127.0.0.1:1" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in repr(store.database.settings)


async def test_parallel_first_connections_migrate_once(postgres_url: str) -> None:
    """Eight stores that find no tables make them together; all of them work."""
    config = PostgresEventStoreConfig(dsn=postgres_url, schema_name=f"race_{uuid4().hex[:8]}", pool_min_size=1)
    stores = [PostgresEventStore(config) for _ in range(8)]
    await asyncio.gather(*(store.connect() for store in stores))
    await asyncio.gather(*(store.append("a", added(str(n))) for n, store in enumerate(stores)))
    assert await stores[0].head() == 8
    assert versions(await stores[7].read("a")) == list(range(1, 9))
    for store in stores:
        await store.close()


async def test_tables_of_a_newer_release_are_refused(
    store: PostgresEventStore, config: PostgresEventStoreConfig
) -> None:
    """A downgrade says so and changes nothing; without permission to create, missing tables are an error too."""
    meta = store.engine.names.meta
    await store.engine.execute(f"UPDATE {meta} SET value = 99 WHERE key = 'schema_version'")
    try:
        with pytest.raises(EventStoreConnectionError, match="newer release"):
            await PostgresEventStore(config).connect()
    finally:
        await store.engine.execute(f"UPDATE {meta} SET value = 1 WHERE key = 'schema_version'")
    missing = PostgresEventStoreConfig(dsn=config.dsn, schema_name="nothing_here", auto_create_tables=False)
    with pytest.raises(EventStoreConnectionError, match="auto_create_tables"):
        await PostgresEventStore(missing).connect()


async def test_a_foreign_row_is_noticed_by_writers_and_readers(store: PostgresEventStore) -> None:
    """Somebody inserts past the head by hand: appends and reads refuse with a clear error instead of trusting it."""
    await store.append("a", added("1"))
    names = store.engine.names
    await store.engine.execute(
        f"INSERT INTO {names.events} SELECT position + 5, stream, version + 1, type, gen_random_uuid(), occurred_at, payload "
        f"FROM {names.events}"
    )
    with pytest.raises(EventPersistenceError, match="something else than this library"):
        await store.append("a", added("2"))
    with pytest.raises(EventError, match="something else than this library"):
        await store.read_all()
    await store.engine.execute(f"DELETE FROM {names.events} WHERE position > 1")
    assert await store.append("a", added("2")) == 2


async def test_a_server_that_defaults_to_repeatable_read_is_refused_not_trusted(
    store: PostgresEventStore, config: PostgresEventStoreConfig
) -> None:
    """With a pool of the application in another isolation level checks would see a stale snapshot; appends refuse."""
    assert config.dsn is not None
    settings = {"default_transaction_isolation": "repeatable read"}
    async with asyncpg.create_pool(config.dsn.get_secret_value(), min_size=1, server_settings=settings) as pool:
        async with PostgresEventStore(config, pool=pool) as over:
            with pytest.raises(EventPersistenceError, match="read committed"):
                await over.append("a", added("1"))
    assert await store.head() == 0


async def test_a_pool_of_the_application_is_used_and_stays_open(config: PostgresEventStoreConfig) -> None:
    """Appends, reads, units of work and wake-ups run on it; closing the store gives every connection back."""
    assert config.dsn is not None
    async with asyncpg.create_pool(config.dsn.get_secret_value(), min_size=1, max_size=6) as pool:
        async with PostgresEventStore(config, pool=pool) as store:
            await asyncio.gather(*(store.append(f"s{n}", added("1")) for n in range(10)))
            async with store.unit_of_work() as unit:
                assert await unit.fetch_one("SELECT count(*) FROM pg_class WHERE relname = $1", ("pg_class",)) == (1,)
                await store.append("u", added("2"))
            assert len(await store.read_all()) == 11
        assert await pool.fetchval("SELECT 1") == 1


async def test_a_slow_unit_of_work_is_rolled_back_and_the_store_goes_on(store: PostgresEventStore) -> None:
    """Longer than its timeout: the block fails with a clear error, the lock is free, nothing is stored."""
    with pytest.raises(EventStoreError, match=r"longer than 0\.1 s"):
        async with store.unit_of_work(timeout_seconds=0.1):
            await store.append("a", added("1"))
            await asyncio.sleep(0.3)
    assert await store.head() == 0
    async with asyncio.timeout(5):
        assert await store.append("a", added("1")) == 1


async def test_a_unit_of_work_may_take_as_long_as_it_likes(store: PostgresEventStore) -> None:
    """An infinite timeout is one that the server knows as its longest."""
    async with store.unit_of_work(timeout_seconds=float("inf")):
        await store.append("a", added("1"))
    assert await store.head() == 1


async def test_a_stopped_process_in_a_unit_of_work_does_not_keep_the_log_locked(
    store: PostgresEventStore, config: PostgresEventStoreConfig
) -> None:
    """Its connection stays open and silent, as that of a machine that is gone: the server ends it after the unit's time."""
    assert config.dsn is not None
    context = multiprocessing.get_context(METHOD)
    reading, writing = context.Pipe(duplex=False)
    arguments = (config.dsn.get_secret_value(), config.schema_name, writing)
    process = context.Process(target=postgres_writer.hold, args=arguments, daemon=True)  # type: ignore[attr-defined]
    process.start()
    writing.close()
    try:
        await works(process, reading)
        os.kill(process.pid, signal.SIGSTOP)
        async with asyncio.timeout(15):
            assert await store.append("held", batch("next", 1)) == 1
        await check_log(store, {"next"})
    finally:
        process.kill()
        process.join()


async def test_a_lock_held_too_long_is_an_error_that_says_so(
    store: PostgresEventStore, config: PostgresEventStoreConfig
) -> None:
    """An append gives up after lock_timeout, and succeeds once the other writer has committed."""
    patient = PostgresEventStoreConfig(
        dsn=config.dsn, schema_name=config.schema_name, pool_min_size=1, lock_timeout=0.2
    )
    async with PostgresEventStore(patient) as other:
        async with store.unit_of_work():
            await store.append("a", added("1"))
            with pytest.raises(EventStoreConnectionError, match="lock"):
                await other.append("b", added("2"))
            with pytest.raises(EventStoreConnectionError, match="lock"):
                async with other.unit_of_work():
                    await other.append("b", added("2"))
        assert await other.append("b", added("2")) == 1


async def test_a_statement_that_takes_too_long_is_an_error_and_the_store_goes_on(
    config: PostgresEventStoreConfig,
) -> None:
    """The server ends it, too: nothing of it goes on behind the client's back."""
    hasty = config.model_copy(update={"command_timeout": 0.3, "pool_max_size": 2})
    async with PostgresEventStore(hasty) as store:
        assert (await store.engine.fetch_one("SHOW statement_timeout")) == ("300ms",)
        for _ in range(3):
            with pytest.raises((EventStoreConnectionError, EventLoadError)):
                await store.engine.fetch_all("SELECT pg_sleep(30)")
        running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(30)'"
        async with asyncio.timeout(10):
            while (await store.engine.fetch_one(running))[0]:
                await asyncio.sleep(0.05)
        assert await store.append("a", added("1")) == 1


async def test_a_condition_holds_against_racing_stores(
    store: PostgresEventStore, config: PostgresEventStoreConfig
) -> None:
    """Ten appends of two stores with one condition: exactly one is stored."""
    condition = AppendCondition(EventQuery(tags="seat:1"))
    async with PostgresEventStore(config) as other:
        outcomes = await asyncio.gather(
            *(
                (store, other)[n % 2].append(f"s{n}", added("1", tags=["seat:1"]), condition=condition)
                for n in range(10)
            ),
            return_exceptions=True,
        )
    assert sum(outcome == 1 for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ConcurrencyError) for outcome in outcomes) == 9


async def test_pgbouncer_in_transaction_mode_works(services: Services, config: PostgresEventStoreConfig) -> None:
    """Behind it nothing is prepared and nobody listens: appends, units of work, conditions and polling still work."""
    bouncer: Any = services.get("pgbouncer")
    async with PostgresEventStore(config) as direct:
        pooled = through(config, bouncer.port, transaction_pooling=True)
        async with PostgresEventStore(pooled) as store, PostgresCheckpointStore(store.database) as checkpoints:
            assert not store.engine.is_listening
            reading = asyncio.create_task(follow(store, 64 + 3))
            await asyncio.gather(*(store.append(f"s{n % 9}", batch(f"b{n}", 1)) for n in range(60)))
            await asyncio.gather(*(direct.append(f"s{n % 9}", batch(f"d{n}", 1)) for n in range(4)))
            async with store.unit_of_work():
                await store.append("u", batch("u", 3))
                await checkpoints.save_checkpoint("orders", 67)
            assert await checkpoints.get_checkpoint("orders") == 67
            async with asyncio.timeout(10):
                assert await reading == list(range(1, 68))
            with pytest.raises(ConcurrencyError):
                await store.append("u", batch("no", 1), expected_version=0)
            await asyncio.gather(*(store.read(f"s{n % 9}") for n in range(50)))
            await check_log(store)
