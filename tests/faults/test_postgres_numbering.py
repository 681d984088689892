"""Batches that the client numbers on PostgreSQL: others who write, restores and conversions are noticed each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from copy import copy
from typing import Any

import pytest
import pytest_asyncio

from lexigram.events.config import PostgresEventStoreConfig
from lexigram.events.exceptions import ConcurrencyError, EventPersistenceError
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.stores.postgres import PostgresEventStore
from lexigram.events.stores.postgres.schema import SCHEMA_VERSION
from lexigram.events.testing.samples import ItemAdded, ItemRemoved, added, positions, skus, versions
from tests.contract.test_postgres_partitioned import documented
from tests.postgres_schemas import EmptySchemas


@pytest.fixture
def config(postgres_url: str) -> PostgresEventStoreConfig:
    """Empty tables on the shared server."""
    return EmptySchemas(postgres_url, purpose="numbering").config()


@pytest_asyncio.fixture
async def store(config: PostgresEventStoreConfig) -> AsyncIterator[PostgresEventStore]:
    """A store that knows where its log ends: it has stored an event of the stream `a`."""
    async with PostgresEventStore(config) as opened:
        await opened.append("a", added("1"))
        yield opened


@pytest_asyncio.fixture
async def other(config: PostgresEventStoreConfig) -> AsyncIterator[PostgresEventStore]:
    """Somebody else on the same log."""
    async with PostgresEventStore(config) as opened:
        yield opened


def calls(store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the kind of each call to the server."""
    committer, made = store.engine.committer, []

    def noted(kind: str, call: Any) -> Any:
        async def send(*arguments: Any) -> Any:
            answer = await call(*arguments)
            made.append(kind if answer is not None else "not as known")
            return answer

        return send

    monkeypatch.setattr(committer, "_call", noted("looked up", committer._call))
    monkeypatch.setattr(committer, "_call_next", noted("numbered", committer._call_next))
    return made


async def test_who_writes_alone_numbers_by_itself(store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is not known or may fail is looked up; readers see the same as always."""
    made = calls(store, monkeypatch)
    assert await store.append("a", added("2", "3"), expected_version=1) == 3
    fresh = ItemAdded(sku="4", tags=("x", "x", "y"))
    assert await store.append("a", [fresh]) == 4
    assert (fresh.version, fresh.sequence_number) == (4, 4)
    assert await asyncio.gather(*(store.append("a", added(str(n))) for n in range(5, 8))) == [5, 6, 7]
    assert set(made) == {"numbered"}
    with pytest.raises(ConcurrencyError) as conflict:
        await store.append("a", added("no"), expected_version=2)
    assert conflict.value.actual_version == 7
    assert made[-1] == "looked up"
    assert await store.append("new", added("8"), expected_version=0) == 1
    assert await store.append("new", added("9")) == 2
    assert made[-2:] == ["numbered", "numbered"]
    assert await store.append("b", added("10")) == 1
    assert made[-1] == "looked up"
    assert await store.append("b", added("11")) == 2
    assert made[-1] == "numbered"
    assert skus(await store.read_all()) == [str(n) for n in range(1, 12)]
    assert positions(await store.query(tags=["x", "y"])) == [4]


@pytest.mark.parametrize("stream_id", ["a", "new"])
@pytest.mark.parametrize("types", [(ItemAdded,), (ItemAdded, ItemRemoved)])
async def test_appends_of_many_events_are_numbered(
    store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch, stream_id: str, types: tuple[type[Any], ...]
) -> None:
    """Alone and side by side, of one type and of two; tags stay with their events."""
    await store.append("b", [ItemRemoved(sku="0")])
    made, old = calls(store, monkeypatch), await store.get_stream_version(stream_id)

    def events(tag: str) -> list[Any]:
        return [types[number % len(types)](sku=str(number), tags=(tag, f"{tag}{number}")) for number in range(6)]

    first, second, third = events("one"), events("two"), events("three")
    assert await store.append(stream_id, first, old) == old + 6
    answers = await asyncio.gather(store.append("c", second, 0), store.append(stream_id, third, old + 6))
    assert answers == [6, old + 12]
    assert set(made) == {"numbered"}
    assert await store.read_all(2) == [*first, *second, *third]
    assert await store.read(stream_id, old + 1) == [*first, *third]
    assert await store.query(tags="three") == third
    assert await store.query(types[-1], tags="two5") == [second[5]]
    assert await store.query(types, tags="one4") == [first[4]]


async def test_new_streams_are_numbered_too_once_there_were_a_few(
    store: PostgresEventStore, other: PostgresEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several of them in one commit, between known ones; each has its own versions, for other writers too."""
    made = calls(store, monkeypatch)
    for number in range(4):
        assert await store.append(f"new {number}", added("x")) == 1
    assert made == ["looked up", "looked up", "looked up", "numbered"]
    made.clear()
    appends = [("p", 1), ("a", 2), ("q", 3), ("p", 2), ("r", 1)]
    outcomes = await asyncio.gather(*(store.append(stream, added(*[stream] * n)) for stream, n in appends))
    assert outcomes == [1, 3, 3, 3, 1]
    assert await asyncio.gather(*(store.append(stream, added(stream)) for stream in "qrp")) == [4, 2, 4]
    assert set(made) == {"numbered"}
    for stream in "apqr":
        events = await other.read(stream)
        assert versions(events) == list(range(1, len(events) + 1))
        assert {sku for sku in skus(events) if sku in "apqr"} == {stream}
    assert await other.append("r", added("r"), expected_version=2) == 3
    assert positions(await other.read_all()) == list(range(1, 19))


async def test_a_stream_that_is_wrongly_taken_to_be_new_is_looked_up(
    store: PostgresEventStore, other: PostgresEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wasted call, then streams that are not known are looked up again; a conflict is one as always."""
    await other.append("theirs", added("1", "2"))
    await other.append("gone", added("3"))
    await other.append("older", added("4"))
    assert await other.delete_stream("gone") == 1
    for number in range(6):
        await store.append(f"new {number}", added("x"))
    made = calls(store, monkeypatch)
    outcomes = await asyncio.gather(store.append("last", added("y")), store.append("theirs", added("y")))
    assert outcomes == [1, 3]
    assert made == ["not as known", "looked up"]
    assert await store.append("gone", added("z")) == 2
    assert await store.append("older", added("z")) == 2
    assert made[2:] == ["looked up", "looked up"]
    with pytest.raises(ConcurrencyError) as conflict:
        await store.append("theirs", added("no"), expected_version=0)
    assert conflict.value.actual_version == 3
    assert len(await store.get_stream_ids()) == 11


async def test_others_are_noticed_and_numbering_begins_again_when_they_pause(
    store: PostgresEventStore, other: PostgresEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wasted call when somebody else has written, none while that goes on."""
    made = calls(store, monkeypatch)
    for number in range(3):
        assert await other.append("a", added("theirs")) == 2 + 2 * number
        assert await store.append("a", added("ours")) == 3 + 2 * number
    assert made == ["not as known", "looked up", "looked up", "looked up"]
    await store.append("a", added("ours"))
    await store.append("a", added("ours"))
    assert made[4:] == ["looked up", "numbered"]
    with pytest.raises(ConcurrencyError):
        await other.append("a", added("no"), expected_version=7)
    stored = await store.read_all()
    assert positions(stored) == versions(stored) == list(range(1, 10))


async def test_a_unit_of_work_is_somebody_else(store: PostgresEventStore) -> None:
    """What it has stored counts once it is committed, and not if it was rolled back."""
    async with store.unit_of_work():
        await store.append("a", added("2"))
    assert await store.append("a", added("3"), expected_version=2) == 3
    with pytest.raises(InterruptedError):
        async with store.unit_of_work():
            await store.append("a", added("undone"))
            raise InterruptedError
    assert await store.append("a", added("4"), expected_version=3) == 4
    assert positions(await store.read_all()) == [1, 2, 3, 4]


async def test_a_log_that_was_restored_and_grew_to_the_same_length_is_another_one(
    store: PostgresEventStore, other: PostgresEventStore
) -> None:
    """The last event is asked for by id: versions known of the old log are not used."""
    names = store.engine.names
    await store.append("a", added("2"))
    await store.append("b", added("3"))
    # As after a restore to the first event, from which others have gone on.
    for statement in (
        f"DELETE FROM {names.events} WHERE position > 1",
        f"UPDATE {names.head} SET position = 1",
    ):
        await other.engine.execute(statement)
    await other.append("b", added("x", "y"))
    assert await store.append("a", added("2"), expected_version=1) == 2
    assert await store.append("b", added("z")) == 3
    assert skus(await store.read_all()) == ["1", "x", "y", "2", "z"]


async def test_ids_that_are_stored_already_are_found_without_a_conflict_of_versions(
    store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry is answered with where the first attempt was stored, its neighbours with their own places."""
    events = added("2", "3")
    again = [copy(event) for event in events]
    await store.append("a", events)
    made = calls(store, monkeypatch)
    outcomes = await asyncio.gather(
        store.append("a", added("4")), store.append("a", again), store.append("a", added("5"))
    )
    assert outcomes == [4, 3, 5]
    assert made == ["looked up"]
    mixed = [copy(again[0]), *added("6")]
    for event in mixed:
        object.__setattr__(event, "sequence_number", None)
    with pytest.raises(EventPersistenceError, match="already stored"):
        await store.append("a", mixed)
    assert skus(await store.read("a")) == ["1", "2", "3", "4", "5"]


async def test_rows_of_other_writers_are_still_detected(store: PostgresEventStore) -> None:
    """A row beyond the head stops appends, whoever numbers them; without it they go on."""
    names = store.engine.names
    insert = (
        f"INSERT INTO {names.events} SELECT position + 1, stream, version + 7, type, gen_random_uuid(), occurred_at, "
        f"payload FROM {names.events}"
    )
    await store.engine.execute(insert)
    with pytest.raises(EventPersistenceError, match="something else than this library"):
        await store.append("a", added("2"))
    await store.engine.execute(f"DELETE FROM {names.events} WHERE version = 8")
    assert await store.append("a", added("2")) == 2


async def test_removed_events_leave_versions_and_positions_as_they_are(store: PostgresEventStore) -> None:
    """The last event of the log may be removed too."""
    await store.append("a", added("2"))
    assert await store.delete_stream("a") == 2
    assert await store.append("a", added("3")) == 3
    assert await store.append("a", added("4")) == 4
    assert positions(await store.read_all()) == [3, 4]


async def test_conditions_hold_against_neighbours_and_others(
    store: PostgresEventStore, other: PostgresEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A condition up to the end of the log costs no look-up; of two in one batch the second sees the first."""

    def condition(after: int) -> AppendCondition:
        return AppendCondition(EventQuery(tags=["seat:1"]), after=after)

    made = calls(store, monkeypatch)
    taken = [ItemAdded(sku=str(n), tags=("seat:1",)) for n in range(4)]
    assert await store.append("a", [taken[0]], condition=condition(1)) == 2
    assert made == ["numbered"]
    outcomes = await asyncio.gather(
        *(store.append("a", [event], condition=condition(2)) for event in taken[1:3]), return_exceptions=True
    )
    assert outcomes[0] == 3
    assert isinstance(outcomes[1], ConcurrencyError)
    await other.append("b", [taken[3]])
    with pytest.raises(ConcurrencyError, match="stored at position 4"):
        await store.append("a", added("no"), condition=condition(3))
    assert await store.append("a", added("5"), condition=condition(4)) == 4
    assert skus(await store.read_all()) == ["1", "0", "1", "3", "5"]


async def test_a_log_that_is_partitioned_meanwhile_is_noticed(
    config: PostgresEventStoreConfig, postgres_url: str
) -> None:
    """Its table has no index of all ids: a retry is found all the same."""
    import asyncpg

    settings = EmptySchemas(postgres_url, purpose="numbering").config(1)
    settings = settings.model_copy(update={"schema_name": f"{settings.schema_name}_parts"})
    async with PostgresEventStore(settings) as store:
        await store.append("a", added("1"))
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.execute(f'SET search_path TO "{settings.schema_name}"')
            await connection.execute(documented())
        finally:
            await connection.close()
        events = added("2")
        again = [copy(event) for event in events]
        assert await store.append("a", events) == 2
        assert await store.append("a", again) == 2
        assert skus(await store.read_all()) == ["1", "2"]


async def test_a_log_of_the_first_release_is_brought_up_to_date(postgres_url: str) -> None:
    """It gets the functions for its own type of payload, whatever is configured now; processes may race."""
    schemas = EmptySchemas(postgres_url, "jsonb", "numbering")
    async with PostgresEventStore(schemas.config()) as store:
        await store.append("a", added("1"))
        names = store.engine.names
        for statement in (
            f"DROP FUNCTION {names.append}",
            f"DROP FUNCTION {names.append_next}",
            f"DROP FUNCTION {names.matches}",
            f"ALTER TABLE {names.checkpoints} DROP COLUMN fault",
            f"UPDATE {names.meta} SET value = 1 WHERE key = 'schema_version'",
        ):
            await store.engine.execute(statement)
    config = schemas.config().model_copy(update={"payload_format": "json"})
    stores = [PostgresEventStore(config) for _ in range(4)]
    await asyncio.gather(*(store.connect() for store in stores))
    try:
        for number, store in enumerate(stores):
            await store.append("a", added("x"))
            assert await store.append("a", added("y")) == 2 + 2 * number
        assert stores[0].engine.payload == "jsonb"
        rows = await stores[0].engine.fetch_all(f"SELECT value FROM {names.meta} WHERE key = 'schema_version'")
        assert rows[0][0] == SCHEMA_VERSION
        async with stores[0].checkpoint_store() as checkpoints:
            assert await checkpoints.list_faults() == {}
    finally:
        for store in stores:
            await store.close()
