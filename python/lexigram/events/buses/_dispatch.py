"""How events get from the backlog to their handlers.

Workers take events in order. A handler runs its first step at once; where no handler waits, one task handles any
number of events. When a handler suspends, its worker stays with it to the end, and another worker goes on with the
remaining handlers and events: a handler's `asyncio.timeout()` therefore only ever cancels the handler itself. Every
handler call has its own copy of the context.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import Context, copy_context
from typing import Any

from lexigram.events.buses._attempt import FAILING, Attempt, failed
from lexigram.events.buses._backlog import Backlog, Delivery, lane_key
from lexigram.events.buses._parking import Parking
from lexigram.events.buses._routes import Routes, Subscription
from lexigram.events.buses._step import resume
from lexigram.events.buses.dead_letter import DeadLetterEntry
from lexigram.events.exceptions import EventError, EventHandlerError
from lexigram.events.messages.context import enter_message
from lexigram.events.middleware.retry import Backoff
from lexigram.events.stores._settled import is_failure

_log = logging.getLogger(__name__)

_BATCH = 128
"""Events handled before other tasks of the event loop get their turn."""


class HandlerDispatchMixin:
    """Workers, retries, dead letters. `EventBusImpl` adds subscribing, publishing and closing."""

    _routes: Routes
    _backlog: Backlog
    _base_context: Context
    _loop: asyncio.AbstractEventLoop | None
    _max_workers: int
    _handler_timeout: float | None
    _max_retries: int
    _backoff: Backoff
    _continue_on_error: bool
    _parking: Parking

    def _init_dispatch(self, error_history: int) -> None:
        """Set up the state of the workers."""
        self._workers = 0
        self._starting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._active: set[Attempt] = set()
        self._stopping = False
        self._errors: deque[EventHandlerError] = deque(maxlen=error_history)

    def _wake(self) -> None:
        """Start a worker if there is something to do, none is about to start, and one more is allowed."""
        starting = self._starting
        if starting is not None:
            if not starting.done() and not starting.cancelling():
                return
            self._starting = None  # cancelled before its first step
            self._workers -= 1
        if self._workers < self._max_workers and (self._backlog.queue or self._backlog.ready) and not self._stopping:
            assert self._loop is not None
            self._workers += 1
            # Not `loop.create_task`: a task factory may start tasks eagerly, which would run handlers in the publisher.
            self._starting = asyncio.Task(
                self._work(), loop=self._loop, name="event bus worker", context=self._base_context.copy()
            )

    async def _work(self) -> None:
        """Handle events until nothing is left that could be started."""
        task = self._starting
        assert task is not None
        self._tasks.add(task)
        try:
            if not self._parking.known:
                await self._parking.read()
            self._starting = None
            backlog = self._backlog
            while not self._stopping:
                attempt = self._run_ready()
                if attempt is not None:
                    await self._carry(attempt)
                elif backlog.queue or backlog.ready:
                    await asyncio.sleep(0)
                else:
                    break
        except BaseException:
            self._backlog.wake_idle()  # whoever flushes starts another worker
            raise
        finally:
            if task in self._tasks:  # not if the bus has moved to another event loop meanwhile
                self._tasks.discard(task)
                self._workers -= 1
                if self._starting is task:
                    self._starting = None

    def _run_ready(self) -> Attempt | None:
        """Run whatever completes without waiting; return the first handler call that does not."""
        backlog, topics, parked = self._backlog, self._routes.topics, self._parking.lanes
        queue, lanes, ready = backlog.queue, backlog.lanes, backlog.ready
        for _ in range(_BATCH):
            if ready:
                delivery = ready.popleft()
                delivery.listed = False
                attempt = None if delivery.finished else self._advance(delivery)
                if attempt is not None:
                    return attempt
                continue
            if not queue:
                return None
            event = queue.popleft()
            if lanes and (lane := lane_key(event)) in lanes:
                lanes[lane].append(event)
                continue
            topic = topics[type(event)]
            topic.queued -= 1
            if topic.putters:
                backlog.admit(topic)
            enter_message(event)
            started, entry = 0, topic.entry
            for subscription in entry:
                if parked:
                    break
                context = copy_context()
                try:
                    coro = subscription.call(event)
                    yielded = context.run(coro.send, None)
                except StopIteration as stop:
                    if stop.value is not None and isinstance(stop.value, FAILING):
                        return self._stuck(event, entry, started, value=stop.value)
                    started += 1
                except (KeyboardInterrupt, SystemExit):
                    self._requeue(event, entry, started)
                    raise
                except BaseException as error:
                    return self._stuck(event, entry, started, error=error)
                else:
                    return self._stuck(event, entry, started, coro=coro, context=context, yielded=yielded)
            if started < len(entry):
                attempt = self._advance(self._hold(event, entry, started))
                if attempt is not None:
                    return attempt
            else:
                backlog.done()
        return None

    def _hold(self, event: Any, entry: tuple[Subscription, ...], index: int) -> Delivery:
        """Return a delivery for an event that was taken from the queue; it holds its lane."""
        lane = lane_key(event)
        self._backlog.lanes[lane] = deque()
        return Delivery(event, entry, index, lane)

    def _requeue(self, event: Any, entry: tuple[Subscription, ...], index: int) -> None:
        """Keep an event whose handler was interrupted by KeyboardInterrupt or SystemExit; that handler runs again."""
        self._backlog.enlist(self._hold(event, entry, index))

    def _stuck(self, event: Any, entry: tuple[Subscription, ...], index: int, **state: Any) -> Attempt:
        """Return the attempt for handler number `index` that suspended or failed."""
        delivery = self._hold(event, entry, index + 1)
        delivery.running = 1
        attempt = Attempt(delivery, entry[index])
        if "value" in state:
            attempt.end(state["value"])
        elif "error" in state:
            attempt.error = state["error"]
        else:
            attempt.coro, attempt.context, attempt.yielded = state["coro"], state["context"], state["yielded"]
            attempt.suspended = True
        return attempt

    def _advance(self, delivery: Delivery) -> Attempt | None:
        """Start the delivery's remaining handlers; return the first that has to wait, None when all are started."""
        while delivery.index < len(delivery.subscriptions):
            attempt = Attempt(delivery, delivery.subscriptions[delivery.index])
            delivery.index += 1
            delivery.running += 1
            if self._parking.lanes and self._parking.blocks(delivery.event, attempt.subscription.name):
                return attempt
            try:
                if not attempt.start():
                    return attempt
            except BaseException:
                self._interrupted(attempt)
                raise
            delivery.running -= 1
        self._settle(delivery)
        return None

    def _settle(self, delivery: Delivery) -> None:
        """Finish the delivery if its last handler has ended."""
        if not delivery.finished and not delivery.running and delivery.index >= len(delivery.subscriptions):
            self._backlog.finished(delivery)

    async def _carry(self, attempt: Attempt) -> None:
        """Stay with a handler call to its end, retries and dead letter included; others go on meanwhile."""
        delivery = attempt.delivery
        if delivery.index < len(delivery.subscriptions) and self._max_workers > 1:
            self._backlog.enlist(delivery)
        self._active.add(attempt)
        self._wake()
        try:
            await self._complete(attempt)
        except BaseException:
            if attempt in self._active:  # not if the bus has moved to another event loop meanwhile
                self._interrupted(attempt)
            raise
        self._active.discard(attempt)
        delivery.running -= 1
        if delivery.index < len(delivery.subscriptions):
            self._backlog.enlist(delivery)
        else:
            self._settle(delivery)

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Continue on another event loop: what the old one left behind is started again here.

        Raises:
            EventError: The old loop is still running; a bus serves one loop at a time.
        """
        if self._loop is not None and self._loop.is_running():
            raise EventError("This event bus is in use by another running event loop; give each loop its own bus")
        for attempt in list(self._active):
            if attempt.delivery.lane is None:
                attempt.delivery.finished = True  # part of a pipeline, which starts again as a whole
            else:
                self._interrupted(attempt)
        self._active.clear()
        self._tasks.clear()
        self._workers, self._starting, self._loop = 0, None, loop
        self._backlog.reset_waiters()

    def _interrupted(self, attempt: Attempt) -> None:
        """The worker is being cancelled: the handler runs again when a worker goes on with the delivery."""
        self._active.discard(attempt)
        delivery = attempt.delivery
        delivery.running -= 1
        delivery.subscriptions = (*delivery.subscriptions, attempt.subscription)
        self._backlog.enlist(delivery)

    async def _complete(self, attempt: Attempt) -> None:
        """Bring one handler call to success or to the dead letters."""
        number = 1
        parked = not attempt.suspended and attempt.error is None
        if parked and (await self._parking.park(attempt.delivery.event, attempt.subscription.name) or attempt.start()):
            return
        retries = 0 if attempt.subscription is self._routes.pipeline else self._max_retries
        while True:
            if attempt.suspended and await self._wait(attempt):
                return
            if number > retries or self._stopping:
                break
            await asyncio.sleep(self._backoff.delay(number))
            number += 1
            if attempt.start():
                return
        assert attempt.error is not None
        await self._give_up(attempt, attempt.error, number)

    async def _wait(self, attempt: Attempt) -> bool:
        """Finish a suspended handler within the timeout; return whether it succeeded."""
        assert attempt.coro is not None
        assert attempt.context is not None
        attempt.suspended = False
        limit = None if attempt.subscription is self._routes.pipeline else self._handler_timeout
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                value = await resume(attempt.coro, attempt.yielded, attempt.context)
        except BaseException as error:
            if not is_failure(error):
                raise
            attempt.error = TimeoutError(f"not finished within {limit} s") if timer.expired() else error
        else:
            return attempt.end(value)
        return False

    async def _give_up(self, attempt: Attempt, error: BaseException, attempts: int) -> None:
        """Record a handler's failure and keep the event among the dead letters."""
        delivery, name = attempt.delivery, attempt.subscription.name
        event = delivery.event
        kind = event.event_type or type(event).__name__
        self._errors.append(failed(kind, name, error))
        delivery.errors.append((type(error), error))
        _log.error(
            "%s failed on %s %s after %d attempts: %s", name, kind, event.event_id, attempts, type(error).__name__
        )
        if not self._continue_on_error:
            delivery.index = len(delivery.subscriptions)
        await self._parking.save(DeadLetterEntry.of(event, name, error, attempts))
