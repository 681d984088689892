"""Crashes and cancels a program at every await, and checks what is left. Runs sagas, projections and relays under stress.

Time is virtual: a program that sleeps an hour takes no time. The order of tasks that are ready at the same time, ids and
random numbers are given by a seed. Source: design, section projections and sagas.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lexigram.events.testing._giving_way import giving_way, stores_in_memory
from lexigram.events.testing._round import Options, Round, refuse_running_loop, shut_down
from lexigram.events.testing._scheduled_loop import ScheduledLoop, Watch
from lexigram.events.testing._trial import Run, Trial, TrialFailed
from lexigram.events.testing._virtual_time import VirtualClock, installed

__all__ = ["Exploration", "Run", "Trial", "TrialFailed", "explore", "replay", "simulate"]

T = TypeVar("T")

LIMIT_SECONDS = 3600.0
_KINDS = ("crash", "cancel", "again", "stall", "jump")
_COLLECT_EVERY = 25


@dataclass
class Exploration:
    """What `explore` has tried.

    Args:
        seed: The seed of all its runs.
        points: How many places there are, by kind.
        tried: Every fault tried, in order.
        unreached: Those that a run did not come to; none in memory.
    """

    seed: int
    points: dict[str, int]
    tried: list[str] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)


def explore(
    make: Callable[[], Trial],
    *,
    seed: int = 0,
    crash: bool = True,
    cancel: bool = True,
    crash_again: bool = False,
    stall_seconds: float | None = None,
    jump_seconds: float | None = None,
    in_memory: bool = True,
    interruptible: Iterable[type] = (),
    at_most: int | None = None,
    limit_seconds: float = LIMIT_SECONDS,
) -> Exploration:
    """Run a trial once without interruption and once for each place where it can be interrupted; check it after each.

    A crash stops the world, as `kill -9` does: no `except` or `finally` runs any more. Then `recover` and `check` run on
    what is durable. A cancelled task gets `CancelledError`; the program goes on, is shut down as `asyncio.run` does it, and
    then `recover` and `check` run, too.

    In memory, everything that `time`, `asyncio.sleep` and timeouts take from the clock is virtual, calls of the stores give
    way to other tasks as those of a database do, and equal seeds mean equal runs. With `in_memory=False` threads and
    sockets may be used: a crash kills a forked process (POSIX only), one run differs a little from the next, and time runs.
    It is put forward by up to a second after each 50 ms in which nothing has answered, but not while SQLite, PostgreSQL or a
    thread of the loop owe an answer.

    Args:
        make: Returns a new trial with empty stores; usually the class.
        seed: Gives the order of tasks, ids and random numbers.
        crash: Crash before each step of each task.
        cancel: Cancel each task before it begins, at each of its waits, and when what it waited for is there.
        crash_again: Crash at each place once more, and a second time while the program recovers, somewhere by the seed.
        stall_seconds: Hold each task up before each of its steps, so many seconds by the virtual clock, above 0: longer than
            a lease, that is a worker that was stopped and wakes up when others have taken over. None = do not.
        jump_seconds: Set the wall clock (`time.time()` and what messages and sagas take for now) forward, or back if it is
            below 0, by so many seconds before each step; the monotonic clock goes on. None = do not.
        in_memory: All state is in stores of this library that keep it in memory, and in attributes of the trial.
        interruptible: More classes (fakes of gateways, stores of your own) whose public coroutine methods give way to other
            tasks before and after, so that they can be interrupted there.
        at_most: Try only so many places of each kind, at least 1, chosen by the seed; None = all.
        limit_seconds: A phase that takes longer by the virtual clock is stuck, above 0.

    Raises:
        TrialFailed: An invariant does not hold; the message has seed and fault for `replay`.
        RuntimeError: Called inside a running event loop: call it from a plain function.
        ValueError: A number with which nothing would be tried.

    Cost: about the time of one run for each place.
    """
    if at_most is not None and at_most < 1:
        raise ValueError(f"at_most must be at least 1, not {at_most}")
    if stall_seconds is not None and not stall_seconds > 0:
        raise ValueError(f"stall_seconds must be above 0, not {stall_seconds}")
    if jump_seconds == 0:
        raise ValueError("jump_seconds must not be 0")
    options = Options(seed, in_memory, tuple(interruptible), limit_seconds, stall_seconds or 0.0, jump_seconds or 0.0)
    whole = Round(make, options).play(None, 0)
    kinds = {
        "crash": (crash, whole.crashes),
        "cancel": (cancel, whole.cancels),
        "again": (crash_again, whole.crashes),
        "stall": (stall_seconds, whole.crashes),
        "jump": (jump_seconds, whole.crashes),
    }
    found = Exploration(seed, {kind: count for kind, (wanted, count) in kinds.items() if wanted})
    for kind, count in found.points.items():
        for point in _chosen(count, at_most, seed):
            done = Round(make, options).play(kind, point)
            found.tried.append(done.fault)
            if not done.place:
                found.unreached.append(done.fault)
            if len(found.tried) % _COLLECT_EVERY == 0:
                gc.collect()
    return found


def replay(
    make: Callable[[], Trial],
    fault: str,
    *,
    seed: int = 0,
    stall_seconds: float = 0.0,
    jump_seconds: float = 0.0,
    in_memory: bool = True,
    interruptible: Iterable[type] = (),
    limit_seconds: float = LIMIT_SECONDS,
) -> Run:
    """Repeat one run of `explore` with the same arguments; in memory it is the same step by step.

    Args:
        fault: As in the message of `TrialFailed`: `"crash:17"`, `"cancel:4"`, `"again:17"`, `"stall:9"`, `"jump:2"`, `"none"`.

    Raises:
        TrialFailed: It fails (again).
        ValueError: `fault` is none of these, or `stall_seconds` or `jump_seconds` of the exploration is missing.
    """
    kind, _, point = fault.partition(":")
    if fault != "none" and (kind not in _KINDS or not point.isdecimal() or int(point) < 1):
        kinds = ", ".join(f"'{each}:<n>'" for each in _KINDS)
        raise ValueError(f"fault must be {kinds} or 'none', not {fault!r}")
    if not {"stall": stall_seconds, "jump": jump_seconds}.get(kind, True):
        raise ValueError(f"to repeat {fault!r} pass the {kind}_seconds that explore() was given")
    options = Options(seed, in_memory, tuple(interruptible), limit_seconds, stall_seconds, jump_seconds)
    return Round(make, options).play(*((None, 0) if fault == "none" else (kind, int(point))))


def simulate(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    seed: int = 0,
    in_memory: bool = True,
    limit_seconds: float = LIMIT_SECONDS,
) -> T:
    """Run a coroutine function as `asyncio.run` does, in virtual time and in an order of tasks given by the seed.

    Args:
        in_memory: As for `explore`.

    Raises:
        AssertionError: Every task waits for ever, or it takes longer than `limit_seconds` by the virtual clock.
    """
    refuse_running_loop()
    clock = VirtualClock(real=not in_memory)
    with installed(clock, seed), giving_way(stores_in_memory() if in_memory else ()):
        loop = ScheduledLoop(clock, random.Random(f"order {seed}"), Watch(), limit_seconds)
        try:
            result = loop.run_until_complete(main())
            shut_down(loop)
        finally:
            if not loop.is_closed():
                loop.abandon()
        return result


def _chosen(count: int, at_most: int | None, seed: int) -> list[int]:
    points = range(1, count + 1)
    if at_most is None or count <= at_most:
        return list(points)
    return sorted(random.Random(f"points {seed}").sample(points, at_most))
