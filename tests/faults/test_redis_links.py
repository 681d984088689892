"""Redis behind bad links, cancelled, full, misconfigured, in a cluster: our errors, and never half an append."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from lexigram.events.exceptions import (
    EventError,
    EventLoadError,
    EventPersistenceError,
    EventStoreConnectionError,
    EventValidationError,
)
from lexigram.events.sagas.redis import RedisSagaStore
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.stores.redis import log as redis_log
from lexigram.events.stores.redis.checkpoint_store import RedisCheckpointStore
from lexigram.events.stores.redis.event_store import RedisEventStore
from lexigram.events.stores.redis.idempotency_store import RedisIdempotencyStore
from lexigram.events.testing.saga_store import a_record
from lexigram.events.testing.samples import added, skus
from tests.faults.redis_checks import check_the_log, namespace
from tests.faults.redis_writer import batch
from tools.services import Services

if TYPE_CHECKING:
    from tools.servers.base import Server


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisEventStore]:
    """A new, empty store."""
    async with RedisEventStore(redis_url, namespace()) as store:
        yield store


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
    ("kind", "stream", "attributes", "executed"),
    [
        ("limit_data", "downstream", {"bytes": 0}, True),
        ("timeout", "downstream", {"timeout": 0}, True),
        ("limit_data", "upstream", {"bytes": 60}, False),
        ("timeout", "upstream", {"timeout": 0}, False),
        ("reset_peer", "downstream", {"timeout": 0}, None),
    ],
    ids=["answer lost", "half-open answers", "cut in the request", "half-open requests", "reset"],
)
@pytest.mark.parametrize("work", ["appends", "unit of work", "claim and saga"])
async def test_what_has_an_unknown_outcome_is_resolved(
    proxied: tuple[Any, str],
    redis_url: str,
    work: str,
    kind: str,
    stream: str,
    attributes: dict[str, int],
    executed: bool | None,
) -> None:
    """The link breaks while something is written and heals later: whether it was executed or not, it counts once."""
    toxics, url = proxied
    name = namespace()
    async with (
        RedisEventStore(redis_url, name) as direct,
        RedisEventStore(url, name, command_timeout_seconds=0.3, retry_seconds=20.0) as store,
        RedisCheckpointStore(direct) as checkpoints,
        RedisCheckpointStore(store) as ours,
        RedisIdempotencyStore(direct) as claims,
    ):
        marks, sagas = RedisIdempotencyStore(store), RedisSagaStore(store)
        await store.append("a", batch("first", 2))
        await asyncio.gather(*(store.read("a") for _ in range(4)), marks.connect(), sagas.connect())
        ready, broken = asyncio.Event(), asyncio.Event()

        async def unit() -> None:
            async with store.unit_of_work():
                await store.append("a", batch("u", 2))
                await store.append("b", batch("u+", 1))
                await ours.save_checkpoint("p", 5)
                ready.set()
                await broken.wait()

        async def appends() -> None:
            await asyncio.gather(*(store.append("a", batch(f"n{n}", 2)) for n in range(8)))

        async def claim() -> None:
            claimed, _ = await asyncio.gather(marks.claim("c", "m"), sagas.save(a_record()))
            assert claimed, "the claim is ours, also if a retry had to find that out"

        if work == "unit of work":
            task = asyncio.create_task(unit())
            await ready.wait()
        toxics.add(kind, stream, **attributes)
        broken.set()
        if work != "unit of work":
            task = asyncio.create_task(appends() if work == "appends" else claim())
        await asyncio.sleep(0.5)
        if executed is not None:
            done = await claims.is_processed("c", "m") or await direct.head() > 2
            assert done is executed, "the fault is of the kind that this test is about"
        toxics.remove()
        await task
        if work == "appends":
            assert await check_the_log(direct, {f"n{n}" for n in range(8)}) == 2 + 16
        elif work == "unit of work":
            assert await check_the_log(direct, {"u", "u+"}) == 2 + 3
            assert await checkpoints.get_checkpoint("p") == 5
        for part in (marks, sagas):
            await part.close()


async def test_an_unreachable_server_is_our_error_and_the_same_append_works_later(proxied: tuple[Any, str]) -> None:
    """After `retry_seconds` the caller is told that the outcome is unknown; the same events again store nothing twice."""
    toxics, url = proxied
    async with RedisEventStore(url, namespace(), command_timeout_seconds=0.2, retry_seconds=0.1) as store:
        events = batch("b", 3)
        await store.head()
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

    from tools.servers.base import free_port
    from tools.servers.redis import Redis

    class ClusterRedis(Redis):
        name = "redis-cluster"

        def spawn(self, command: Any, env: Any = None, cwd: Any = None) -> None:
            # The port of the cluster's own talk is named: by default it is 10,000 above, which may not exist.
            bus = ["--cluster-port", str(free_port())]
            super().spawn([*command, "--cluster-enabled", "yes", *bus], env, cwd)

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


async def test_a_missing_driver_says_which_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is imported before a store is opened."""
    store = RedisEventStore("redis://127.0.0.1:1/0")
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(EventStoreConnectionError, match=r"lexigram-events\[redis\]"):
        await store.connect()
