"""Logs restored elsewhere, into servers and files that are younger than their events: they go on as if nothing had been."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events import ConcurrencyError, DomainEvent, event_type
from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.stores.mongodb.config import MongoDBConfig
from tests.backends import open_store
from tests.faults.batches import follow_until
from tools.servers.base import program


@event_type("restores.happened")
class Happened(DomainEvent):
    number: int


async def fill(store: Any, first: int, count: int) -> list[Happened]:
    """Append from a few writers at once; return the events."""
    events = [Happened(number=number) for number in range(first, first + count)]

    async def write(mine: list[Happened]) -> None:
        for event in mine:
            await store.append(f"s{event.number % 5}", [event])

    await asyncio.gather(*(write(events[part::4]) for part in range(4)))
    return events


def psql(url: str, *arguments: str, given: str | None = None) -> str:
    """Run psql and return what it prints."""
    command = [program("psql"), "-qAt", "-v", "ON_ERROR_STOP=1", url, *arguments]
    return subprocess.run(command, input=given, check=True, capture_output=True, text=True).stdout


def burn_transaction_ids(url: str, count: int) -> int:
    """Use up transaction ids of a PostgreSQL cluster and return the next one."""
    sql = f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    psql(url, "-c", sql)
    return int(psql(url, "-c", "SELECT pg_current_xact_id()"))


class Sqlite:
    """A file, copied while it is open."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.old, self.new = str(tmp_path / "old.db"), str(tmp_path / "new.db")

    async def restore(self) -> None:
        with closing(sqlite3.connect(self.old)) as old, closing(sqlite3.connect(self.new)) as new:
            old.backup(new)


class Postgres:
    """A dump, whose transaction ids are larger than any of the cluster that it comes to."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self._schema = f"restored_{uuid4().hex[:8]}"
        self._urls = [request.getfixturevalue("own_postgres").url, request.getfixturevalue("postgres_url")]
        self.old, self.new = (PostgresEventStoreConfig(dsn=url, schema_name=self._schema) for url in self._urls)
        old_ids = int(psql(self._urls[1], "-c", "SELECT pg_current_xact_id()")) + 20_000
        assert burn_transaction_ids(self._urls[0], old_ids) > old_ids

    async def restore(self) -> None:
        assert burn_transaction_ids(self._urls[1], 1) < burn_transaction_ids(self._urls[0], 1)
        command = [program("pg_dump"), "--no-owner", "-n", self._schema, self._urls[0]]
        dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        psql(self._urls[1], given=dump)


class MongoDB:
    """The documents of all collections."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self._name = f"lx_{uuid4().hex}"
        self._urls = [request.getfixturevalue("own_mongo").url, request.getfixturevalue("mongo_url")]
        self.old, self.new = (MongoDBConfig(uri=url, database=self._name, max_pool_size=4) for url in self._urls)

    async def restore(self) -> None:
        from pymongo import AsyncMongoClient

        async with AsyncMongoClient[Any](self._urls[0]) as old, AsyncMongoClient[Any](self._urls[1]) as new:
            for name in await old[self._name].list_collection_names():
                documents = await old[self._name][name].find().to_list(None)
                if documents:
                    await new[self._name][name].insert_many(documents)


class Redis:
    """The append-only files of a server, given to another one."""

    def __init__(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self._server = request.getfixturevalue("own_redis")
        self._name = f"restored:{uuid4().hex}"
        self.old = (self._server.url, self._name)
        self.new: Any = None
        request.addfinalizer(self.stop)
        self._other: Any = None

    async def restore(self) -> None:
        self._other = type(self._server)(self._server.home.parent / "other")
        self._other.home.mkdir(parents=True)
        for found in self._server.home.glob("appendonlydir"):
            shutil.copytree(found, self._other.home / found.name)
        await asyncio.to_thread(self._other.start)
        self.new = (self._other.url, self._name)

    def stop(self) -> None:
        if self._other is not None:
            self._other.stop()


@pytest.mark.parametrize("kind", [Sqlite, Postgres, MongoDB, Redis], ids=lambda kind: kind.__name__.lower())
async def test_a_restored_log_goes_on(kind: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Order, versions and retries do not depend on the server's own numbers and clocks; a reader skips nothing."""
    place = kind(request, tmp_path)
    backend = kind.__name__.lower()
    async with open_store(backend, place.old) as store:
        written = await fill(store, 0, 200)
        await store.compact("s0", 10)
        before = await store.read_all()
        await place.restore()
    async with open_store(backend, place.new) as store:
        assert await store.read_all() == before
        assert await store.head() == 200
        following = asyncio.create_task(follow_until(store, 300, 30, after=200))
        await fill(store, 1_000, 100)
        await following
        for event in written:
            if event.number % 5:  # those of s0 are partly compacted
                await store.append(f"s{event.number % 5}", [event])
        assert await store.head() == 300, "a retry of stored events stores nothing"
        for stream in range(5):
            assert await store.get_stream_version(f"s{stream}") == 60
        with pytest.raises(ConcurrencyError):
            await store.append("s1", [Happened(number=1)], expected_version=0)
