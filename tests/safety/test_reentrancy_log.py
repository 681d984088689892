"""Code of the user's that log and channel call, and that calls back into the very object that is being used."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from lexigram.concurrency.exceptions import ChannelClosedError
from lexigram.events import DomainEvent, _core
from lexigram.events.buses.channel import BoundedChannel
from tests.safety.back import Back, Dying, Foreign
from tests.safety.message_calls import Plain, Rich

# The log


def log_with_back(*extra: Callable[[Any], Any], keep: int = 0) -> tuple[Any, Back]:
    """Return a log, and a call that uses it in every way."""
    log = _core.EventLog(lambda *_: back(), keep)
    for cls in (Plain, Rich):
        log.learn(cls, cls.__name__)
    back = Back(
        lambda: log.append("back", [Plain()], None),
        lambda: log.store([("back", [Rich(value=[1], tags=("t",))], ["Rich"], None, None)]),
        lambda: log.read("s", 0, None, None),
        lambda: log.page(0, 5, None, [(["Rich"], []), (None, ["t"])], (0, 1), True),
        lambda: log.check(("s", [Plain()], ["Plain"], 0, None)) if not len(log) else None,
        lambda: (log.bounds("s"), log.head(), log.removals(), log.stream_ids(), len(log), log.count(0, None, None, None)),
        lambda: log.learn(type("New", (), {}), "New"),
        lambda: log.compact("back", max(0, log.bounds("back")[1] - 3)),
        gc.collect,
        *(lambda work=work: work(log) for work in extra),
    )  # fmt: skip
    return log, back


def is_sound(log: Any) -> None:
    """Every stream's events have versions without a gap, the global order positions that ascend."""
    events, _, streams = log.page(0, None, None, None, None, True)
    for stream in set(streams):
        first, last = log.bounds(stream)
        assert len(log.read(stream, 0, None, None)) == last - first + 1
    ours = [event.sequence_number for event in events if isinstance(event, DomainEvent)]
    assert ours == sorted(set(ours))
    assert len(events) == len(log)


@pytest.mark.parametrize("clears", [False, True], ids=["", "cleared"])
def test_a_log_may_be_used_while_it_takes_events(clears: bool) -> None:
    """By the attributes of an event that is not ours, by its stamping, and by an iterable of batches."""
    log, back = log_with_back(*[lambda log: log.clear()] * clears)

    class Batches(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            back()
            return super().__iter__()

        def __getitem__(self, index: Any) -> Any:
            back()
            return super().__getitem__(index)

    for n in range(10):
        foreign = [Foreign(back), Plain(), Foreign(back)]
        log.store(
            Batches([("s", foreign, Batches(["F", "Plain", "F"]), None, None), (f"t{n}", [Plain()], ["P"], None, None)])
        )
    assert back.called
    is_sound(log)
    assert clears or log.bounds("s") == (1, 30)


@pytest.mark.parametrize("way", ["evict", "compact", "clear", "drop", "learn"])
def test_a_log_may_be_used_while_it_lets_go_of_events(way: str) -> None:
    """By `__del__` of what the events held."""
    log, back = log_with_back(keep=3 if way == "evict" else 0)
    for n in range(12):
        event = Rich(value=[Dying(back)])
        log.store([("s", [event], ["Rich"], None, None)])
        del event
        if way == "compact":
            log.compact("s", n)
        elif way == "clear":
            log.clear()
        elif way == "learn":
            log.learn(type("Class", (), {"dying": Dying(back)}), "Class")
    is_sound(log)
    if way in ("drop", "learn"):
        log.clear()
        gc.collect()
        is_sound(log)
    assert back.called


def test_arguments_of_the_log_may_be_code() -> None:
    """`__index__`, `__len__` and `__iter__` of what is passed may use or clear the log."""
    log, back = log_with_back(lambda log: log.clear())

    class Number:
        def __index__(self) -> int:
            back()
            return 1

    class Names(list[str]):
        def __iter__(self) -> Iterator[str]:
            back()
            return iter(["Rich"])

    for _ in range(5):
        log.append("s", [Plain()], None)
        log.page(Number(), Number(), Number(), [(Names(["Rich"]), Names())], (0, Number()), True)
        log.count(Number(), Number(), None, None)
        log.compact("s", Number())
    assert back.called
    is_sound(log)


def test_a_batch_may_change_while_it_is_read() -> None:
    """By the attributes of its own events: what comes after counts no more, one that shrinks is refused."""
    log, _ = log_with_back()
    events: list[Any] = []
    events[:] = [Foreign(Back(events.pop, times=1)), Plain(), Plain()]
    with pytest.raises(ValueError, match="2 events with 3 type names"):
        log.store([("s", events, ["F", "Plain", "Plain"], None, None)])
    assert len(log) == 0
    events[:] = [Foreign(Back(lambda: events.append(Plain()), times=1)), Plain()]
    log.store([("s", events, ["F", "Plain"], None, None)])
    assert (log.bounds("s"), len(events)) == ((1, 2), 3)


def test_events_may_be_stored_by_their_own_comparison() -> None:
    """`__eq__` and `__hash__` of a value run while the log looks for what is stored: it never calls them."""
    log, back = log_with_back()

    class Compares:
        def __eq__(self, other: object) -> bool:
            back()
            return True

        def __hash__(self) -> int:
            back()
            return 1

    events = [Rich(value=Compares()) for _ in range(3)]
    for _ in range(3):
        log.store([("s", events, ["Rich"] * 3, None, None)])
    assert not back.called
    assert events[0] != events[1]
    assert events[0] == events[0]._with(value=Compares())
    assert back.called
    is_sound(log)


# The channel


@pytest.mark.parametrize("way", ["collect", "take", "take many", "leave", "close", "closed"])
def test_a_channel_may_be_used_by_what_it_wakes(way: str) -> None:
    """`done` and `set_result` of a waiter's future put, take, enlist, leave and close."""
    channel = BoundedChannel(2)

    class Future:
        def done(self) -> bool:
            back()
            return False

        def set_result(self, result: Any) -> None:
            back()

    getter = Future()
    back = Back(
        lambda: channel.put_nowait("back"),
        lambda: channel._take(None),
        lambda: channel._take_many(1),
        lambda: channel._enlist_putter(Future()),
        lambda: channel._leave_putter(getter),
        lambda: channel._leave_getter(getter),
        gc.collect,
        *[channel._close] * (way == "closed"),
    )

    def use() -> None:
        channel._enlist_getter(getter)
        channel.put_nowait(1)
        if way == "collect":
            channel._collect(getter, 3)
        channel.put_nowait(2)
        channel._enlist_putter(Future())
        if way == "take":
            channel._take(None)
        elif way == "take many":
            channel._take_many(2)
        elif way == "leave":
            channel._leave_putter(Future())
        elif way == "close":
            channel._close()

    for _ in range(5):
        # The item was taken meanwhile: to the getter, that is as if the channel was closed.
        with suppress(ChannelClosedError):
            use()
    assert back.called
    assert len(channel) <= channel.capacity + 5  # and one more for each getter that left
    back.times = 0
    channel._take_many(99)
    assert len(channel) == 0


def test_a_channel_may_be_used_by_what_it_drops() -> None:
    """`__del__` of an item that is taken, refused or collected with its channel."""
    channel = BoundedChannel(3)
    back = Back(lambda: channel.put_nowait(1), lambda: channel._take_many(1), gc.collect)
    for _ in range(3):
        channel.put_nowait(Dying(back))
        channel._take(None)
        channel.put_nowait(Dying(back))
        channel._take_many(5)
    ring = BoundedChannel(3)
    ring.put_nowait([ring, Dying(back)])
    del ring
    gc.collect()
    channel._close()
    for _ in range(3):
        with pytest.raises(ChannelClosedError):
            channel.put_nowait(Dying(Back(lambda: channel._close())))
    assert back.called
