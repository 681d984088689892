"""Events with lists and dictionaries in memory: the short way takes what every store can keep, and nothing else."""

from __future__ import annotations

import gc
import weakref
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexigram.events import DomainEvent, EventCodec, SerializationError
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.testing.samples import collect

CODECS = EventCodec(), EventCodec(format="binary")
MOMENT = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


class Filled(DomainEvent):
    """An event that holds a list of anything."""

    value: list[Any]


class Size(Enum):
    SMALL = 1


async def knowing() -> InMemoryEventStore:
    """Return a store whose log knows `Filled`."""
    store = InMemoryEventStore()
    await store.append("known", [Filled(value=[])])
    return store


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        [1, -(2**63), 2.5, float("nan"), True, None, "é", b"\0", "x" * 10_000],
        {"a": [{"b": (1, ("c", [2]))}], "$type": 1},
        [UUID(int=1), Decimal("1.50"), MOMENT, MOMENT.replace(tzinfo=None), date(2026, 1, 1), time(1), timedelta(1)],
        deep(10),
    ],
)
async def test_plain_containers_go_the_short_way(value: Any) -> None:
    """One call of the log stores them: what is read is the event itself, numbered, and its tags and type find it."""
    store = await knowing()
    first, second = Filled(value=[value], tags=("t",)), Filled(value=[[value]])
    assert store.log.append("a", [first, second], 0) == 2
    assert [event is own for event, own in zip(await store.read("a"), (first, second), strict=True)] == [True, True]
    assert [(event.version, event.sequence_number) for event in (first, second)] == [(1, 2), (2, 3)]
    assert await store.query(tags="t") == [first]
    assert len(await collect(store.stream_by_type(Filled))) == 3


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def bushy() -> list[Any]:
    value: list[Any] = []
    value.extend([value] * 1000)
    return value


OTHERS: dict[str, Any] = {
    "object": object(),
    "function": len,
    "set": {1},
    "key that is no text": {1: 2},
    "big integer": 2**63,
    "subclass": type("Listed", (list,), {})(),
    "enum member": Size.SMALL,
    "zone": MOMENT.astimezone(timezone(timedelta(hours=1))),
    "lone surrogate": "\ud800",
    "lone surrogate in a key": {"\ud800": 1},
    "much text": "x" * 2**20,
    "many values": [1] * 2**17,
    "deep": deep(17),
    "deeper than any store can keep": deep(200),
    "endless": endless(),
    "endless in every item": bushy(),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_the_codec_judges_the_rest(name: str) -> None:
    """The log leaves them alone; the store then keeps them or refuses them, as a durable one would."""
    store, event = await knowing(), Filled(value=[OTHERS[name]])
    assert store.log.append("a", [Filled(value=[]), event], None) is None
    assert (await store.head(), event.version) == (1, 0)
    try:
        CODECS[1].encode(event)
    except SerializationError:
        with pytest.raises(SerializationError, match=r"Filled\.value"):
            await store.append("a", [event])
        assert await store.head() == 1
    else:
        assert await store.append("a", [event]) == 1


async def test_values_beside_the_fields_are_judged_too() -> None:
    """Custom metadata and attributes that are not declared can hold anything as well."""
    store = await knowing()
    assert store.log.append("a", [Filled(value=[], metadata={"a": ["b"]})], None) == 1
    assert store.log.append("a", [Filled(value=[], metadata={"a": object()})], None) is None
    event = Filled(value=[])
    vars(event)["hidden"] = object()
    assert store.log.append("a", [event], None) is None
    with pytest.raises(SerializationError):
        await store.append("a", [event])


async def test_a_class_that_cannot_be_stored_is_refused_at_its_first_event() -> None:
    """Learning a class asks the codec once, whatever the values."""
    store = InMemoryEventStore()
    asked: list[Any] = []

    def refuse(event: Any) -> Any:
        asked.append(event)
        raise SerializationError("no")

    store._encode = refuse
    with pytest.raises(SerializationError, match="no"):
        await store.append("a", [Filled(value=[])])
    assert (len(asked), await store.head()) == (1, 0)


async def test_the_collector_sees_what_the_short_way_stored() -> None:
    """A cycle through an event with a list is found, in the first chunk of the log and beyond."""
    store = await knowing()
    events = [Filled(value=[]) for _ in range(1500)]
    assert store.log.append("a", events, None) == 1500
    for event in events:
        event.value.append(store)
    refs: list[Any] = [weakref.ref(store), *(weakref.ref(event) for event in events)]
    del store, events, event
    gc.collect()
    assert [ref() for ref in refs] == [None] * 1501


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.uuids()
    | st.decimals()
    | st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-7))]))
    | st.times()
    | st.dates()
    | st.timedeltas()
    | st.sampled_from([Size.SMALL, object, print, {1, 2}, frozenset({None}), 1j])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
    max_leaves=20,
)


@settings(deadline=None, max_examples=300)
@given(VALUES)
def test_nothing_goes_the_short_way_that_the_codec_refuses(value: Any) -> None:
    """Whatever the log takes can be written by the codec in both forms."""
    store = InMemoryEventStore()
    store.log.learn(Filled, "Filled")
    event = Filled(value=[value])
    if store.log.append("a", [event], None) is not None:
        for codec in CODECS:
            codec.encode(event)
