"""One run of a trial: prepare, run with one interruption, recover, check."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from lexigram.events.testing._forked import in_child
from lexigram.events.testing._giving_way import giving_way, stores_in_memory
from lexigram.events.testing._scheduled_loop import Crashed, ScheduledLoop, Stuck, Watch
from lexigram.events.testing._trial import Run, Trial, TrialFailed
from lexigram.events.testing._virtual_time import VirtualClock, installed

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    seed: int
    in_memory: bool
    interruptible: tuple[type, ...]
    limit_seconds: float
    stall_seconds: float
    jump_seconds: float

    def __post_init__(self) -> None:
        if not self.limit_seconds > 0:
            raise ValueError(f"limit_seconds must be above 0, not {self.limit_seconds!r}")
        for named in self.interruptible:
            if not isinstance(named, type):
                raise TypeError(f"interruptible takes classes, not {named!r}")


class Round:
    """One run: prepare, run with one interruption, recover, check."""

    def __init__(self, make: Callable[[], Trial], options: Options) -> None:
        refuse_running_loop()
        self._make, self._options = make, options
        self._clock = VirtualClock(real=not options.in_memory)
        self._chance = random.Random(f"order {options.seed}")
        self._loops: list[ScheduledLoop] = []
        self._watch = Watch()
        self._fault = "none"

    def play(self, kind: str | None, point: int) -> Run:
        """Play it with one fault, or with none."""
        seconds = self._options.jump_seconds if kind == "jump" else self._options.stall_seconds
        first = self._watch = Watch("crash" if kind == "again" else kind, point, seconds)
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
            shut_down(loop)
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
            shut_down(loop)
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
        shut_down(loop)

    def _loop(self) -> ScheduledLoop:
        loop = ScheduledLoop(self._clock, self._chance, self._watch, self._options.limit_seconds)
        self._loops.append(loop)
        return loop

    def _failed(self, message: str) -> TrialFailed:
        return TrialFailed(message, self._options.seed, self._fault, self._watch.place)


async def _call(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def shut_down(loop: ScheduledLoop) -> None:
    """End a loop as `asyncio.run` does: cancel what is left and let it finish."""
    if loop.is_closed():
        return
    loop.renew_limit()
    while left := loop.unfinished():
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("a scheduler has an event loop of its own; call it from a plain function, not from a coroutine")
