"""An event loop whose time is virtual and whose choices come from a seed."""

from __future__ import annotations

import asyncio
import heapq
import random
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import lexigram.events
from lexigram.events.testing._virtual_time import VirtualClock

_PATIENCE_SECONDS = 0.05
_SKIPPED_SECONDS = 1.0
"""So much time is skipped after a silence of that length where something outside may be answering late."""

_DRIVERS = ("lexigram.events.stores.sqlite.", "asyncpg.")
"""Modules whose futures are answers from outside: no time is skipped while one is awaited."""

_SILENCE_SECONDS = 10.0
_GRACE_SECONDS = 20.0
"""So long a program may go on, by the virtual clock, after one of its tasks was cancelled; then it is shut down."""

_MAX_STEPS = 1_000_000
_MAX_CHOICE = 64
_OURS = str(Path(lexigram.events.__file__).parent)
_BACKENDS = tuple(str(Path(_OURS, "stores", name)) for name in ("sqlite", "postgres", "mongodb", "redis"))
_FOREIGN = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class Crashed(BaseException):
    """The process is gone: nothing that belongs to it runs any more."""


class Stuck(AssertionError):
    """Every task waits for something that cannot happen, or it takes too long."""


class Watch:
    """Counts the places where a run can be interrupted, and interrupts it at one of them.

    Before each step of any of its tasks a run can crash, the task can be held up, or the wall clock can be set. A task can be
    cancelled before it begins, while it waits, and when what it waited for is there already.

    Args:
        kind: `"crash"`, `"cancel"`, `"stall"`, `"jump"`, or None to count only.
        point: Which place, from 1.
        seconds: How long a task is held up, or by how much the clock is set.
        end: Called at a crash instead of raising `Crashed`.
    """

    def __init__(
        self,
        kind: str | None = None,
        point: int = 0,
        seconds: float = 0.0,
        end: Callable[[Watch], None] | None = None,
    ) -> None:
        self.kind, self.point, self.seconds, self._end = kind, point, seconds, end
        self.is_on = False
        self.crashes = 0
        self.cancels = 0
        self.target: asyncio.Task[Any] | None = None
        """The task that was interrupted."""
        self.place = ""
        self.trace: list[str] = []
        """The tasks in the order of their steps."""
        self._names: dict[asyncio.Task[Any], str] = {}

    def before(self, task: asyncio.Task[Any], woken: bool) -> float:
        """Take note of a step that is about to be taken; return the seconds of a stall or a jump."""
        if not self.is_on:
            return 0.0
        begins = task not in self._names
        if begins:
            self._names[task] = f"{len(self._names)} {getattr(task.get_coro(), '__qualname__', '?')}"
        self.trace.append(self._names[task])
        self.crashes += 1
        if self.kind == "crash" and self.crashes == self.point:
            self._hit(task)
            if self._end is not None:
                self._end(self)
            raise Crashed
        if begins or woken:
            self._may_cancel(task)
        if self.kind in ("stall", "jump") and self.crashes == self.point:
            self._hit(task)
            return self.seconds
        return 0.0

    def after(self, task: asyncio.Task[Any]) -> None:
        """Take note of a step that has been taken."""
        if self.is_on and not task.done():
            self._may_cancel(task)

    def _may_cancel(self, task: asyncio.Task[Any]) -> None:
        if _is_foreign(task):
            return
        self.cancels += 1
        if self.kind == "cancel" and self.cancels == self.point:
            self._hit(task)
            task.cancel()

    @property
    def was_cancelled(self) -> bool:
        """Whether a task of the run that is watched has been cancelled."""
        return self.is_on and self.kind == "cancel" and self.target is not None

    def _hit(self, task: asyncio.Task[Any]) -> None:
        self.target, self.place = task, standing(task)


class ScheduledLoop(asyncio.SelectorEventLoop):
    """Runs tasks that are ready at the same time in an order given by `chance`, and skips time in which nothing happens.

    Plain callbacks keep their order, as asyncio promises it. While sockets are open or threads work for the loop, or
    where the clock is a running one, time is only skipped after a short real silence.

    Args:
        limit_seconds: A run that takes longer by the virtual clock is stuck.
    """

    def __init__(self, clock: VirtualClock, chance: random.Random, watch: Watch, limit_seconds: float) -> None:
        super().__init__()
        self.clock = clock
        self.tasks: list[asyncio.Task[Any]] = []
        """Every task, in the order in which they began."""
        self._chance = chance
        self._watch = watch
        self._limit_seconds = limit_seconds
        self._limit = clock.elapsed + limit_seconds
        self._steps = 0
        self._jobs = 0
        self._asked: set[asyncio.Future[Any]] = set()
        self._is_abandoned = self._is_interrupted = False
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda *_: None)

    def renew_limit(self) -> None:
        """Begin to count the time anew."""
        self._limit = self.clock.elapsed + self._limit_seconds
        self._steps = 0

    def time(self) -> float:
        """Return the virtual time."""
        return self.clock.monotonic()

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future; those of drivers are remembered until they are done."""
        future = super().create_future()
        if self.clock.is_real and sys._getframe(1).f_globals.get("__name__", "").startswith(_DRIVERS):
            self._asked.add(future)
        return future

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Run a function in a thread; time is not skipped meanwhile."""
        self._jobs += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """End the threads; that is work of a thread, too."""
        self._jobs += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._jobs -= 1

    def _job_done(self, _: asyncio.Future[Any] | Future[Any]) -> None:
        self._jobs -= 1

    @staticmethod
    def _make_task(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        loop.tasks.append(task)
        if task.get_name().startswith("Task-"):  # counted in the whole process: not the same in the next run
            task.set_name(f"task {len(loop.tasks)}")
        return task

    def _run_once(self) -> None:
        """Do what asyncio's own method does: wait, then run what was ready."""
        timers, ready = self._scheduled, self._ready  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        wait = None
        if ready or self._stopping:  # type: ignore[attr-defined]
            wait = 0.0
        elif timers:
            wait = max(0.0, timers[0]._when - self.time())
        self._process_events(self._wait(wait))  # type: ignore[attr-defined]
        self.clock.tell()
        while timers and timers[0]._when <= self.time() + 1e-9:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = self._take(ready)
            if not handle._cancelled:
                self._run(handle)
        if self.clock.elapsed > self._limit or self._steps > _MAX_STEPS:
            raise Stuck(f"not finished after {self._limit_seconds:g} s or {_MAX_STEPS} steps; {self.standing()}")

    def _run(self, handle: Any) -> None:
        self._steps += 1
        task, woken = _task_of(handle)
        if task is None:
            handle._run()
            return
        seconds = self._watch.before(task, woken)
        if seconds and self._watch.kind == "stall":
            self.call_later(seconds, handle._run)
            return
        if seconds:
            self.clock.jump(seconds)
        handle._run()
        self._watch.after(task)
        if self._watch.was_cancelled and not self._is_interrupted:
            self._is_interrupted = True
            self._limit = min(self._limit, self.clock.elapsed + _GRACE_SECONDS)

    def _take(self, ready: Any) -> Any:
        """Remove one of the task steps at the front of the queue; a plain callback there is next."""
        count, most = 0, min(len(ready), _MAX_CHOICE)  # by index: other threads append meanwhile
        while count < most and _task_of(ready[count])[0] is not None:
            count += 1
        if count < 2:
            return ready.popleft()
        index = self._chance.randrange(count)
        handle = ready[index]
        del ready[index]
        return handle

    def _wait(self, seconds: float | None) -> Any:
        """Return what has happened outside; nothing if the time was skipped."""
        selector = self._selector  # type: ignore[attr-defined]
        events = selector.select(0)
        if events or seconds == 0.0:
            return events
        if self._jobs or self.clock.is_real or len(selector.get_map()) > 1:
            return self._wait_outside(selector, seconds)
        if seconds is None:
            raise Stuck(f"every task waits for ever; {self.standing()}")
        self.clock.advance(seconds)
        return events

    def _wait_outside(self, selector: Any, seconds: float | None) -> Any:
        """Wait for threads and sockets; skip the time if they are silent."""
        if seconds is None:
            silence = 1.0 if self._is_interrupted else _SILENCE_SECONDS
            events = selector.select(None if self._jobs else silence)
            if not events:
                raise Stuck(f"nothing has answered for {silence:g} s; {self.standing()}")
            return events
        events = selector.select(min(seconds, _PATIENCE_SECONDS))
        passed = _PATIENCE_SECONDS if self.clock.is_real else 0.0
        self._asked = {future for future in self._asked if not future.done()}
        if not events and not self._jobs and not self._asked and seconds > passed:
            self.clock.advance(min(seconds - passed, _SKIPPED_SECONDS))
        return events

    def standing(self) -> str:
        """Return where the tasks are that have not ended."""
        return "; ".join(standing(task) for task in self.tasks if not task.done()) or "no task is left"

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended, those that were made without the loop's factory last."""
        others = sorted(asyncio.all_tasks(self) - set(self.tasks), key=lambda task: task.get_name())
        return [task for task in (*self.tasks, *others) if not task.done()]

    def abandon(self) -> None:
        """Throw away what is left of a crashed run; its `finally` blocks run now, when nobody looks at their traces."""
        self._is_abandoned = True
        asyncio._set_running_loop(self)
        try:
            thrown_away: set[asyncio.Task[Any]] = set()
            while left := [task for task in self.unfinished() if task not in thrown_away]:
                for task in left:
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    _close(task.get_coro())
                    thrown_away.add(task)
        finally:
            asyncio._set_running_loop(None)
            self.close()

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        if not self._is_abandoned:
            super()._asyncgen_finalizer_hook(agen)  # type: ignore[misc]


def _close(coro: Any) -> None:
    """End a coroutine from inside, and then whatever its `finally` blocks wait for."""
    for _ in range(100):
        try:
            coro.throw(SystemExit())  # which no program takes for a failure of its own
        except BaseException:
            return


def _task_of(handle: Any) -> tuple[asyncio.Task[Any] | None, bool]:
    """Return the task of which the handle is a step, and whether something that it waited for has woken it."""
    callback = handle._callback
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return None, False
    name = getattr(callback, "__name__", "")
    return (None, False) if name and hasattr(asyncio.Task, name) else (task, "wakeup" in name)


def _is_foreign(task: asyncio.Task[Any]) -> bool:
    """Return whether nobody cancels the task alone: it is asyncio's, a driver's, or works for all users of a store."""
    code = getattr(task.get_coro(), "cr_code", None)
    if code is None:
        return False
    file: str = code.co_filename
    if file.startswith(_OURS):
        return file.startswith(_BACKENDS) and code.co_name.startswith("_")
    return file.startswith(_FOREIGN)


def standing(task: asyncio.Task[Any]) -> str:
    """Return where a task is, from the outermost coroutine to the innermost."""
    places: list[str] = []
    coro: Any = task.get_coro()
    while coro is not None and len(places) < 40:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None) or getattr(coro, "ag_frame", None)
        if frame is not None:
            file = Path(frame.f_code.co_filename)
            places.append(f"{file.parent.name}/{file.name}:{frame.f_lineno} {frame.f_code.co_name}")
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None) or getattr(coro, "ag_await", None)
    return f"{task.get_name()} at {' > '.join(places) or '?'}"
