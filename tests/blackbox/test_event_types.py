"""Selecting events by the `event_type` they carry, on the stores that need no server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lexigram.events import (
    AbstractEventStore,
    AppendCondition,
    ConcurrencyError,
    DomainEvent,
    Event,
    EventQuery,
    InMemoryEventStore,
    SqliteEventStore,
)


class Registered(DomainEvent):
    event_type: str | None = "user.registered"
    name: str


class Removed(DomainEvent):
    name: str


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AbstractEventStore]:
    """Each store in turn, empty."""
    made: Any = InMemoryEventStore() if request.param == "memory" else SqliteEventStore(tmp_path / "events.db")
    async with made as opened:
        yield opened


async def selected(store: AbstractEventStore, *types: type | str) -> list[int]:
    """Return the positions that `stream_by_type` gives."""
    return [event.sequence_number async for event in store.stream_by_type(list(types))]


async def test_an_ad_hoc_event_is_selected_by_the_type_it_was_given(store: AbstractEventStore) -> None:
    """`Event(event_type="ping")` needs no class of its own to be found, whatever was stored before it."""
    await store.append("s", [Event(host="a"), Event(event_type="ping", host="b"), Removed(name="c")])
    await store.append("s", [Event(event_type="ping", host="d")])
    await store.append("s", [Event(host="e"), Event(event_type="pong", host="f")])
    assert await selected(store, "ping") == [2, 4]
    assert await selected(store, "ping", "pong") == [2, 4, 6]
    assert await selected(store, Event) == [1, 2, 4, 5, 6]
    assert await selected(store, "Event") == [1, 2, 4, 5, 6]
    assert [event.host for event in await store.find_by_type("ping")] == ["b", "d"]
    assert await selected(store, "other") == []


async def test_a_class_is_selected_by_the_type_it_declares(store: AbstractEventStore) -> None:
    """A class may declare its `event_type`; class, class name and that type all select it."""
    await store.append("s", [Registered(name="a"), Removed(name="a"), Registered(name="b")])
    await store.append("s", [Registered(name="c")])
    for selection in ("user.registered", "Registered", Registered):
        assert await selected(store, selection) == [1, 3, 4]
    assert await selected(store, "Removed") == [2]


async def test_an_event_of_a_typed_class_may_have_a_type_of_its_own(store: AbstractEventStore) -> None:
    """It belongs to its class and to its own type, not to the type that the class declares."""
    await store.append("s", [Registered(name="a"), Registered(name="b", event_type="user.imported")])
    assert await selected(store, Registered) == [1, 2]
    assert await selected(store, "user.imported") == [2]
    assert await selected(store, "user.registered") == [1]


async def test_conditions_watch_the_type_that_events_were_given(store: AbstractEventStore) -> None:
    """Also inside a unit of work, where nothing is stored yet."""
    condition = AppendCondition(EventQuery(types=["ping"]), after=0)
    await store.append("s", [Event(event_type="pong")], condition=condition)
    with pytest.raises(ConcurrencyError):
        async with store.unit_of_work():
            await store.append("a", [Event(event_type="ping")], condition=condition)
            await store.append("b", [Event(event_type="ping")], condition=condition)
    assert await store.head() == 1
    await store.append("s", [Event(event_type="ping")], condition=condition)
    with pytest.raises(ConcurrencyError):
        await store.append("t", [Event(event_type="other")], condition=condition)
    assert not await store.stream_exists("t")


async def test_compaction_and_clearing_forget_types_too(store: AbstractEventStore) -> None:
    """What was removed is not selected any more; what comes later is."""
    await store.append("s", [Event(event_type="ping"), Event(event_type="ping")])
    assert await store.compact("s", 1) == 1
    assert await selected(store, "ping") == [2]
    if isinstance(store, InMemoryEventStore):
        store.clear()
        assert await selected(store, "ping") == []
        await store.append("s", [Event(event_type="ping")])
        assert await selected(store, "ping") == [1]
