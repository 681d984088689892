"""A state machine that drives an event store and one plain-Python model of it, and compares them all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from zlib import crc32

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lexigram.events.exceptions import ConcurrencyError, EventError
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.testing.samples import GiftAdded, ItemAdded, ItemRemoved

T = TypeVar("T")

TYPES: list[type[Any]] = [ItemAdded, GiftAdded, ItemRemoved]
TAGS = ["red", "green", "blue"]
STREAMS = st.sampled_from(["a", "b", "c", "d" * 255, "ü"])
SPECS = st.tuples(st.sampled_from(TYPES), st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(tuple))
BATCHES = st.lists(SPECS, min_size=1, max_size=5)
QUERIES = st.lists(
    st.tuples(
        st.none() | st.lists(st.sampled_from(TYPES), max_size=2, unique=True),
        st.lists(st.sampled_from(TAGS), max_size=2, unique=True),
    ),
    min_size=1,
    max_size=2,
)
Spec = tuple[type[Any], tuple[str, ...]]
Query = list[tuple[list[type[Any]] | None, list[str]]]


@dataclass
class Record:
    """One stored event as the model knows it."""

    position: int
    stream: str
    version: int
    event: Any
    is_removed: bool = False

    def matches(self, query: Query) -> bool:
        """Tell whether any alternative selects it."""
        return any(
            (types is None or isinstance(self.event, tuple(types))) and set(tags) <= set(self.event.tags)
            for types, tags in query
        )


@dataclass
class Model:
    """What a store should hold, in the simplest form."""

    limit: int = 0
    records: list[Record] = field(default_factory=list)

    def version(self, stream: str) -> int:
        return max((r.version for r in self.records if r.stream == stream), default=0)

    def live(self, stream: str | None = None) -> list[Record]:
        return [r for r in self.records if not r.is_removed and stream in (None, r.stream)]

    def add(self, stream: str, events: list[Any]) -> int:
        for event in events:
            self.records.append(Record(len(self.records) + 1, stream, self.version(stream) + 1, event))
        if self.limit:
            for record in self.live(stream)[: -self.limit]:
                record.is_removed = True
        return self.version(stream)

    def remove(self, stream: str, up_to: int) -> int:
        removed = [r for r in self.live(stream) if r.version <= up_to]
        for record in removed:
            record.is_removed = True
        return len(removed)


def event_query(query: Query) -> EventQuery:
    """Return the store's form of a query."""
    first, *others = (EventQuery(types, tags) for types, tags in query)
    for other in others:
        first = first | other
    return first


class StoreMachine(RuleBasedStateMachine):
    """Rules common to all stores. Subclasses make the store, and reopen it if it is durable."""

    limit: ClassVar[int] = 0
    durable: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model(self.limit)
        self.batches: list[tuple[str, list[Any]]] = []
        self.count = 0

    async def make_store(self) -> AbstractEventStore:
        """Return a new, empty store."""
        raise AssertionError

    async def reopen_store(self) -> AbstractEventStore:
        """Close the store and return another one on the same data."""
        raise AssertionError

    def run_async(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def open_it(self) -> None:
        self.store = self.run_async(self.make_store())

    def teardown(self) -> None:
        self.run_async(self.store.close())
        self.loop.close()

    def events(self, specs: list[Spec]) -> list[Any]:
        made = []
        for cls, tags in specs:
            self.count += 1
            made.append(cls(sku=str(self.count), tags=tags))
        return made

    def stored(self, stream: str, events: list[Any]) -> None:
        """Record an append that succeeded and check the stamps."""
        self.model.add(stream, events)
        self.batches.append((stream, events))
        for record in self.model.records[-len(events) :]:
            assert (record.event.version, record.event.sequence_number) == (record.version, record.position)

    @rule(stream=STREAMS, specs=BATCHES, gap=st.sampled_from([None, 0, 0, 0, 1, -1, 7]))
    def append(self, stream: str, specs: list[Spec], gap: int | None) -> None:
        actual = self.model.version(stream)
        expected = None if gap is None else max(actual + gap, 0)
        events = self.events(specs)
        if expected in (None, actual):
            assert self.run_async(self.store.append(stream, events, expected)) == actual + len(events)
            self.stored(stream, events)
            return
        with pytest.raises(ConcurrencyError) as caught:
            self.run_async(self.store.append(stream, events, expected))
        assert (caught.value.expected_version, caught.value.actual_version) == (expected, actual)
        assert all(event.sequence_number is None for event in events)

    @rule(stream=STREAMS, specs=BATCHES, query=QUERIES, back=st.integers(0, 6))
    def append_with_condition(self, stream: str, specs: list[Spec], query: Query, back: int) -> None:
        after = max(len(self.model.records) - back, 0)
        condition = AppendCondition(event_query(query), after)
        events = self.events(specs)
        if any(r.position > after and r.matches(query) for r in self.model.live()):
            with pytest.raises(ConcurrencyError):
                self.run_async(self.store.append(stream, events, condition=condition))
            return
        self.run_async(self.store.append(stream, events, condition=condition))
        self.stored(stream, events)

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), expected=st.sampled_from([None, 0, 3]))
    def retry(self, data: st.DataObject, expected: int | None) -> None:
        """Again the same ids: fine if all are stored, an error if only some are, a new append if none is."""
        stream, events = data.draw(st.sampled_from(self.batches))
        live = {record.event.event_id for record in self.model.live()}
        present = [event.event_id in live for event in events]
        if not any(present):
            return
        if all(present):
            assert self.run_async(self.store.append(stream, events, expected)) == events[-1].version
            return
        with pytest.raises(EventError) as caught:
            self.run_async(self.store.append(stream, events))
        assert not isinstance(caught.value, ConcurrencyError)

    @rule(stream=STREAMS, up_to=st.integers(0, 12))
    def compact(self, stream: str, up_to: int) -> None:
        assert self.run_async(self.store.compact(stream, up_to)) == self.model.remove(stream, up_to)

    @rule(stream=STREAMS)
    def delete(self, stream: str) -> None:
        assert self.run_async(self.store.delete_stream(stream)) == self.model.remove(stream, 2**62)

    @rule(appends=st.lists(st.tuples(STREAMS, BATCHES), min_size=1, max_size=3), commits=st.booleans())
    def unit_of_work(self, appends: list[tuple[str, list[Spec]]], commits: bool) -> None:
        batches = [(stream, self.events(specs)) for stream, specs in appends]

        async def work() -> None:
            added: dict[str, int] = {}
            async with self.store.unit_of_work():
                for stream, events in batches:
                    expected = self.model.version(stream) + added.get(stream, 0)
                    assert await self.store.append(stream, events, expected) == expected + len(events)
                    added[stream] = added.get(stream, 0) + len(events)
                if not commits:
                    raise KeyError

        if not commits:
            with pytest.raises(KeyError):
                self.run_async(work())
            assert all(event.sequence_number is None for _, events in batches for event in events)
            return
        self.run_async(work())
        for stream, events in batches:
            for event in events:
                self.model.records.append(
                    Record(len(self.model.records) + 1, stream, self.model.version(stream) + 1, event)
                )
            self.batches.append((stream, events))
        for stream, _ in batches:
            self.model.add(stream, [])

    @precondition(lambda self: self.durable)
    @rule()
    def reopen(self) -> None:
        self.store = self.run_async(self.reopen_store())

    @rule(
        stream=STREAMS, low=st.integers(0, 12), high=st.none() | st.integers(0, 12), limit=st.none() | st.integers(0, 5)
    )
    def read(self, stream: str, low: int, high: int | None, limit: int | None) -> None:
        wanted = [r for r in self.model.live(stream) if low <= r.version <= (99 if high is None else high)]
        self.same(self.run_async(self.store.read(stream, low, high, limit)), wanted[:limit])

    @rule(after=st.integers(0, 30), size=st.integers(1, 7), partition=st.none() | st.integers(0, 2))
    def stream_all(self, after: int, size: int, partition: int | None) -> None:
        total = None if partition is None else 3
        wanted = [
            r
            for r in self.model.live()
            if r.position > after and (partition is None or crc32(r.stream.encode()) % 3 == partition)
        ]

        async def collect() -> list[Any]:
            return [e async for e in self.store.stream_all(after, size, partition, total)]

        self.same(self.run_async(collect()), wanted)

    @rule(query=QUERIES, after=st.integers(0, 20), limit=st.none() | st.integers(0, 5))
    def query(self, query: Query, after: int, limit: int | None) -> None:
        wanted = [r for r in self.model.live() if r.position > after and r.matches(query)]
        found = self.run_async(self.store.query(event_query(query), from_position=after, limit=limit))
        self.same(found, wanted[:limit])

    @rule(cls=st.sampled_from(TYPES), after=st.integers(0, 20), size=st.integers(1, 4))
    def stream_by_type(self, cls: type[Any], after: int, size: int) -> None:
        async def collect(types: Any) -> list[Any]:
            return [e async for e in self.store.stream_by_type(types, after, size)]

        live = [r for r in self.model.live() if r.position > after]
        self.same(self.run_async(collect(cls)), [r for r in live if isinstance(r.event, cls)])
        self.same(self.run_async(collect([cls.__name__])), [r for r in live if type(r.event) is cls])

    @invariant()
    def summary_agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        live = self.model.live()
        assert self.run_async(self.store.head()) == len(self.model.records)
        assert self.run_async(self.store.get_events_count()) == len(live)
        assert self.run_async(self.store.get_stream_ids()) == sorted({r.stream for r in live})
        for stream in {r.stream for r in self.model.records}:
            held = self.model.live(stream)
            assert self.run_async(self.store.get_stream_version(stream)) == self.model.version(stream)
            assert self.run_async(self.store.stream_exists(stream)) == bool(held)

    def same(self, found: list[Any], wanted: list[Record]) -> None:
        assert [(e.sku, e.version, e.sequence_number) for e in found] == [
            (r.event.sku, r.version, r.position) for r in wanted
        ]
        assert all(event == record.event for event, record in zip(found, wanted, strict=True))
