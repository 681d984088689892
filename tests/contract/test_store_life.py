"""The life of every kind of store on every backend that has something to open and to close.

Opened at the first use or by `connect`, closed by `close`, then opened again by `connect` only. The inbox and the lease
have no life of their own: they work on an idempotency store and on a checkpoint store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

import pytest

from lexigram.events.buses.dead_letter import DeadLetterFilter
from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.sagas.types import SagaRecord, SagaStatus, now
from lexigram.events.stores.checkpoints import SqlCheckpointStore
from lexigram.events.stores.idempotency import SqlIdempotencyStore
from lexigram.events.stores.outbox.store import AbstractOutboxStore
from lexigram.events.testing.samples import added
from tests.backends import MakeStore, make_store, saga_store

__all__ = ["make_store"]

Uses = tuple[Callable[[Any], Any], ...]


async def in_unit_of_work(store: Any) -> None:
    """Enter and leave a unit of work in which nothing is done."""
    async with store.unit_of_work():
        pass


PREFIX = {"sqlite": "Sqlite", "postgres": "Postgres", "mongodb": "MongoDB", "redis": "Redis"}

USES: dict[str, Uses] = {
    "event": (
        lambda s: s.append("a", added("1")),
        lambda s: s.read("a"),
        lambda s: s.head(),
        lambda s: s.stream_exists("a"),
        lambda s: s.query(limit=0),
        lambda s: s.find_events_since(0, 0),
        lambda s: in_unit_of_work(s),
    ),
    "checkpoint": (
        lambda s: s.get_checkpoint("a"),
        lambda s: s.save_checkpoint("a", 1),
        lambda s: s.acquire_lock("a", "o"),
        lambda s: s.list_checkpoints(),
        lambda s: s.list_faults(),
    ),
    "idempotency": (lambda s: s.claim("c", "m"), lambda s: s.is_processed("c", "m")),
    "snapshot": (lambda s: s.save("a", {"n": 1}, 1), lambda s: s.load("a")),
    "dead_letter": (lambda s: s.count(DeadLetterFilter()), lambda s: s.get("x"), lambda s: s.list_entries()),
    "saga": (
        lambda s: s.create(SagaRecord("s", "n")),
        lambda s: s.save(SagaRecord("s", "n")),
        lambda s: s.load("s"),
        lambda s: s.delete("s"),
        lambda s: s.list_by_name("n"),
        lambda s: s.list_by_status([SagaStatus.RUNNING], ["n"]),
        lambda s: s.list_due(["n"], now()),
    ),
    "outbox": (
        lambda s: s.put(added("a")[0], "k"),
        lambda s: s.claim("o", 10, 5.0),
        lambda s: s.stats(),
        lambda s: s.get_pending(),
        lambda s: s.purge(),
        lambda s: s.mark_published("00000000-0000-0000-0000-000000000000"),
    ),
}


def companion(backend: str, kind: str, store: Any) -> Any:
    """Return another store on the event store's database."""
    if kind == "event":
        return type(store)(store)
    if kind == "saga":
        return saga_store(backend, store)
    if kind == "outbox":
        return store.outbox()
    module = "dead_letters" if kind == "dead_letter" else f"{kind}_store"
    name = PREFIX[backend] + "".join(part.title() for part in kind.split("_")) + "Store"
    return getattr(import_module(f"lexigram.events.stores.{backend}.{module}"), name)(store)


def shared_by(store: Any) -> Any:
    """Return what the store shares with others: its database, its connection, its log."""
    shared = store.database if hasattr(store, "database") else getattr(store, "mongo", None) or store.log
    return getattr(shared, "root", None) or getattr(shared, "_shared", None) or shared


def users(store: Any) -> int:
    """Return how many stores hold open what this one works on."""
    if isinstance(store, AbstractOutboxStore):
        return users(store.checkpoints) + users(store.dead_letters)
    return int(shared_by(store)._users)


async def check(found: Any, uses: Uses) -> None:
    """Use a store, close it twice, and see that each use is refused until it is opened again."""
    before = users(found)
    for use in uses:
        await use(found)
    await found.connect()
    await found.close()
    await found.close()
    assert users(found) == before
    for use in uses:
        with pytest.raises(EventStoreConnectionError, match="closed"):
            await use(found)
    await found.connect()
    for use in uses:
        await use(found)
    await found.close()
    assert users(found) == before


@pytest.mark.parametrize("kind", USES)
@pytest.mark.parametrize("backend", PREFIX)
async def test_a_companion_store_does_not_reopen_by_itself(make_store: MakeStore, backend: str, kind: str) -> None:
    """Whatever method is called first; opening it again is a decision of its own."""
    async with make_store(backend) as store:
        await check(companion(backend, kind, store), USES[kind])
        await store.append("a", added("still open"))


@contextmanager
def held_open(found: Any) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Let a store stop where it has opened what it needs; return an event set there, and one that lets it go on."""
    opened, go_on = asyncio.Event(), asyncio.Event()
    shared = shared_by(found.dead_letters if isinstance(found, AbstractOutboxStore) else found)
    first = shared.open

    async def open_and_stop() -> Any:
        outcome = await first()
        opened.set()
        try:
            await go_on.wait()
        except BaseException:
            await shared.close()
            raise
        return outcome

    with mock.patch.object(shared, "open", open_and_stop):
        yield opened, go_on


@pytest.mark.parametrize("backend", PREFIX)
async def test_closed_while_it_opens_for_its_first_use_it_is_closed(make_store: MakeStore, backend: str) -> None:
    """Whoever uses it is told, and so is whoever waits to use it; whoever closes it need not wait; nothing stays open."""
    async with make_store(backend) as store:
        for kind, uses in USES.items():
            found, use = companion(backend, kind, store), uses[0]
            before = users(found)
            with held_open(found) as (opened, go_on):
                tasks = [asyncio.create_task(use(found)), asyncio.create_task(found.connect())]
                await opened.wait()
                await found.close()
                go_on.set()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [EventStoreConnectionError] * 2
            assert users(found) == before
            with pytest.raises(EventStoreConnectionError, match="closed"):
                await use(found)
            await found.connect()
            await use(found)
            await found.close()
            assert users(found) == before


@pytest.mark.parametrize("backend", PREFIX)
async def test_closed_and_connected_while_it_opens_it_is_open(make_store: MakeStore, backend: str) -> None:
    """Whoever spoke last counts."""
    async with make_store(backend) as store:
        for kind, uses in USES.items():
            found, use = companion(backend, kind, store), uses[0]
            before = users(found)
            with held_open(found) as (opened, go_on):
                first = asyncio.create_task(use(found))
                await opened.wait()
                await found.close()
                again = asyncio.create_task(found.connect())
                await asyncio.sleep(0)
                go_on.set()
                await asyncio.gather(first, again)
                await use(found)
            await found.close()
            assert users(found) == before


@pytest.mark.parametrize("backend", PREFIX)
async def test_many_first_uses_open_a_store_once(make_store: MakeStore, backend: str) -> None:
    """One `close` then gives everything back."""
    async with make_store(backend) as store:
        for kind, uses in USES.items():
            found = companion(backend, kind, store)
            before = users(found)
            outcomes = await asyncio.gather(*(use(found) for use in uses * 3), return_exceptions=True)
            assert not [outcome for outcome in outcomes if isinstance(outcome, EventStoreConnectionError)]
            await asyncio.gather(found.close(), found.close())
            assert users(found) == before


@pytest.mark.parametrize("backend", PREFIX)
async def test_a_store_that_cannot_be_opened_holds_nothing(make_store: MakeStore, backend: str) -> None:
    """A cancellation meanwhile is such a case; the next use tries again."""
    async with make_store(backend) as store:
        for kind, uses in USES.items():
            found, use = companion(backend, kind, store), uses[0]
            before = users(found)
            with held_open(found) as (opened, _):
                first = asyncio.create_task(use(found))
                await opened.wait()
                first.cancel()
                await asyncio.wait([first])
            await use(found)
            await found.close()
            assert users(found) == before


@pytest.mark.parametrize("make", [SqlCheckpointStore, SqlIdempotencyStore])
async def test_a_table_of_the_callers_choice_does_not_reopen_either(make_store: MakeStore, make: Any) -> None:
    """They share the base of the others."""
    async with make_store("sqlite") as store:
        await check(make(store), USES["checkpoint" if make is SqlCheckpointStore else "idempotency"])


@pytest.mark.parametrize("backend", PREFIX)
async def test_an_outbox_does_not_reopen_its_event_store(make_store: MakeStore, backend: str) -> None:
    """Neither one that the store has closed with it nor one that is used for the first time."""
    async with make_store(backend) as store:
        used, unused = store.outbox(), store.outbox("other")
        await used.connect()
        await store.close()
        for box in (used, unused):
            with pytest.raises(EventStoreConnectionError, match="closed"):
                await box.stats()
            with pytest.raises(EventStoreConnectionError, match="closed"):
                await box.connect()
        with pytest.raises(EventStoreConnectionError, match="closed"):
            await store.head()


@pytest.mark.parametrize("backend", PREFIX)
async def test_an_outbox_that_connects_while_its_event_store_is_closed_is_told(
    make_store: MakeStore, backend: str
) -> None:
    """And holds nothing open."""
    async with make_store(backend) as store:
        box = store.outbox()
        first, set_up = asyncio.Event(), box._set_up

        async def set_up_and_stop() -> None:
            await set_up()
            first.set()
            while store._is_open:
                await asyncio.sleep(0)

        with mock.patch.object(box, "_set_up", set_up_and_stop):
            connecting = asyncio.create_task(box.connect())
            await first.wait()
            await store.close()
            with pytest.raises(EventStoreConnectionError, match="closed"):
                await connecting
        assert users(box) == 0


async def test_in_memory_close_does_nothing(make_store: MakeStore) -> None:
    """The outbox included."""
    async with make_store("memory") as store:
        box = store.outbox()
        await box.connect()
        await store.append("a", added("1"))
        await box.close()
        await store.close()
        assert len(await box.get_pending()) == 1
