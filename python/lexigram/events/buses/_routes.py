"""Which handlers an event class has, and how many of its events are waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from lexigram.contracts.domain.events import DomainEvent
from lexigram.events.buses._handler import HandlerCall, handler_name
from lexigram.events.buses._observe import Observer
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.event import DomainEvent as OwnDomainEvent
from lexigram.events.messages.kinds import check_kind, check_priority


class Subscription:
    """One handler of one event class and its subclasses."""

    __slots__ = ("bare", "call", "event_type", "handler", "name", "priority")

    def __init__(self, event_type: type, handler: Any, name: str, call: HandlerCall, priority: int = 0) -> None:
        self.event_type = event_type
        self.handler = handler
        self.name = name
        self.bare = call
        self.call: Callable[[Any], Any] = call  # with tracing and hooks, where attached; always gives a coroutine
        self.priority = priority


class Topic:
    """One event class: its handlers and its bounded channel.

    `entry` is what the bus calls per event: the handlers themselves, or the middleware pipeline around them.
    `queued` counts events accepted or granted room and not yet started, `waiting` the publishers that wait for room.
    """

    __slots__ = ("entry", "event_type", "putters", "queued", "subscriptions", "waiting")

    def __init__(self, event_type: type) -> None:
        self.event_type = event_type
        self.subscriptions: tuple[Subscription, ...] = ()
        self.entry: tuple[Subscription, ...] = ()
        self.queued = 0
        self.waiting = 0
        self.putters: deque[asyncio.Future[None]] = deque()


class Routes:
    """All subscriptions, and the topics that were needed so far."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._subscriptions: list[Subscription] = []
        self.topics: dict[type, Topic] = {}
        self.pipeline: Subscription | None = None

    def add(self, event_type: type, handler: Any, call: HandlerCall, priority: int) -> None:
        """Subscribe `handler`; the same handler and class again only changes the priority.

        Raises:
            EventValidationError: `event_type` is not a class, or one of commands or queries; `priority` is no number.
        """
        check_kind(event_type, "event", "event_type")
        check_priority(priority)
        self.remove(event_type, handler)
        name = base = handler_name(handler)
        number = 1
        while any(known.name == name and known.handler != handler for known in self._subscriptions):
            number += 1
            name = f"{base}#{number}"
        self._subscriptions.append(Subscription(event_type, handler, name, call, priority))
        self._subscriptions.sort(key=lambda known: -known.priority)
        self.refresh()

    def remove(self, event_type: type, handler: Any) -> bool:
        """Undo `add`; return whether there was such a subscription."""
        kept = [
            known for known in self._subscriptions if known.event_type is not event_type or known.handler != handler
        ]
        found = len(kept) < len(self._subscriptions)
        if found:
            self._subscriptions = kept
            self.refresh()
        return found

    def forget(self, event_type: type, handler: Any) -> bool:
        """Undo `add`; our own `DomainEvent` also means the contract's, which stands for every event."""
        return self.remove(event_type, handler) or (event_type is OwnDomainEvent and self.remove(DomainEvent, handler))

    def topic(self, event: Any) -> Topic:
        """Return the topic of the event's class, made at its first event.

        Raises:
            EventValidationError: Not an event.
        """
        topic = self.topics.get(type(event))
        if topic is None:
            if not isinstance(event, DomainEvent):
                raise EventValidationError(
                    f"{type(event).__name__} is not an event; publish instances of DomainEvent, or a list of them",
                    field="event",
                )
            topic = self.topics[type(event)] = Topic(type(event))
            self._connect(topic)
        return topic

    def refresh(self) -> None:
        """Compute the handlers of every topic again."""
        for known in self._subscriptions:
            known.call = self._observer.around(known.name, known.bare)
        for topic in self.topics.values():
            self._connect(topic)

    def count(self, event_type: type) -> int:
        """Return how many handlers events of this class have."""
        return len(self._matching(event_type))

    def _connect(self, topic: Topic) -> None:
        """Set the handlers of a topic."""
        topic.subscriptions = tuple(self._matching(topic.event_type))
        topic.entry = topic.subscriptions if self.pipeline is None else (self.pipeline,)

    def _matching(self, event_type: type) -> list[Subscription]:
        """Return the handlers of a class: highest priority first, each handler once."""
        found: list[Subscription] = []
        for known in self._subscriptions:
            if issubclass(event_type, known.event_type) and all(known.handler != other.handler for other in found):
                found.append(known)
        return found

    def __len__(self) -> int:
        return len(self._subscriptions)
