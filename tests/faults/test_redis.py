"""Redis under races, crashes, cuts and cancellation: nothing acknowledged is lost, nothing is stored twice."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from lexigram.events.exceptions import (
    ConcurrencyError,
    EventError,
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventValidationError,
)
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.stores.redis import log as redis_log
from lexigram.events.stores.redis.checkpoint_store import RedisCheckpointStore
from lexigram.events.stores.redis.event_store import RedisEventStore
from lexigram.events.testing.samples import added, positions, skus, versions
from tests.faults import redis_shop, redis_writer
from tests.faults.redis_writer import Noted, batch
from tools.services import Services

if TYPE_CHECKING:
    from tools.servers.base import Server

METHOD = "spawn" if sys.platform == "win32" else "forkserver"


def namespace() -> str:
    """Return a namespace that no other test uses."""
    return f"test:{uuid4().hex}"


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisEventStore]:
    """A new, empty store."""
    async with RedisEventStore(redis_url, namespace()) as store:
        yield store


def process(target: Any, *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start a process that dies with this one."""
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload([redis_writer.__name__, redis_shop.__name__])
    started = context.Process(target=target, args=arguments, daemon=True)  # type: ignore[attr-defined]
    started.start()
    return started  # type: ignore[no-any-return]


async def check_the_log(store: RedisEventStore, acknowledged: set[str]) -> int:
    """Check that the log is whole and holds every acknowledged batch once; return the number of events."""
    events: list[Noted] = [event async for event in store.stream_all(batch_size=1000)]
    assert positions(events) == list(range(1, await store.head() + 1)), "positions are gap-free"
    assert len({event.event_id for event in events}) == len(events), "every event is there once"
    batches: dict[str, list[Noted]] = defaultdict(list)
    for event in events:
        batches[event.batch].append(event)
    for name, found in batches.items():
        assert [event.index for event in found] == list(range(found[0].size)), f"batch {name} is whole and in order"
        assert found[-1].sequence_number == (found[0].sequence_number or 0) + found[0].size - 1, f"{name} is contiguous"
        assert not name.endswith("+") or name[:-1] in batches, f"the unit of work of {name} is whole"
    assert acknowledged <= batches.keys(), "everything acknowledged is there"
    for stream_id in await store.get_stream_ids():
        stored = await store.read(stream_id)
        assert versions(stored) == list(range(1, len(stored) + 1)), f"versions of {stream_id}"
    return len(events)


async def test_64_coroutines_racing_on_one_stream_have_one_winner_per_version(store: RedisEventStore) -> None:
    """Everybody appends three events by optimistic concurrency; the losers get both versions and try again."""
    conflicts = 0

    async def race(number: int) -> None:
        nonlocal conflicts
        won = 0
        version = 0
        while won < 3:
            try:
                version = await store.append("counter", added(f"{number}.{won}"), expected_version=version)
            except ConcurrencyError as error:
                assert error.expected_version == version
                assert error.actual_version is not None
                assert error.actual_version > version
                conflicts, version = conflicts + 1, error.actual_version
            else:
                won += 1

    await asyncio.gather(*(race(number) for number in range(64)))
    events = await store.read("counter")
    assert versions(events) == positions(events) == list(range(1, 64 * 3 + 1))
    assert sorted(skus(events)) == sorted(f"{number}.{won}" for number in range(64) for won in range(3))
    assert conflicts > 64


async def test_a_follower_sees_no_gap_while_two_processes_and_two_stores_write(redis_url: str) -> None:
    """The follower starts at the first event; what it saw is the final log, in order."""
    name, count = namespace(), 120
    writers = [process(redis_writer.write, redis_url, name, part, count) for part in ("a", "b")]
    seen: list[Noted] = []
    total = 4 * sum(1 + n % 3 for n in range(count))
    async with RedisEventStore(redis_url, name) as one, RedisEventStore(redis_url, name) as two:

        async def write(store: RedisEventStore, part: str) -> None:
            for n in range(count):
                await store.append(f"shared-{n % 5}", batch(f"{part}/{n}", 1 + n % 3))

        ours = asyncio.gather(write(one, "c"), write(two, "d"))
        async with asyncio.timeout(30):
            async for event in one.subscribe(batch_size=50):
                seen.append(event)
                assert event.sequence_number == len(seen), "the next position, none skipped"
                if len(seen) == total:
                    break
        await ours
        for writer in writers:
            await asyncio.to_thread(writer.join)
            assert writer.exitcode == 0
        assert await check_the_log(two, {event.batch for event in seen}) == total


async def follow(url: str, batches: int, size: int) -> None:
    """Follow while a process appends batches, and look at every position."""
    name = namespace()
    writer = process(redis_writer.write_many, url, name, batches, size)
    async with RedisEventStore(url, name) as store:
        async with asyncio.timeout(3000):
            expected = 0
            async for event in store.subscribe(batch_size=1000):
                expected += 1
                assert event.sequence_number == expected, "the next position, none skipped"
                if expected == batches * size:
                    break
        await asyncio.to_thread(writer.join)
        assert writer.exitcode == 0
        assert await store.head() == batches * size


@pytest.mark.slow
async def test_a_follower_of_100_000_events_skips_none(redis_url: str) -> None:
    """While they are being written by another process."""
    await follow(redis_url, 500, 200)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_follower_of_a_million_events_skips_none(redis_url: str) -> None:
    """The same, ten times as long."""
    await follow(redis_url, 5000, 200)


async def test_another_process_wakes_a_follower_without_polling(redis_url: str) -> None:
    """With a backstop of a minute, what another connection appends arrives at once."""
    name = namespace()
    async with RedisEventStore(redis_url, name) as reading, RedisEventStore(redis_url, name) as writing:
        reading.poll_interval_seconds = 60.0
        waiting = asyncio.create_task(reading.wait_for_events(0, 30.0))
        await asyncio.sleep(0.1)
        await writing.append("a", added("1"))
        assert await asyncio.wait_for(waiting, 5)


async def test_a_killed_server_loses_nothing_and_stores_nothing_twice(own_redis: Server) -> None:
    """kill -9 under load, twice, and a restart on the same data: the writers just take longer."""
    name, acknowledged, running = namespace(), set(), True
    async with RedisEventStore(own_redis.url, name, require_durable=True, retry_seconds=30.0) as store:

        async def write(number: int) -> None:
            n = 0
            while running:
                n += 1
                key = f"{number}/{n}"
                if n % 5 == 0:
                    async with store.unit_of_work():
                        await store.append(f"s{n % 7}", batch(key, 2))
                        await store.append(f"beside-{number}", batch(f"{key}+", 1))
                else:
                    await store.append(f"s{n % 7}", batch(key, 1 + n % 4))
                acknowledged.add(key)

        writers = [asyncio.create_task(write(number)) for number in range(16)]
        for _ in range(2):
            await asyncio.sleep(0.3)
            own_redis.kill()
            before = len(acknowledged)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own_redis.restart)  # type: ignore[attr-defined]
            while len(acknowledged) < before + 32:
                await asyncio.sleep(0.01)
        running = False
        await asyncio.gather(*writers)
        assert len(acknowledged) > 64
        await check_the_log(store, acknowledged)


async def test_killed_writers_leave_nothing_half_done(redis_url: str) -> None:
    """kill -9 of a client: what it was told is there, and its batches and units of work are whole."""
    name, acknowledged = namespace(), set()
    for run in range(3):
        reading, writing = multiprocessing.get_context(METHOD).Pipe(duplex=False)
        writer = process(redis_writer.write_until_killed, redis_url, name, str(run), writing)
        writing.close()
        end = None
        while end is None or time.monotonic() < end:
            if await asyncio.to_thread(reading.poll, 0.005 if end else 30):
                acknowledged.add(reading.recv_bytes().decode())
                end = end or time.monotonic() + 0.1
        writer.kill()
        await asyncio.to_thread(writer.join)
        try:
            while True:
                acknowledged.add(reading.recv_bytes().decode())
        except (EOFError, OSError):
            reading.close()
    async with RedisEventStore(redis_url, name) as store:
        assert len(acknowledged) > 10
        await check_the_log(store, acknowledged)


async def test_sagas_killed_anywhere_run_every_step_exactly_once(redis_url: str) -> None:
    """Step appends and saga state are one call: after kill -9, again and again, no step is missing or repeated."""
    name, orders = namespace(), 120
    for run in range(3):
        reading, writing = multiprocessing.get_context(METHOD).Pipe(duplex=False)
        worker = process(redis_shop.main, redis_url, name, orders, writing)
        writing.close()
        await asyncio.to_thread(reading.recv_bytes)
        await asyncio.sleep(0.15 + run * 0.1)
        worker.kill()
        await asyncio.to_thread(worker.join)
        reading.close()
    await redis_shop.run(redis_url, name, orders)
    async with RedisEventStore(redis_url, name) as store, RedisCheckpointStore(store) as checkpoints:
        for order in range(orders):
            did = [event.what for event in await store.read(f"saga-{order}")]
            assert did == ["reserved", "charged", "refunded" if order % 3 == 0 else "shipped"], order
        head = await store.head()
        assert await checkpoints.get_checkpoint("seen") == head == orders * 3
    # A projection goes on where the last process has left it.
    assert await redis_shop.run(redis_url, name, orders) == []


@pytest.fixture
def proxied(services: Services, redis_url: str) -> Iterator[tuple[Any, str]]:
    """The proxy's control and the address of the server through it."""
    proxy: Any = services.get("toxiproxy")
    name = f"redis-{uuid4().hex[:8]}"
    port = proxy.proxy(name, int(redis_url.rpartition(":")[2].partition("/")[0]))
    yield _Toxics(proxy, name), f"redis://127.0.0.1:{port}/0"
    proxy.call("DELETE", f"/proxies/{name}")


class _Toxics:
    """Puts faults into one proxied link."""

    def __init__(self, proxy: Any, name: str) -> None:
        self._proxy, self._path = proxy, f"/proxies/{name}/toxics"

    def add(self, kind: str, stream: str, **attributes: int) -> None:
        """Let it break: `downstream` is what the server answers, `upstream` what it is asked."""
        self._proxy.call(
            "POST", self._path, {"name": "fault", "type": kind, "stream": stream, "attributes": attributes}
        )

    def remove(self) -> None:
        """Let it work again."""
        self._proxy.call("DELETE", f"{self._path}/fault")


@pytest.mark.parametrize(
    ("kind", "stream", "attributes"),
    [
        ("limit_data", "downstream", {"bytes": 0}),
        ("limit_data", "upstream", {"bytes": 300}),
        ("reset_peer", "downstream", {"timeout": 0}),
        ("timeout", "downstream", {"timeout": 0}),
        ("timeout", "upstream", {"timeout": 0}),
    ],
    ids=["answer lost", "cut in the request", "reset", "half-open answers", "half-open requests"],
)
async def test_an_append_with_unknown_outcome_is_resolved(
    proxied: tuple[Any, str], kind: str, stream: str, attributes: dict[str, int]
) -> None:
    """The link breaks while appends and units of work are under way and heals later: each is stored exactly once."""
    toxics, url = proxied
    async with RedisEventStore(url, namespace(), command_timeout_seconds=0.4, retry_seconds=20.0) as store:
        await store.append("a", batch("first", 2))
        toxics.add(kind, stream, **attributes)

        async def unit() -> None:
            async with store.unit_of_work():
                await store.append("a", batch("u", 2))
                await store.append("b", batch("u+", 1))

        appends = [asyncio.create_task(store.append("a", batch(f"n{n}", 2))) for n in range(8)]
        tasks = [*appends, asyncio.create_task(unit())]
        await asyncio.sleep(0.6)
        toxics.remove()
        await asyncio.gather(*tasks)
        assert await check_the_log(store, {"first", "u", "u+", *(f"n{n}" for n in range(8))}) == 2 + 16 + 3


async def test_an_unreachable_server_is_our_error_and_the_same_append_works_later(proxied: tuple[Any, str]) -> None:
    """After `retry_seconds` the caller is told that the outcome is unknown; the same events again store nothing twice."""
    toxics, url = proxied
    async with RedisEventStore(url, namespace(), command_timeout_seconds=0.2, retry_seconds=0.1) as store:
        events = batch("b", 3)
        toxics.add("limit_data", "downstream", bytes=0)
        with pytest.raises(EventStoreConnectionError, match="unknown"):
            await store.append("a", events, expected_version=0)
        with pytest.raises(EventStoreConnectionError):
            await store.read("a")
        toxics.remove()
        assert await store.append("a", events, expected_version=0) == 3
        assert await check_the_log(store, {"b"}) == 3


async def test_a_cancelled_append_is_whole_or_not_there(store: RedisEventStore) -> None:
    """Cancelled after 0, 1, 2, … turns of the loop: no half batch, the store works on, and a retry finds what is there."""
    done: set[str] = set()
    for turns in range(24):
        events = batch(f"c{turns}", 5)
        task = asyncio.create_task(store.append("a", events))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            await store.append("a", events)
        done.add(f"c{turns}")
    assert await check_the_log(store, done) == 24 * 5


async def test_a_cancelled_unit_of_work_is_whole_or_not_there(store: RedisEventStore) -> None:
    """Cancelled at any point, its two appends are both there or both missing."""

    async def unit(name: str) -> None:
        async with store.unit_of_work():
            await store.append("a", batch(name, 2))
            await store.append("b", batch(f"{name}+", 1))

    for turns in range(0, 120, 4):
        task = asyncio.create_task(unit(f"u{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    names = {event.batch for event in await store.read_all()}
    assert {name for name in names if not name.endswith("+")} == {name[:-1] for name in names if name.endswith("+")}
    await check_the_log(store, names)


async def test_a_cancelled_reader_stops_and_leaves_the_connections_usable(store: RedisEventStore) -> None:
    """Cancelled anywhere in a read, it ends there (drivers have lost cancellations), and the next answer is the next's."""
    await store.append("a", batch("x", 500))

    async def read() -> None:
        while True:
            await store.read("a", limit=5)
            await store.head()

    for turns in range(40):
        task = asyncio.create_task(read())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        assert await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)
        assert task.cancelled()
        assert await store.head() == 500
        assert len(await store.read("a", limit=7)) == 7


async def test_a_server_that_may_lose_events_is_not_called_durable(
    own_redis: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning for each server says why; `require_durable` refuses it; with `appendfsync always` all is well."""
    async with RedisEventStore(own_redis.url, require_durable=True) as store:
        assert store.is_durable
        for setting, reason in (
            (("appendfsync", "everysec"), "appendfsync is everysec"),
            (("appendonly", "no"), "appendonly is not yes"),
        ):
            await store.log.connection.read("CONFIG", "SET", *setting)
            redis_log._warned.clear()
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                for _ in range(2):
                    async with RedisEventStore(own_redis.url, namespace()) as lax:
                        assert lax.is_durable is False
            assert [reason in record.message for record in caplog.records] == [True]
            with pytest.raises(EventPersistenceError, match=reason):
                await RedisEventStore(own_redis.url, require_durable=True).connect()
        for setting in (("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory", "100mb")):
            await store.log.connection.read("CONFIG", "SET", *setting)
        await store.log.connection.read("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(EventPersistenceError, match="removes events"):
            await RedisEventStore(own_redis.url, require_durable=True).connect()
    own_redis.kill()  # it would take its time


async def test_a_full_server_refuses_the_append_and_writes_nothing(own_redis: Server) -> None:
    """`maxmemory` reached: our error, no half batch, and appends work again once there is room."""
    async with RedisEventStore(own_redis.url, namespace()) as store:
        await store.append("a", batch("first", 2))
        await store.log.connection.read("CONFIG", "SET", "maxmemory", "1kb")
        with pytest.raises(EventPersistenceError, match="memory is full"):
            await store.append("a", batch("second", 2))
        outcomes = await asyncio.gather(
            *(store.append("a", batch(str(n), 2)) for n in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [EventPersistenceError] * 3
        await store.log.connection.read("CONFIG", "SET", "maxmemory", "0")
        await store.append("a", batch("third", 2))
        assert await check_the_log(store, {"first", "third"}) == 4


async def test_no_error_of_the_driver_comes_out(own_redis: Server) -> None:
    """A key that somebody else has overwritten, a wrong password, a stopped server: each is an error of ours."""
    async with RedisEventStore(own_redis.url, "mine", retry_seconds=0.0) as store:
        await store.append("a", added("1"))
        connection = store.log.connection
        await connection.read("RENAME", "{mine}:log", "{mine}:kept")
        await connection.read("SET", "{mine}:log", "x")
        with pytest.raises(EventLoadError):
            await store.read_all()
        with pytest.raises(EventPersistenceError):
            await store.append("a", added("2"))
        await connection.read("SET", "{mine}:format", "2")
        with pytest.raises(EventError, match="later release"):
            await RedisEventStore(own_redis.url, "mine").connect()
        await connection.read("CONFIG", "SET", "requirepass", "secret")
        with pytest.raises(EventStoreConnectionError):
            await RedisEventStore(own_redis.url).connect()
        own_redis.kill()
        for call in (store.head(), store.append("a", added("3")), store.get_stream_ids()):
            with pytest.raises(EventStoreConnectionError):
                await call


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("http://127.0.0.1",), "store"),
        ((5,), "store"),
        (("redis://127.0.0.1/0", "a{b}"), "namespace"),
        (("redis://127.0.0.1/0", ""), "namespace"),
        (("redis://127.0.0.1/0", "x" * 64), "namespace"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: tuple[Any, ...], field: str) -> None:
    """At construction, before anything is connected."""
    with pytest.raises(EventValidationError) as caught:
        RedisEventStore(*arguments)
    assert caught.value.field == field


async def test_it_works_in_a_cluster_because_all_keys_share_a_hash_tag(services: Services) -> None:
    """A server in cluster mode refuses keys of different slots in one call: none of ours are."""
    from redis.asyncio import Redis as Client
    from redis.asyncio import RedisCluster

    from tools.servers.redis import Redis

    class ClusterRedis(Redis):
        name = "redis-cluster"

        def spawn(self, command: Any, env: Any = None, cwd: Any = None) -> None:
            super().spawn([*command, "--cluster-enabled", "yes"], env, cwd)

    server = ClusterRedis(services.home)
    server.start()
    async with Client.from_url(server.url) as plain:
        await plain.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in await plain.execute_command("CLUSTER", "INFO"):
            await asyncio.sleep(0.05)
    cluster = RedisCluster.from_url(server.url)
    try:
        for client in (server.url, cluster):
            async with RedisEventStore(client, namespace()) as store:
                await store.append("a", added("1", "2", tags=["x", "y"]))
                condition = AppendCondition(EventQuery(tags=["x", "y"]), after=2)
                await store.append("b", added("3"), condition=condition)
                async with store.unit_of_work():
                    await store.append("a", added("4"), expected_version=2)
                    await store.append("b", added("5"), expected_version=1)
                assert skus(await store.query(tags="y")) == ["1", "2"]
                assert await store.compact("a", 1) == 1
                assert skus(await store.read_all()) == ["2", "3", "4", "5"]
                assert await store.wait_for_events(4, 1.0)
    finally:
        await cluster.aclose()
        server.stop()


async def test_a_ready_client_is_used_and_left_open(redis_url: str) -> None:
    """Whatever its settings: one that decodes answers works too, binary payloads included."""
    from redis.asyncio import Redis

    from lexigram.events.messages.codec import EventCodec

    async with Redis.from_url(redis_url, decode_responses=True) as client:
        async with RedisEventStore(client, namespace(), codec=EventCodec(format="binary")) as store:
            await store.append("a", added("1", "ä"))
            assert skus(await store.read("a")) == ["1", "ä"]
            assert await store.get_stream_ids() == ["a"]
        assert await client.ping()
