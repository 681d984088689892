"""The event bus under load: random failures, cancellations, suspensions; order and completeness asserted."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any
from uuid import uuid4

import pytest

from lexigram.events.buses.dead_letter import InMemoryDeadLetterStore
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.config import EventBusConfig
from lexigram.events.messages.event import DomainEvent


class Left(DomainEvent):
    """One event type."""

    number: int


class Right(DomainEvent):
    """Another one, of the same aggregates."""

    number: int


class Recorder:
    """A handler that fails and suspends at random, and notes what it has handled, by aggregate."""

    def __init__(self, name: int, dice: random.Random, failure_rate: float) -> None:
        self.name, self.dice, self.failure_rate = name, dice, failure_rate
        self.handled: dict[Any, list[int]] = defaultdict(list)

    async def handle(self, event: Any) -> None:
        """Handle one event."""
        roll = self.dice.random()
        if roll < 0.02:
            await asyncio.sleep(0)
        elif roll < 0.021:
            await asyncio.sleep(0.0005)
        if self.dice.random() < self.failure_rate:
            raise ValueError("dice")
        self.handled[event.aggregate_id].append(event.number)


def journal(aggregates: list[Any], count: int) -> list[DomainEvent]:
    """Return `count` events of two types, numbered within each aggregate."""
    dice, numbers = random.Random(7), defaultdict(int)
    events: list[DomainEvent] = []
    for _ in range(count):
        aggregate = dice.choice(aggregates)
        numbers[aggregate] += 1
        kind = Left if dice.random() < 0.5 else Right
        events.append(kind(number=numbers[aggregate], aggregate_id=aggregate))
    return events


def expected(events: list[Any]) -> dict[Any, list[int]]:
    """Return what a handler has to see: the numbers of each aggregate, in order."""
    found: dict[Any, list[int]] = defaultdict(list)
    for event in events:
        found[event.aggregate_id].append(event.number)
    return found


@pytest.mark.slow
async def test_a_hundred_thousand_events_reach_ten_failing_handlers_in_order() -> None:
    """With retries, dead letters, parking and replay every handler sees every aggregate complete and in order."""
    dice, store = random.Random(1), InMemoryDeadLetterStore()
    config = EventBusConfig(retry_delay_seconds=0, max_handler_retries=1, max_queue_per_subscriber=500)
    bus = EventBusImpl(config=config, dead_letters=store)
    recorders = [Recorder(number, dice, 0.002 if number < 3 else 0.0) for number in range(10)]
    for recorder in recorders:
        bus.subscribe(DomainEvent, recorder)
    events = journal([uuid4() for _ in range(2000)], 100_000)
    for start in range(0, len(events), 1000):
        await bus.publish(events[start : start + 1000])
    await bus.flush()
    while await store.get_count(replayed=False):
        await store.replay_all(bus, limit=1000)
    report = await bus.close()
    assert report.drained
    wanted = expected(events)
    for recorder in recorders:
        assert recorder.handled == wanted


async def test_cancellation_at_random_points_loses_and_reorders_nothing() -> None:
    """Workers and publishers are cancelled; accepted events are handled at least once, first sightings in order."""
    dice = random.Random(3)
    bus = EventBusImpl(config=EventBusConfig(max_queue_per_subscriber=20, retry_delay_seconds=0))
    seen: dict[Any, list[int]] = defaultdict(list)

    @bus.handler(DomainEvent)
    async def handle(event: Any) -> None:
        if event.number % 3 == 0:
            await asyncio.sleep(0.0003)
        seen[event.aggregate_id].append(event.number)
        if event.number % 5 == 0:
            await asyncio.sleep(0)

    aggregates = [uuid4() for _ in range(8)]
    accepted: dict[Any, list[int]] = defaultdict(list)

    async def publisher(aggregate: Any) -> None:
        for number in range(150):
            event = (Left if number % 2 else Right)(number=number, aggregate_id=aggregate)
            publishing = asyncio.create_task(bus.publish(event))
            if dice.random() < 0.1:
                await asyncio.sleep(0)
                publishing.cancel()
            try:
                await publishing
                accepted[aggregate].append(number)
            except asyncio.CancelledError:
                pass

    async def assassin() -> None:
        while True:
            await asyncio.sleep(0.002)
            if bus._tasks:
                dice.choice(list(bus._tasks)).cancel()

    killer = asyncio.create_task(assassin())
    async with asyncio.timeout(60):
        await asyncio.gather(*map(publisher, aggregates))
        killer.cancel()
        await bus.flush()
    for aggregate in aggregates:
        first_sightings = list(dict.fromkeys(seen[aggregate]))
        assert first_sightings == sorted(first_sightings)
        assert set(accepted[aggregate]) <= set(first_sightings), "an accepted event was lost"
    assert bus.dispatch_errors == ()
    assert not bus._backlog.lanes
    assert all(topic.queued == 0 and topic.waiting == 0 for topic in bus._topics.values())
    await bus.close()


async def test_closing_at_random_moments_keeps_every_accepted_call() -> None:
    """Handled, or among the dead letters: nothing twice, nothing missing, replay completes the rest in order."""
    for seed in range(10):
        dice, store = random.Random(seed), InMemoryDeadLetterStore()
        bus = EventBusImpl(config=EventBusConfig(max_concurrent_handlers=4), dead_letters=store)
        recorders = [Recorder(number, dice, 0.0) for number in range(3)]
        for recorder in recorders:
            recorder.dice = random.Random(seed + recorder.name)
            bus.subscribe(DomainEvent, recorder)
        events = journal([uuid4() for _ in range(20)], 400)
        accepted: list[Any] = []

        async def publish_all(
            bus: EventBusImpl = bus, events: list[Any] = events, accepted: list[Any] = accepted
        ) -> None:
            for event in events:
                await bus.publish(event)
                accepted.append(event)
                if event.number % 4 == 0:
                    await asyncio.sleep(0)

        publishing = asyncio.create_task(publish_all())
        await asyncio.sleep(dice.random() * 0.02)
        await bus.close(0.0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        second = EventBusImpl(dead_letters=store)
        for recorder in recorders:
            second.subscribe(DomainEvent, recorder)
        while await store.get_count(replayed=False):
            await store.replay_all(second)
        await second.close()
        wanted = expected(accepted)
        for recorder in recorders:
            assert recorder.handled == wanted
