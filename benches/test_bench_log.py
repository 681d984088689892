"""Appending to the store in memory and reading from it; run with `pytest benches/test_bench_log.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from benches.frames import drive
from lexigram.events import DomainEvent, InMemoryEventStore

EVENTS = 10_000


class ItemAdded(DomainEvent):
    sku: str
    quantity: int


class ItemRemoved(DomainEvent):
    sku: str


def events(count: int) -> list[DomainEvent]:
    return [ItemAdded(sku="SKU-9", quantity=3) for _ in range(count)]


@pytest.fixture(scope="module")
def store() -> InMemoryEventStore:
    """Ten streams of a thousand events, one in ten of another type."""
    filled = InMemoryEventStore()
    for number in range(EVENTS // 10):
        batch = [*events(9), ItemRemoved(sku="SKU-9")]
        drive(filled.append(f"cart-{number % 10}", batch))
    return filled


async def drained(stream: AsyncIterator[Any]) -> int:
    count = 0
    async for _ in stream:
        count += 1
    return count


@pytest.mark.parametrize("size", [1, 100])
def test_append(benchmark: Any, size: int) -> None:
    """A batch of fresh events to a stream; making them is not timed."""
    log = InMemoryEventStore(max_events_per_stream=0)

    def fresh() -> tuple[tuple[str, list[DomainEvent]], dict[str, Any]]:
        return ("cart", events(size)), {}

    versions: list[int] = []
    benchmark.pedantic(lambda *args: versions.append(drive(log.append(*args))), setup=fresh, rounds=2000)
    assert versions[-1] == len(versions) * size


def test_append_on_condition_of_a_version(benchmark: Any) -> None:
    """The version is checked too."""
    log = InMemoryEventStore(max_events_per_stream=0)
    version = 0

    def fresh() -> tuple[tuple[str, list[DomainEvent], int], dict[str, Any]]:
        return ("cart", events(1), version), {}

    def append(*args: Any) -> None:
        nonlocal version
        version = drive(log.append(*args))

    benchmark.pedantic(append, setup=fresh, rounds=2000)
    assert version > 0


def test_read_a_stream(benchmark: Any, store: InMemoryEventStore) -> None:
    """A thousand events."""
    assert len(benchmark(lambda: drive(store.read("cart-1")))) == 1000


def test_read_the_end_of_a_stream(benchmark: Any, store: InMemoryEventStore) -> None:
    """The last hundred."""
    assert len(benchmark(lambda: drive(store.read("cart-1", 901)))) == 100


def test_stream_all(benchmark: Any, store: InMemoryEventStore) -> None:
    """Ten thousand events, one by one."""
    assert benchmark(lambda: drive(drained(store.stream_all()))) == EVENTS


def test_stream_the_end(benchmark: Any, store: InMemoryEventStore) -> None:
    """The last hundred of ten thousand."""
    assert benchmark(lambda: drive(drained(store.stream_all(EVENTS - 100)))) == 100


def test_stream_by_type(benchmark: Any, store: InMemoryEventStore) -> None:
    """One type in ten."""
    assert benchmark(lambda: drive(drained(store.stream_by_type([ItemRemoved])))) == EVENTS // 10
