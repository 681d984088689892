"""What the smaller stores do inside a unit of work of their event store happens with its commit, or not at all."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events.buses.dead_letter import DeadLetterEntry, DeadLetterFilter, DeadLetterStore
from lexigram.events.config import EventsConfig
from lexigram.events.di.backends import COMPANIONS, StoreSet
from lexigram.events.exceptions import EventPersistenceError, EventStoreError
from lexigram.events.sagas.types import SagaRecord
from lexigram.events.stores.checkpoints import InMemoryCheckpointStore
from lexigram.events.stores.idempotency import InMemoryIdempotencyStore
from lexigram.events.testing.samples import added, skus
from tests.backends import BACKENDS, MakeStore, make_store
from tests.contract.test_store_life import companion

__all__ = ["make_store"]


def small_store(backend: str, kind: str, store: Any) -> Any:
    """Return a checkpoint or idempotency store beside an event store."""
    if backend == "memory":
        return InMemoryCheckpointStore() if kind == "checkpoint" else InMemoryIdempotencyStore()
    return companion(backend, kind, store)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_forgetting_a_checkpoint_is_part_of_the_unit(make_store: MakeStore, backend: str) -> None:
    """A rollback brings it back; of saving and forgetting, the later one counts."""
    async with make_store(backend) as store, small_store(backend, "checkpoint", store) as checkpoints:
        await checkpoints.save_checkpoint("p", 5)
        with pytest.raises(RuntimeError):
            async with store.unit_of_work():
                await checkpoints.delete_checkpoint("p")
                raise RuntimeError
        assert await checkpoints.get_checkpoint("p") == 5
        async with store.unit_of_work():
            await checkpoints.save_checkpoint("p", 9)
            await checkpoints.delete_checkpoint("p")
        assert await checkpoints.get_checkpoint("p") == 0
        async with store.unit_of_work():
            await checkpoints.delete_checkpoint("p")
            await checkpoints.save_checkpoint("p", 7)
        assert await checkpoints.list_checkpoints() == {"p": 7}


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_claim_that_was_rolled_back_is_free_at_once(make_store: MakeStore, backend: str) -> None:
    """The next attempt, made as soon as the block is left, gets it."""
    async with make_store(backend) as store, small_store(backend, "idempotency", store) as marks:
        for _ in range(3):
            with pytest.raises(RuntimeError):
                async with store.unit_of_work():
                    assert await marks.claim("mailer", "m-1")
                    raise RuntimeError
            assert not await marks.is_processed("mailer", "m-1")
        assert await marks.claim("mailer", "m-1")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_statements_of_your_own_where_there_is_a_transaction(make_store: MakeStore, backend: str) -> None:
    """On your own tables they commit and roll back with its appends; elsewhere they are an error that says so."""
    table = f"own_{uuid4().hex[:8]}"
    async with make_store(backend) as store:
        if backend not in ("sqlite", "postgres"):
            with pytest.raises(EventStoreError, match="no SQL"):
                async with store.unit_of_work() as unit:
                    await store.append("a", added("1"))
                    await unit.execute(f"CREATE TABLE {table} (n INTEGER)")
            assert await store.head() == 0
            return
        for error in (InterruptedError, None):
            with pytest.raises(error) if error else nullcontext():
                async with store.unit_of_work() as unit:
                    await unit.execute(f"CREATE TABLE {table} (n INTEGER)")
                    await store.append("a", added("1"))
                    await unit.execute(f"INSERT INTO {table} VALUES (?)", (7,))
                    if error:
                        raise error
            assert await store.head() == (0 if error else 1)
        async with store.unit_of_work() as unit:
            assert await unit.fetch_all(f"SELECT n FROM {table}") == [(7,)]
            await unit.execute(f"DROP TABLE {table}")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_reads_inside_see_its_own_appends_where_there_is_a_transaction(
    make_store: MakeStore, backend: str
) -> None:
    """Elsewhere they see what is committed; expected versions count its own appends everywhere."""
    own = ["2"] if backend in ("sqlite", "postgres") else []
    async with make_store(backend) as store:
        await store.append("a", added("1"))
        async with store.unit_of_work():
            await store.append("a", added("2"), expected_version=1)
            assert skus(await store.read("a")) == ["1", *own]
            assert skus(await store.read_all()) == ["1", *own]
            assert await store.get_stream_version("a") == await store.head() == 1 + len(own)
            assert await store.append("a", added("3"), expected_version=2) == 3
        assert skus(await store.read("a")) == ["1", "2", "3"]


@asynccontextmanager
async def all_stores(make_store: MakeStore, backend: str) -> AsyncIterator[StoreSet]:
    """Yield an event store and all stores beside it."""
    async with AsyncExitStack() as stack:
        stores = COMPANIONS[backend](await stack.enter_async_context(make_store(backend)), EventsConfig())
        for store in [*stores][1:]:
            await stack.enter_async_context(store)
        yield stores


def cancels_as_it_commits(unit: Any) -> None:
    """Have the running task cancelled when the unit of work begins to commit."""
    commit: Callable[[], Any] = unit._commit

    async def cancelled() -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return await commit()

    unit._commit = cancelled


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_cancellation_during_the_commit_leaves_nothing_half_done(make_store: MakeStore, backend: str) -> None:
    """What is committed has all its consequences, and then the task is cancelled."""
    events, called = added("1"), list[str]()
    async with all_stores(make_store, backend) as stores:

        async def work() -> None:
            async with stores.events.unit_of_work() as unit:
                assert await stores.idempotency.claim("mailer", "m-1")
                await stores.events.append("a", events)
                await stores.checkpoints.save_checkpoint("p", 7)
                await stores.sagas.create(SagaRecord("s", "kind"))
                await stores.snapshots.save("a", {"n": 1}, 1)
                unit.on_commit(lambda: called.append("committed"))
                unit.on_rollback(lambda: called.append("rolled back"))
                cancels_as_it_commits(unit)
            await asyncio.sleep(0)

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(work())
        assert called == ["committed"]
        assert events[0].sequence_number == await stores.events.head() == 1
        assert await stores.checkpoints.get_checkpoint("p") == 7
        assert await stores.sagas.load("s") is not None
        assert await stores.snapshots.load("a") == ({"n": 1}, 1)
        assert not await stores.idempotency.claim("mailer", "m-1")
        assert await stores.idempotency.is_settled("mailer", "m-1")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_cancelled_callback_keeps_no_other_from_running(make_store: MakeStore, backend: str) -> None:
    """They are consequences of what is committed, too."""
    called = list[str]()
    async with make_store(backend) as store:

        async def cancelled() -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            async with store.unit_of_work() as unit:
                unit.on_commit(cancelled)
                unit.on_commit(lambda: called.append("next"))
        assert called == ["next"]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_removal_follows_from_the_commit_whoever_is_cancelled(make_store: MakeStore, backend: str) -> None:
    """Where it is done after the commit, it is done to its end."""
    async with make_store(backend) as store:
        await store.append("a", added("1", "2"))

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            async with store.unit_of_work() as unit:
                unit.on_commit(lambda: task.cancel() and None)
                assert await store.compact("a", 1) == 1

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(work())
        assert skus(await store.read("a")) == ["2"]


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_claim_that_is_cancelled_on_its_way_is_free_at_once(make_store: MakeStore, backend: str) -> None:
    """The message is delivered again and must be handled."""
    async with all_stores(make_store, backend) as stores:

        async def claims(message: str) -> None:
            async with stores.events.unit_of_work():
                await stores.idempotency.claim("mailer", message)
                await asyncio.Event().wait()

        for turns in range(1, 12):
            task = asyncio.create_task(claims(f"m-{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            assert await stores.idempotency.claim("mailer", f"m-{turns}")


@pytest.mark.parametrize("backend", BACKENDS)
async def test_what_is_made_or_removed_is_undone_by_a_rollback(make_store: MakeStore, backend: str) -> None:
    """Snapshots, sagas, and events that are compacted; after a commit all of it is done."""
    async with all_stores(make_store, backend) as stores:
        await stores.events.append("a", added("1", "2", "3"))
        await stores.snapshots.save("a", {"n": 1}, 1)
        await stores.snapshots.save("a", {"n": 2}, 2)
        await stores.sagas.create(SagaRecord("old", "kind"))

        async def changes() -> None:
            assert await stores.snapshots.delete_old_snapshots("a", 1) == 1
            await stores.snapshots.save("b", {"n": 1}, 1)
            assert await stores.sagas.create(SagaRecord("new", "kind"))
            assert await stores.sagas.delete("old")
            assert await stores.events.compact("a", 2) == 2
            assert await stores.events.delete_stream("never") == 0

        async def found() -> tuple[Any, ...]:
            snapshots = [await stores.snapshots.get_by_version("a", 1), await stores.snapshots.get_latest("b")]
            sagas = [await stores.sagas.load("old"), await stores.sagas.load("new")]
            return *(item is not None for item in (*snapshots, *sagas)), skus(await stores.events.read("a"))

        with pytest.raises(RuntimeError):
            async with stores.events.unit_of_work():
                await changes()
                raise RuntimeError
        assert await found() == (True, False, True, False, ["1", "2", "3"])
        async with stores.events.unit_of_work():
            await changes()
        assert await found() == (False, True, False, True, ["3"])


def letter(entry_id: str) -> DeadLetterEntry:
    """Return a dead letter of a handler of its own."""
    return DeadLetterEntry(entry_id=entry_id, event=added("x")[0], handler_name=f"handler of {entry_id}", error="no")


LETTER_CHANGES: dict[str, Callable[[DeadLetterStore], Any]] = {
    "save": lambda letters: letters.save(letter("3")),
    "replay": lambda letters: letters.mark_replayed("1"),
    "delete": lambda letters: letters.delete("1"),
    "purge": lambda letters: letters.purge(DeadLetterFilter(), expected=2),
}


@pytest.mark.parametrize("change", LETTER_CHANGES.values(), ids=LETTER_CHANGES)
@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_changed_dead_letter_is_as_before_after_a_rollback(
    make_store: MakeStore, backend: str, change: Callable[[DeadLetterStore], Any]
) -> None:
    """The change answers the same either way, and happens with the commit."""
    async with all_stores(make_store, backend) as stores:
        letters = stores.dead_letters
        for entry_id in ("1", "2"):
            await letters.save(letter(entry_id))

        async def found() -> list[tuple[str, bool]]:
            return [(entry.entry_id, entry.replayed) for entry in await letters.list_entries()]

        before = await found()
        with pytest.raises(RuntimeError):
            async with stores.events.unit_of_work():
                undone = await change(letters)
                raise RuntimeError
        assert await found() == before
        async with stores.events.unit_of_work():
            assert await change(letters) == undone
        assert await found() != before


@pytest.mark.parametrize("backend", BACKENDS)
async def test_removing_more_of_a_stream_in_one_unit_counts_each_event_once(
    make_store: MakeStore, backend: str
) -> None:
    """And what the unit itself has appended behind it stays."""
    async with make_store(backend) as store:
        await store.append("a", added("1", "2", "3"))
        async with store.unit_of_work():
            counts = [await store.compact("a", 1), await store.compact("a", 1), await store.compact("a", 9)]
            await store.append("a", added("4"))
        assert counts == [1, 0, 2]
        assert skus(await store.read("a")) == ["4"]
        async with store.unit_of_work():
            assert await store.compact("a", 3) == 0
            assert await store.delete_stream("never") == 0
        assert await store.get_stream_version("a") == 4


@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_removal_that_is_undone_leaves_nothing_with_the_outbox(make_store: MakeStore, backend: str) -> None:
    """What it has not delivered yet is put aside with the removal, not before it; an archiver that raises undoes both."""

    def refuse(events: list[Any]) -> None:
        raise RuntimeError

    async with make_store(backend) as store, store.outbox() as outbox:
        await store.append("a", added("1"))
        with pytest.raises(RuntimeError):
            async with store.unit_of_work():
                await store.delete_stream("a")
                raise RuntimeError
        with pytest.raises(RuntimeError):
            await store.compact("a", 1, refuse)
        assert not await outbox.has_set_aside()
        assert len(await outbox.get_pending()) == 1


@pytest.mark.parametrize("backend", BACKENDS)
async def test_the_same_events_again_in_one_unit_are_a_retry(make_store: MakeStore, backend: str) -> None:
    """As outside of one: they are stored once, whatever version is expected; parts of them elsewhere are refused."""
    async with make_store(backend) as store:
        await store.append("a", added("1"))
        events, others = added("2", "3"), added("x")
        again = [copy.copy(event) for event in events]
        async with store.unit_of_work():
            assert await store.append("a", events, 1) == 3
            assert await store.append("a", again, 1) == 3
            assert await store.append("b", added("4")) == 1
            assert await store.append("a", again[:1]) == 2
            assert await store.append("a", added("5"), 3) == 4
            for stream, batch in (("b", events), ("a", [events[0], *others]), ("a", events[::-1])):
                with pytest.raises(EventPersistenceError, match="already stored"):
                    await store.append(stream, batch)
        assert skus(await store.read_all()) == ["1", "2", "3", "4", "5"]
        for batch in (events, again):
            assert [(event.version, event.sequence_number) for event in batch] == [(2, 2), (3, 3)]
        assert await store.append("a", again) == 3
