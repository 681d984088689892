"""Events that a bus has accepted and not finished: bounded per type, in lanes per aggregate."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from typing import Any

from lexigram.events.buses._routes import Routes, Subscription, Topic

LaneKey = str | type
"""The aggregate id as text; the event class for events without one."""


def lane_key(event: Any) -> LaneKey:
    """Return the lane whose events are handled one after the other."""
    aggregate_id = event.aggregate_id
    return type(event) if aggregate_id is None else str(aggregate_id)


class Delivery:
    """One event on its way through its handlers.

    Args:
        index: How many of `subscriptions` have been started.
        running: How many of those have not ended.
        lane: The lane it holds, or None for one that is part of a middleware pipeline's call.
        listed: True while it stands in the backlog's `ready`.
        context: What its handlers inherit; None for that of the worker.
    """

    __slots__ = (
        "context",
        "done",
        "errors",
        "event",
        "finished",
        "index",
        "lane",
        "listed",
        "results",
        "running",
        "subscriptions",
    )

    def __init__(
        self, event: Any, subscriptions: tuple[Subscription, ...], index: int = 0, lane: LaneKey | None = None
    ) -> None:
        self.event = event
        self.subscriptions = subscriptions
        self.index = index
        self.lane = lane
        self.running = 0
        self.listed = False
        self.finished = False
        self.context: Context | None = None
        self.done: asyncio.Future[None] | None = None
        self.results: list[Any] = []
        self.errors: list[tuple[type, BaseException]] = []


class Backlog:
    """Accepted events in order, deliveries that can go on, and who waits for room or for the end.

    `unfinished` counts accepted events that still have handlers to run, `waiting` the publishers that wait for room.
    """

    __slots__ = ("_capacity", "_generation", "_idle", "_routes", "lanes", "queue", "ready", "unfinished", "waiting")

    def __init__(self, routes: Routes, capacity: int) -> None:
        self._routes = routes
        self._capacity = capacity
        self._idle: list[asyncio.Future[None]] = []
        self.waiting = 0
        self._generation = 0
        self.queue: deque[Any] = deque()
        self.ready: deque[Delivery] = deque()
        self.lanes: dict[LaneKey, deque[Any]] = {}
        self.unfinished = 0

    @property
    def busy(self) -> bool:
        """Whether an event is unfinished or a publisher waits for room."""
        return self.unfinished > 0 or self.waiting > 0

    async def room(self, topic: Topic) -> None:
        """Wait, first come first served, until the topic has room, and take it (`topic.queued` is counted up)."""
        future = asyncio.get_running_loop().create_future()
        topic.putters.append(future)
        topic.waiting += 1
        self.waiting += 1
        generation = self._generation
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                topic.queued -= 1  # room was granted at the moment of the cancellation: the next one gets it
            elif future in topic.putters:
                topic.putters.remove(future)
            raise
        finally:
            if generation == self._generation:
                topic.waiting -= 1
                self.waiting -= 1
                self.admit(topic)
                if not self.busy:
                    self.wake_idle()

    def admit(self, topic: Topic) -> None:
        """Grant room to waiting publishers while there is some."""
        while topic.putters and topic.queued < self._capacity:
            future = topic.putters.popleft()
            if not future.done():
                topic.queued += 1
                future.set_result(None)

    def refuse(self, error: Exception) -> None:
        """Let every waiting publisher fail with `error`."""
        for topic in self._routes.topics.values():
            while topic.putters:
                future = topic.putters.popleft()
                if not future.done():
                    future.set_exception(error)

    def started(self, topic: Topic) -> None:
        """An event of the topic leaves its channel."""
        topic.queued -= 1
        if topic.putters:
            self.admit(topic)

    def finished(self, delivery: Delivery) -> None:
        """The delivery is over: its lane goes on with the next event."""
        delivery.finished = True
        lane = delivery.lane
        if lane is None:
            if delivery.done is not None and not delivery.done.done():
                delivery.done.set_result(None)
            return
        waiting = self.lanes[lane]
        if waiting:
            event = waiting.popleft()
            topic = self._routes.topic(event)
            self.started(topic)
            self.enlist(Delivery(event, topic.entry, lane=lane))
        else:
            del self.lanes[lane]
        self.done()

    def done(self) -> None:
        """One event is finished."""
        self.unfinished -= 1
        if self.unfinished == 0 and self._idle and not self.waiting:
            self.wake_idle()

    def enlist(self, delivery: Delivery) -> None:
        """Note that a worker may go on with the delivery."""
        if not delivery.listed:
            delivery.listed = True
            self.ready.append(delivery)

    def idle(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Return a future that is done when nothing is unfinished any more, or when `wake_idle` is called."""
        future: asyncio.Future[None] = asyncio.Future(loop=loop)
        self._idle.append(future)
        return future

    def wake_idle(self) -> None:
        """Wake everybody in `idle`."""
        waiters, self._idle = self._idle, []
        for future in waiters:
            if not future.done():
                future.set_result(None)

    def take_all(self) -> list[Delivery]:
        """Remove and return everything unfinished, in order; used when the bus gives up at its deadline."""
        left = [delivery for delivery in self.ready if not delivery.finished]
        for lane, waiting in self.lanes.items():
            left.extend(Delivery(event, self._routes.topic(event).entry, lane=lane) for event in waiting)
        left.extend(Delivery(event, self._routes.topic(event).entry, lane=lane_key(event)) for event in self.queue)
        self.reset_waiters()
        self.queue.clear()
        self.ready.clear()
        self.lanes.clear()
        self.unfinished = 0
        for topic in self._routes.topics.values():
            topic.queued = 0
        return left

    def reset_waiters(self) -> None:
        """Forget waiters of an event loop that is gone, and count the channels again."""
        self._idle.clear()
        self._generation += 1
        self.waiting = 0
        for topic in self._routes.topics.values():
            topic.putters.clear()
            topic.waiting = topic.queued = 0
        for event in (*self.queue, *(event for waiting in self.lanes.values() for event in waiting)):
            self._routes.topic(event).queued += 1
