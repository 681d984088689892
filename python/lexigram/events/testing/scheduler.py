"""Crashes and cancels a program at every await, and checks what is left. Runs sagas, projections and relays under stress.

Time is virtual: a program that sleeps an hour takes no time. The order of tasks that are ready at the same time, ids and
random numbers are given by a seed. Source: design, section projections and sagas.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lexigram.events.testing._forked import in_child
from lexigram.events.testing._giving_way import giving_way, stores_in_memory
from lexigram.events.testing._scheduled_loop import Crashed, ScheduledLoop, Stuck, Watch
from lexigram.events.testing._virtual_time import VirtualClock, installed

T = TypeVar("T")

LIMIT_SECONDS = 3600.0
_KINDS = ("crash", "cancel", "again", "stall")
_COLLECT_EVERY = 25


class Trial:
    """One run of a program: what it does, how it recovers, and what must be true then.

    Keep in attributes only what survives a crash: stores in memory, or the address of a database. Everything else, such as
    managers and relays, is made anew in `run` and in `recover`.
    """

    async def prepare(self) -> None:
        """Make what the run needs, such as tables and first events; not interrupted."""

    async def run(self) -> None:
        """Do the work. It is interrupted at every await, in all the tasks that it starts."""
        raise NotImplementedError(f"{type(self).__name__} has no run()")

    async def recover(self) -> None:
        """Start the program again, with fresh objects, and let it finish what it finds. Not interrupted.

        It is called after runs that came to their end, too: there must be nothing left to do then.
        """

    async def check(self) -> None:
        """Raise AssertionError unless everything is as it has to be."""

    async def close(self) -> None:
        """Remove what the trial has left behind."""


class TrialFailed(AssertionError):
    """An invariant does not hold after an interruption, or the program did not come to an end.

    Args:
        seed: The seed of the run.
        fault: Where it was interrupted, such as `"crash:17"`, or `"none"`. `replay` takes it.
        place: What the interrupted task was doing.
    """

    def __init__(self, message: str, seed: int, fault: str, place: str) -> None:
        at = f"\n  interrupted: {place}" if place else ""
        super().__init__(f"{message}\n  seed {seed}, fault {fault!r}: replay(…, {fault!r}, seed={seed}){at}")
        self.seed, self.fault, self.place = seed, fault, place


@dataclass(frozen=True)
class Run:
    """One finished run.

    Args:
        fault: Where it was interrupted.
        place: What the interrupted task was doing; empty where the point was not reached.
        crashes: Places where a run can crash or stall, as far as this one came.
        cancels: Places where a task can be cancelled, as far as this one came.
        trace: The tasks in the order of their steps; equal for equal seeds and faults in memory.
        seconds: How long it took by the virtual clock.
    """

    fault: str
    place: str
    crashes: int
    cancels: int
    trace: tuple[str, ...]
    seconds: float


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
        in_memory: All state is in stores of this library that keep it in memory, and in attributes of the trial.
        interruptible: More classes (fakes of gateways, stores of your own) whose public coroutine methods give way to other
            tasks before and after, so that they can be interrupted there.
        at_most: Try only so many places of each kind, chosen by the seed; None = all.
        limit_seconds: A phase that takes longer by the virtual clock is stuck, above 0.

    Raises:
        TrialFailed: An invariant does not hold; the message has seed and fault for `replay`.
        RuntimeError: Called inside a running event loop: call it from a plain function.

    Cost: about the time of one run for each place.
    """
    options = _Options(seed, in_memory, tuple(interruptible), limit_seconds, stall_seconds or 0.0)
    whole = _Round(make, options).play(None, 0)
    kinds = {
        "crash": (crash, whole.crashes),
        "cancel": (cancel, whole.cancels),
        "again": (crash_again, whole.crashes),
        "stall": (stall_seconds, whole.crashes),
    }
    found = Exploration(seed, {kind: count for kind, (wanted, count) in kinds.items() if wanted})
    for kind, count in found.points.items():
        for point in _chosen(count, at_most, seed):
            done = _Round(make, options).play(kind, point)
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
    in_memory: bool = True,
    interruptible: Iterable[type] = (),
    limit_seconds: float = LIMIT_SECONDS,
) -> Run:
    """Repeat one run of `explore` with the same arguments; in memory it is the same step by step.

    Args:
        fault: As in the message of `TrialFailed`: `"crash:17"`, `"cancel:4"`, `"again:17"`, `"stall:9"` or `"none"`.

    Raises:
        TrialFailed: It fails (again).
        ValueError: `fault` is none of these.
    """
    kind, _, point = fault.partition(":")
    if fault != "none" and (kind not in _KINDS or not point.isdecimal() or int(point) < 1):
        kinds = ", ".join(f"'{each}:<n>'" for each in _KINDS)
        raise ValueError(f"fault must be {kinds} or 'none', not {fault!r}")
    options = _Options(seed, in_memory, tuple(interruptible), limit_seconds, stall_seconds)
    return _Round(make, options).play(*((None, 0) if fault == "none" else (kind, int(point))))


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
    _refuse_running_loop()
    clock = VirtualClock(real=not in_memory)
    with installed(clock, seed), giving_way(stores_in_memory() if in_memory else ()):
        loop = ScheduledLoop(clock, random.Random(f"order {seed}"), Watch(), limit_seconds)
        try:
            result = loop.run_until_complete(main())
            _shut_down(loop)
        finally:
            if not loop.is_closed():
                loop.abandon()
        return result


@dataclass(frozen=True)
class _Options:
    seed: int
    in_memory: bool
    interruptible: tuple[type, ...]
    limit_seconds: float
    stall_seconds: float


class _Round:
    """One run: prepare, run with one interruption, recover, check."""

    def __init__(self, make: Callable[[], Trial], options: _Options) -> None:
        _refuse_running_loop()
        self._make, self._options = make, options
        self._clock = VirtualClock(real=not options.in_memory)
        self._chance = random.Random(f"order {options.seed}")
        self._loops: list[ScheduledLoop] = []
        self._watch = Watch()
        self._fault = "none"

    def play(self, kind: str | None, point: int) -> Run:
        """Play it with one fault, or with none."""
        first = self._watch = Watch("crash" if kind == "again" else kind, point, self._options.stall_seconds)
        self._fault = "none" if kind is None else f"{kind}:{point}"
        was_enabled = gc.isenabled()
        gc.disable()  # so that what it finalizes does not depend on what ran before
        try:
            with ExitStack() as stack:
                stack.enter_context(installed(self._clock, self._options.seed))
                reopen = self._reopen
                if self._options.in_memory:
                    classes = (*stores_in_memory(), *self._options.interruptible)
                    reopen = stack.enter_context(giving_way(classes))
                trial = self._make()
                try:
                    self._quietly(trial.prepare)
                    self._run(trial.run)
                    reopen()
                    if kind == "again":
                        somewhere = int(2 ** random.Random(f"again {self._options.seed} {point}").uniform(0, 8))
                        self._watch = Watch("crash", somewhere)
                        self._run(trial.recover)
                        reopen()
                    self._recover(trial)
                finally:
                    self._abandon_loops()
                    self._quietly(trial.close)
        finally:
            if was_enabled:
                gc.enable()
        return Run(
            self._fault, first.place, first.crashes, first.cancels, tuple(first.trace), round(self._clock.elapsed, 6)
        )

    @staticmethod
    def _reopen() -> None:
        """Do nothing: a database holds nothing of the process that was killed."""

    def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run the program, in a process of its own if that is to be killed."""
        if self._watch.kind != "crash" or self._options.in_memory:
            self._phase(work)
            return

        def in_it(end: Callable[[Watch], None]) -> None:
            self._watch = Watch("crash", self._watch.point, end=end)
            self._phase(work)

        report = in_child(in_it, lambda: self._clock.skipped)
        self._clock.advance(report.skipped - self._clock.skipped)
        self._watch.place = report.place
        if report.error:
            raise self._failed(f"the program failed before its point:\n{report.error}")

    def _phase(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run the program until it ends or crashes."""
        loop, watch = self._loop(), self._watch
        body = loop.create_task(_call(work))
        watch.is_on = True
        try:
            loop.run_until_complete(body)
        except Crashed:
            return
        except Stuck as error:
            if not watch.was_cancelled or watch.target is body:
                raise self._failed(f"the program does not end: {error}") from error
        except (Exception, asyncio.CancelledError) as error:
            if not watch.was_cancelled:
                raise self._failed(f"the program raised {type(error).__name__}: {error}") from error
        finally:
            watch.is_on = False
        try:
            _shut_down(loop)
        except Stuck as error:
            raise self._failed(f"tasks do not end when they are cancelled: {error}") from error

    def _recover(self, trial: Trial) -> None:
        loop = self._loop()

        async def rest() -> None:
            await trial.recover()
            loop.renew_limit()
            await trial.check()

        try:
            loop.run_until_complete(rest())
            _shut_down(loop)
        except (Exception, asyncio.CancelledError) as error:
            name = "recover() does not end" if isinstance(error, Stuck) else type(error).__name__
            raise self._failed(f"{type(trial).__name__}: {name}: {error}") from error

    def _abandon_loops(self) -> None:
        """Throw away what has crashed or is stuck, now that it has been checked."""
        for loop in self._loops:
            if not loop.is_closed():
                loop.abandon()

    def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        loop = self._loop()
        loop.run_until_complete(_call(work))
        _shut_down(loop)

    def _loop(self) -> ScheduledLoop:
        loop = ScheduledLoop(self._clock, self._chance, self._watch, self._options.limit_seconds)
        self._loops.append(loop)
        return loop

    def _failed(self, message: str) -> TrialFailed:
        return TrialFailed(message, self._options.seed, self._fault, self._watch.place)


async def _call(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _chosen(count: int, at_most: int | None, seed: int) -> list[int]:
    points = range(1, count + 1)
    if at_most is None or count <= at_most:
        return list(points)
    return sorted(random.Random(f"points {seed}").sample(points, at_most))


def _shut_down(loop: ScheduledLoop) -> None:
    """End a loop as `asyncio.run` does: cancel what is left and let it finish."""
    if loop.is_closed():
        return
    loop.renew_limit()
    left = [task for task in loop.tasks if not task.done()]
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("a scheduler has an event loop of its own; call it from a plain function, not from a coroutine")
