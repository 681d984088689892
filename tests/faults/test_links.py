"""Bad links to the three servers, by Toxiproxy: nothing is lost, nothing is stored twice, and pools heal by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events.stores.mongodb.config import MongoDBConfig
from tests.backends import open_store
from tests.faults.batches import batch, check_log, follow_until, post_unit
from tests.postgres_schemas import EmptySchemas
from tools.services import Services

SERVERS = {"postgres": "postgres", "mongodb": "mongo", "redis": "redis"}

Toxic = tuple[str, str, dict[str, int]]
"""Kind; `upstream` for what the server is asked, `downstream` for what it answers; attributes."""

LOST: dict[str, Toxic] = {
    "cut in the request": ("limit_data", "upstream", {"bytes": 60}),
    "cut in a long request": ("limit_data", "upstream", {"bytes": 100_000}),
    "answer lost": ("limit_data", "downstream", {"bytes": 0}),
    "answer cut": ("limit_data", "downstream", {"bytes": 10}),
    "reset by the server's side": ("reset_peer", "downstream", {"timeout": 0}),
    "reset in the statement": ("reset_peer", "upstream", {"timeout": 1}),
    "half-open requests": ("timeout", "upstream", {"timeout": 0}),
    "half-open answers": ("timeout", "downstream", {"timeout": 0}),
}
SLOW: tuple[Toxic, ...] = (
    ("latency", "upstream", {"latency": 20, "jitter": 15}),
    ("latency", "downstream", {"latency": 20, "jitter": 15}),
)


class Link:
    """A proxied way to one server, and the same log without it."""

    def __init__(self, services: Services, backend: str) -> None:
        self.backend = backend
        self._proxy: Any = services.get("toxiproxy")
        self._name = f"{backend}-{uuid4().hex[:8]}"
        server: Any = services.get(SERVERS[backend])
        self._straight, self._port = server.port, self._proxy.proxy(self._name, server.port)
        self._log: Any = f"lx_{uuid4().hex}"
        if backend == "postgres":
            self._log = EmptySchemas(server.url, purpose="links").config()

    def store(self, *, through: bool = True) -> Any:
        """Return a store that gives a silent server half a second, and one that is away a minute."""
        port = self._port if through else self._straight
        if self.backend == "postgres":
            silent = 0.5 if through else 60.0
            settings = {"pool_min_size": 4, "pool_max_size": 8, "command_timeout": silent, "reconnect_timeout": 60.0}
            dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
            return open_store("postgres", self._log.model_copy(update={**settings, "dsn": type(self._log.dsn)(dsn)}))
        if self.backend == "mongodb":
            url = f"mongodb://127.0.0.1:{port}/?connectTimeoutMS=500&socketTimeoutMS=500"
            return open_store("mongodb", MongoDBConfig(uri=url, database=self._log, max_pool_size=8))
        where = (f"redis://127.0.0.1:{port}/0", self._log)
        return open_store("redis", where, command_timeout_seconds=0.5, retry_seconds=60.0)

    async def spoil(self, *toxics: Toxic) -> None:
        """Let it be bad from now on."""
        for kind, stream, attributes in toxics:
            body = {"name": f"{kind}_{stream}", "type": kind, "stream": stream, "attributes": attributes}
            await asyncio.to_thread(self._proxy.call, "POST", f"/proxies/{self._name}/toxics", body)

    async def heal(self) -> None:
        """Let it be good again; what was half-open stays so, as after a change of the network."""
        for toxic in await asyncio.to_thread(self._proxy.call, "GET", f"/proxies/{self._name}/toxics"):
            await asyncio.to_thread(self._proxy.call, "DELETE", f"/proxies/{self._name}/toxics/{toxic['name']}")

    async def cut(self) -> None:
        """Close all connections, those that nobody uses too; new ones are good."""
        for is_enabled in (False, True):
            await asyncio.to_thread(self._proxy.call, "POST", f"/proxies/{self._name}", {"enabled": is_enabled})

    def close(self) -> None:
        """Remove the proxy."""
        self._proxy.call("DELETE", f"/proxies/{self._name}")


@pytest.fixture(params=SERVERS)
def link(request: pytest.FixtureRequest, services: Services) -> Iterator[Link]:
    """To each of the three servers."""
    link = Link(services, request.param)
    yield link
    link.close()


async def all_of_the_pool_works(store: Any) -> None:
    """More reads at once than there are connections, and an append: at once, without an error."""
    async with asyncio.timeout(5):
        await asyncio.gather(*(store.read("warm") for _ in range(24)), store.append("warm", batch(uuid4().hex, 1)))


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("work", ["appends", "units of work"])
async def test_what_was_under_way_is_there_once(link: Link, fault: str, work: str) -> None:
    """The link breaks while something is written and heals later: every caller ends well, and all of it is stored once."""
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(link.store(through=False))
        store = await stack.enter_async_context(link.store())
        await store.append("warm", batch("first", 1))
        await all_of_the_pool_works(store)
        await link.spoil(LOST[fault])
        filling = "x" * 60_000 if fault == "cut in a long request" else ""
        tasks = [
            asyncio.create_task(
                store.append(f"s{n % 3}", batch(f"b{n}", 3, filling))
                if work == "appends"
                else post_unit(store, f"b{n}", filling)
            )
            for n in range(10)
        ]
        await asyncio.sleep(0.4)
        assert not all(task.done() for task in tasks), "the fault is felt"
        await link.heal()
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)
        assert {f"b{n}" for n in range(10)} <= await check_log(direct)
        await all_of_the_pool_works(store)


async def test_a_slow_link_changes_nothing_but_time(link: Link) -> None:
    """Answers that come late and out of step: appends of two stores, units of work, and a reader that skips nothing."""
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(link.store(through=False))
        store = await stack.enter_async_context(link.store())
        await link.spoil(*SLOW)
        total = 2 * sum(1 + n % 3 for n in range(60)) + 5 * 3
        await asyncio.gather(
            follow_until(store, total, 60),
            follow_until(direct, total, 60),
            *(store.append(f"s{n % 3}", batch(f"slow{n}", 1 + n % 3)) for n in range(60)),
            *(direct.append(f"s{n % 3}", batch(f"fast{n}", 1 + n % 3)) for n in range(60)),
            *(post_unit(store, f"unit{n}") for n in range(5)),
        )
        wanted = {f"{kind}{n}" for kind in ("slow", "fast") for n in range(60)} | {f"unit{n}" for n in range(5)}
        await check_log(store, wanted)


async def test_idle_connections_that_were_cut_are_replaced(link: Link) -> None:
    """Nobody was using them: the next reads and appends succeed at once, as if nothing had been."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(link.store())
        await all_of_the_pool_works(store)
        await link.cut()
        await all_of_the_pool_works(store)
        await check_log(store)
