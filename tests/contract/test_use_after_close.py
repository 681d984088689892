"""No store reopens by itself: its use after `close` is an error, on every backend with something to close."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from lexigram.events.buses.dead_letter import DeadLetterFilter
from lexigram.events.exceptions import EventStoreConnectionError
from lexigram.events.sagas.types import SagaRecord, SagaStatus, now
from lexigram.events.stores.checkpoints import SqlCheckpointStore
from lexigram.events.stores.idempotency import SqlIdempotencyStore
from lexigram.events.testing.samples import added
from tests.backends import MakeStore, make_store, saga_store

__all__ = ["make_store"]

Uses = tuple[Callable[[Any], Any], ...]

PREFIX = {"sqlite": "Sqlite", "postgres": "Postgres", "mongodb": "MongoDB", "redis": "Redis"}

USES: dict[str, Uses] = {
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
    """Return a smaller store on the event store's database."""
    if kind == "saga":
        return saga_store(backend, store)
    if kind == "outbox":
        return store.outbox()
    module = "dead_letters" if kind == "dead_letter" else f"{kind}_store"
    name = PREFIX[backend] + "".join(part.title() for part in kind.split("_")) + "Store"
    return getattr(import_module(f"lexigram.events.stores.{backend}.{module}"), name)(store)


async def check(found: Any, uses: Uses) -> None:
    """Use a store, close it twice, and see that each use is refused until it is opened again."""
    for use in uses:
        await use(found)
    await found.close()
    await found.close()
    for use in uses:
        with pytest.raises(EventStoreConnectionError, match="closed"):
            await use(found)
    await (found.initialize() if hasattr(found, "initialize") else found.connect())
    for use in uses:
        await use(found)
    await found.close()


@pytest.mark.parametrize("kind", USES)
@pytest.mark.parametrize("backend", PREFIX)
async def test_a_companion_store_does_not_reopen_by_itself(make_store: MakeStore, backend: str, kind: str) -> None:
    """Whatever method is called first; opening it again is a decision of its own."""
    async with make_store(backend) as store:
        await check(companion(backend, kind, store), USES[kind])
        await store.append("a", added("still open"))


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


async def test_in_memory_close_does_nothing(make_store: MakeStore) -> None:
    """The outbox included."""
    async with make_store("memory") as store:
        box = store.outbox()
        await box.connect()
        await store.append("a", added("1"))
        await box.close()
        await store.close()
        assert len(await box.get_pending()) == 1
