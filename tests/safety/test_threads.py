"""Real threads on one log, one channel and one codec, switching as often as the interpreter can."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lexigram.events import DomainEvent, EventCodec, _core
from lexigram.events.buses.channel import BoundedChannel
from lexigram.events.exceptions import ConcurrencyError
from lexigram.events.messages.registry import EventTypeRegistry
from tests.safety.message_calls import Plain, Rich

SHORT, LONG = 1.5, 120.0
durations = pytest.mark.parametrize(
    "seconds", [SHORT, pytest.param(LONG, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Let threads take turns every microsecond."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def run(seconds: float, *works: Callable[[int], None]) -> None:
    """Call each work over and over in a thread of its own, with the number of the turn; errors fail the test."""
    end, errors = time.monotonic() + seconds, []

    def repeat(work: Callable[[int], None]) -> None:
        try:
            turn = 0
            while time.monotonic() < end and not errors:
                turn += 1
                work(turn)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in (*works, lambda turn: gc.collect(turn % 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


@durations
def test_threads_share_a_log(seconds: float) -> None:
    """Four writers (quick, general, conditional, racing), two readers, one that compacts: nothing twice, lost or torn."""
    log = _core.EventLog(lambda *_: None, 0)
    log.learn(Plain, "Plain")
    written: Counter[str] = Counter()
    won: Counter[str] = Counter()

    def append(turn: int) -> None:
        log.append("quick", [Plain(n=turn), Plain(n=turn)], None)
        written["quick"] += 2

    def store(turn: int) -> None:
        batches: Any = [("general", [Rich(value=[turn], tags=("t",))], ["Rich"], None, None)]
        batches.append(("both", [Plain(n=turn)], ["Plain"], None, None))
        log.store(batches)
        log.store(batches)  # a retry
        written.update(("general", "both"))

    def racer(name: str) -> Callable[[int], None]:
        def race(turn: int) -> None:
            version = log.bounds("race")[1]
            try:
                log.append("race", [Plain(n=version + 1)], version)
                won[name] += 1
            except ConcurrencyError:
                pass

        return race

    def read(turn: int) -> None:
        for stream in ("quick", "general", "race"):
            versions = [event.version for event in log.read(stream, max(0, log.bounds(stream)[1] - 50), None, 60) or ()]
            assert versions == list(range(versions[0], versions[0] + len(versions))) if versions else True
        events, position, _ = log.page(
            max(0, log.head() - 100), None, None, [(["Plain"], []), (None, ["t"])], None, False
        )
        positions = [event.sequence_number for event in events]
        assert positions == sorted(set(positions))
        assert position >= (positions or [0])[-1]
        assert log.count(0, None, None, (turn % 3, 3)) <= log.head()

    def compact(turn: int) -> None:
        log.compact("quick", max(0, log.bounds("quick")[1] - 30))
        log.learn(type("New", (), {}), f"New{turn % 5}")

    run(seconds, append, store, racer("a"), racer("b"), read, read, compact)
    written["race"] = won["a"] + won["b"]
    assert log.bounds("race") == (min(1, written["race"]), written["race"])
    assert [event.n for event in log.read("race", 0, None, None) or ()] == list(range(1, log.bounds("race")[1] + 1))
    assert log.bounds("quick")[1] == written["quick"]
    assert log.bounds("general") == (1, written["general"])
    assert log.bounds("both") == (1, written["both"])
    assert log.head() == sum(written.values())
    assert len(log) == sum(len(log.read(stream, 0, None, None) or ()) for stream in log.stream_ids())


@durations
def test_threads_share_a_channel(seconds: float) -> None:
    """Three producers and three consumers that never wait: each accepted item arrives once, each producer's in order."""
    channel, nothing = BoundedChannel(7), object()
    accepted: list[Counter[int]] = [Counter() for _ in range(3)]
    received: list[list[tuple[int, int]]] = [[] for _ in range(3)]

    def producer(name: int) -> Callable[[int], None]:
        def put(turn: int) -> None:
            if channel.put_nowait((name, accepted[name][0])):
                accepted[name][0] += 1

        return put

    def consumer(name: int) -> Callable[[int], None]:
        def take(turn: int) -> None:
            if turn % 3:
                item = channel._take(nothing)
                items = [] if item is nothing else [item]
            else:
                items = channel._take_many(3)
            received[name].extend(items)
            assert 0 <= len(channel) <= 7

        return take

    run(seconds, *map(producer, range(3)), *map(consumer, range(3)))
    received[0].extend(channel._take_many(100))
    everything = [item for items in received for item in items]
    assert sorted(everything) == sorted((name, n) for name in range(3) for n in range(accepted[name][0]))
    for items in received[1:]:
        for name in range(3):
            numbers = [number for producer, number in items if producer == name]
            assert numbers == sorted(numbers)


@durations
@pytest.mark.parametrize("format_", ["json", "binary"])
def test_threads_share_a_codec_while_its_registry_changes(seconds: float, format_: Any) -> None:
    """What is encoded comes back, whatever classes are defined, registered and forgotten meanwhile."""
    registry = EventTypeRegistry()
    registry.register(Rich)
    codec = EventCodec(registry, format=format_)

    def there_and_back(turn: int) -> None:
        event = Rich(value=[{"n": turn}, Plain(n=turn)], tags=(f"t{turn}",))
        row = codec.encode(event)
        assert codec.decode(row.type_name, row.event_type, row.payload, 0, None) == event

    def define(turn: int) -> None:
        cls: Any = type("New", (DomainEvent,), {"__annotations__": {"a": int, "b": list[int]}, "__module__": __name__})
        row = codec.encode(cls(a=turn, b=[turn]))
        assert b"New" in row.type_name.encode()
        time.sleep(0.005)

    def forget(turn: int) -> None:
        _core.registry_changed()
        time.sleep(0.0005)

    run(seconds, there_and_back, there_and_back, define, forget)
