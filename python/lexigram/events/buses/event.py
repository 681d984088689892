"""The event bus. Source: spec/api-reference.md, `EventBusImpl`."""

from __future__ import annotations

import asyncio
from asyncio import get_running_loop
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar, copy_context
from typing import Any, ClassVar, Self, TypeVar

from lexigram.contracts.core.concurrency_protocols import ParallelProtocol
from lexigram.contracts.core.health import HealthStatus
from lexigram.contracts.core.hooks import HookRegistryProtocol
from lexigram.contracts.core.result import Err, Ok, Result
from lexigram.contracts.domain.events import DomainEvent
from lexigram.contracts.exceptions.events import EventError
from lexigram.contracts.observability.tracing import TracerProtocol
from lexigram.events.buses._attempt import FAILING, failed, failure_of
from lexigram.events.buses._backlog import Backlog, Delivery
from lexigram.events.buses._dispatch import HandlerDispatchMixin
from lexigram.events.buses._handler import HandlerFactory, as_call, check_handler_runs
from lexigram.events.buses._observe import Observer
from lexigram.events.buses._parking import Parking
from lexigram.events.buses._results import CloseReport, DispatchResult
from lexigram.events.buses._routes import Routes, Subscription, Topic
from lexigram.events.buses._step import one_turn
from lexigram.events.buses.base import Bus, checked_config
from lexigram.events.buses.dead_letter import DeadLetterEntry, DeadLetterStore, InMemoryDeadLetterStore
from lexigram.events.exceptions import EventHandlerError, EventValidationError
from lexigram.events.messages.context import enter_message
from lexigram.events.middleware.base import MiddlewareFunc, chained
from lexigram.events.middleware.retry import Backoff
from lexigram.events.stores._settled import is_failure

PIPELINE = "lexigram.events.middleware"
"""Handler name of dead letters that a middleware caused: replaying one runs middleware and all handlers."""

__all__ = ["PIPELINE", "CloseReport", "DispatchResult", "EventBusImpl"]

_F = TypeVar("_F", bound=Callable[..., Any])
_OK: Result[None, EventError] = Ok(None)
_handling: ContextVar[EventBusImpl | None] = ContextVar("lexigram_events_handling", default=None)


class EventBusImpl(HandlerDispatchMixin, Bus[Any, Any]):
    """Hands events to everybody who subscribed, in the background.

    Events of one aggregate are handled one after the other, across event types, and so are events of one type
    without aggregate id; others run concurrently, up to `max_concurrent_handlers` waiting handlers. With
    `parallel_dispatch` off, one handler runs at a time: events in order, their handlers by priority. A failing
    handler is retried, then its event goes to the dead letters; other handlers are not affected.

    Args:
        middlewares: Around the handling of each event as a whole, first one outermost.
        config: An `EventBusConfig`; the `DEFAULT_…` values below without one.
        parallel: Accepted for compatibility; the bus schedules its handlers itself.
        tracer: Makes a span per handler call, continuing the event's `traceparent`.
        hooks: Gets `EventPublishedHook` and `EventHandledHook`.
        dead_letters: Where events go that a handler cannot handle; in memory by default.
        handler_factory: Builds handler classes and injects further parameters of handler functions.
        error_history: How many of the latest `dispatch_errors` to keep.
    """

    DEFAULT_ALLOW_NO_HANDLERS: ClassVar[bool] = True
    DEFAULT_CONTINUE_ON_ERROR: ClassVar[bool] = True
    DEFAULT_ENABLE_DEAD_LETTER: ClassVar[bool] = True
    DEFAULT_HANDLER_TIMEOUT_SECONDS: ClassVar[float] = 30.0
    DEFAULT_MAX_CONCURRENT_HANDLERS: ClassVar[int] = 10
    DEFAULT_MAX_HANDLER_RETRIES: ClassVar[int] = 3
    DEFAULT_MAX_QUEUE_PER_SUBSCRIBER: ClassVar[int] = 1000
    DEFAULT_PARALLEL_DISPATCH: ClassVar[bool] = True
    DEFAULT_RETRY_DELAY_SECONDS: ClassVar[float] = 0.1
    DEFAULT_RETRY_FAILED_HANDLERS: ClassVar[bool] = True
    DEFAULT_SHUTDOWN_TIMEOUT_SECONDS: ClassVar[float] = 30.0

    def __init__(
        self,
        middlewares: Iterable[MiddlewareFunc] | None = None,
        config: Any | None = None,
        parallel: ParallelProtocol | None = None,
        tracer: TracerProtocol | None = None,
        hooks: HookRegistryProtocol | None = None,
        *,
        dead_letters: DeadLetterStore | None = None,
        handler_factory: HandlerFactory | None = None,
        error_history: int = 1000,
    ) -> None:
        super().__init__(middlewares)
        config = checked_config(config, "EventBusConfig")
        setting = self._setting
        self._max_workers = setting(config, "max_concurrent_handlers", 1)
        if not setting(config, "parallel_dispatch"):
            self._max_workers = 1
        self._handler_timeout = setting(config, "handler_timeout_seconds", 0)
        self._max_retries = setting(config, "max_handler_retries", 0) if setting(config, "retry_failed_handlers") else 0
        self._backoff = Backoff(setting(config, "retry_delay_seconds"), jitter=0.25)
        self._continue_on_error = setting(config, "continue_on_error")
        self._allow_no_handlers: bool = setting(config, "allow_no_handlers")
        self._capacity: int = setting(config, "max_queue_per_subscriber", 1)
        self._shutdown_timeout: float = setting(config, "shutdown_timeout_seconds", 0)
        if dead_letters is None and setting(config, "enable_dead_letter"):
            dead_letters = InMemoryDeadLetterStore()
        self._parking = Parking(dead_letters)
        self._factory = handler_factory
        self._observer = Observer(tracer, hooks)
        self._routes = Routes(self._observer)
        self._topics = self._routes.topics
        self._backlog = Backlog(self._routes, self._capacity)
        self._loop = None
        self._closing = False
        self._base_context = copy_context()
        self._base_context.run(_handling.set, self)
        self._init_dispatch(error_history)
        self._rebuild()

    @classmethod
    def _setting(cls, config: Any, name: str, minimum: float | None = None) -> Any:
        """Return a configured value or the class's default."""
        value = getattr(config, name, None) if config is not None else None
        if value is None:
            value = getattr(cls, f"DEFAULT_{name.upper()}")
        if minimum is not None and value < minimum:
            raise EventValidationError(f"{name} must be at least {minimum}, not {value}", field=name)
        return value

    def subscribe(self, event_type: type, handler: Any, *, priority: int = 0, **options: Any) -> None:
        """Call `handler` for events of `event_type` and its subclasses; subscribing it twice has no effect.

        Args:
            handler: Coroutine function, plain function, object with `handle`, or a class, built at its first event.
            priority: Higher ones are started first.
            options: `handler_factory` replaces the bus's own for this handler.

        Raises:
            EventValidationError: Not a class, or not a handler.
        """
        check_handler_runs(handler)
        call = as_call(handler, options.get("handler_factory", self._factory))
        self._routes.add(event_type, handler, call, priority)

    def register(self, message_type: type[Any], handler: Any, **options: Any) -> None:
        """Subscribe `handler`; the name all buses share."""
        self.subscribe(message_type, handler, **options)

    def subscribe_all(self, handler: Any, *, priority: int = 0) -> None:
        """Call `handler` for every event."""
        self.subscribe(DomainEvent, handler, priority=priority)

    def unsubscribe(self, event_type: type, handler: Any) -> bool:
        """Undo `subscribe` (`subscribe_all`: with `DomainEvent`); return whether the handler was subscribed."""
        return self._routes.forget(event_type, handler)

    def handler(self, event_type: type, *, priority: int = 0) -> Callable[[_F], _F]:
        """Decorator: subscribe a function or class to `event_type`."""

        def decorate(handler: _F) -> _F:
            self.subscribe(event_type, handler, priority=priority)
            return handler

        return decorate

    async def publish(self, event: DomainEvent | Sequence[DomainEvent]) -> Result[None, EventError]:
        """Accept one event, or a list in order, for handling in the background.

        Waits while the event type's channel is full (`max_queue_per_subscriber`); inside a handler it never waits,
        since the handler may be what the channel is waiting for. If it is cancelled while it waits, that event and
        the rest of the list are not accepted.

        Returns:
            `Ok(None)`; `Err(EventHandlerError)` if nobody handles an event of the call and `allow_no_handlers` is
            off: then none of them is accepted.

        Raises:
            EventValidationError: Something is not an event; nothing is accepted.
            EventError: The bus is closed, or in use by another running event loop.
        """
        topic = self._topics.get(type(event))
        if topic is None:
            if isinstance(event, Sequence) and not isinstance(event, str | bytes):
                return await self._publish_all(event)
            topic = self._routes.topic(event)
        if not topic.entry:
            if not self._allow_no_handlers:
                return self._nobody_handles(event)
        else:
            if self._loop is not get_running_loop() or self._closing:
                self._check_usable()
            if (topic.queued >= self._capacity or topic.waiting) and _handling.get() is None:
                await self._backlog.room(topic)
            else:
                topic.queued += 1
            backlog = self._backlog
            backlog.unfinished += 1
            backlog.queue.append(event)
            if self._starting is None:
                self._wake()
        if self._observer.hooks is not None:
            await self._observer.published(event)
        return _OK

    async def _publish_all(self, events: Sequence[Any]) -> Result[None, EventError]:
        """Publish a list: all of it is checked before the first event is accepted."""
        for event in events:
            if not self._routes.topic(event).entry and not self._allow_no_handlers:
                return self._nobody_handles(event)
        for event in events:
            await self.publish(event)
        return _OK

    def _nobody_handles(self, event: Any) -> Result[None, EventError]:
        kind = event.event_type or type(event).__name__
        problem = f"no handler is subscribed to {type(event).__qualname__}"
        return Err(EventHandlerError(kind, "nobody", problem, message=f"{kind} cannot be handled: {problem}"))

    def _check_usable(self) -> None:
        """Move to the running event loop if that is a new one; refuse if the bus is closed."""
        loop = get_running_loop()
        if self._loop is not loop:
            self._adopt(loop)
        if self._closing and _handling.get() is not self:
            raise EventError("The event bus is closed and accepts no more events")

    async def flush(self) -> None:
        """Wait until every accepted event is handled, or among the dead letters.

        Raises:
            EventError: Called by a handler of this bus, which would wait for itself.
        """
        if _handling.get() is self:
            raise EventError("flush() inside a handler would wait for that handler; call it from outside")
        loop = get_running_loop()
        if self._loop is not loop:
            self._adopt(loop)
        backlog = self._backlog
        if backlog.unfinished and self._starting is not None:
            await one_turn()  # the worker that is about to start may need no more than this
        while backlog.unfinished or backlog.waiting:
            starting = self._starting
            if starting is None or starting.cancelling():
                self._wake()
            await backlog.idle(loop)

    async def close(self, timeout_seconds: float | None = None) -> CloseReport:
        """Accept nothing more and wait for what was accepted, up to the deadline; closing twice is fine.

        At the deadline running handlers are cancelled, waiting publishers fail, and every handler call that is
        missing becomes a dead letter, so that a durable dead-letter store loses nothing.

        Args:
            timeout_seconds: Deadline, from 0; None: as configured, 30 without a configuration.

        Returns:
            What was left at the deadline.
        """
        if _handling.get() is self:
            raise EventError("close() inside a handler would wait for that handler; call it from outside")
        self._closing = True
        try:
            async with asyncio.timeout(self._shutdown_timeout if timeout_seconds is None else timeout_seconds):
                await self.flush()
        except TimeoutError:
            pass
        if self._backlog.busy:
            return await self._abandon()
        await self._parking.store_unsaved()
        return CloseReport(unsaved=len(self._parking.unsaved))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _abandon(self) -> CloseReport:
        """Stop the workers and turn what is left into dead letters."""
        self._stopping = True
        self._backlog.refuse(EventError("The event bus was closed before it had room for this event"))
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = self._backlog.take_all()
        parked = 0
        for delivery in left:
            for subscription in delivery.subscriptions[delivery.index :]:
                parked += await self._abandon_call(delivery, subscription)
        self._stopping = False
        return CloseReport(tuple(delivery.event for delivery in left), parked, len(self._parking.unsaved))

    async def _abandon_call(self, delivery: Delivery, subscription: Subscription) -> bool:
        """Make a dead letter of a handler call that will not happen; return whether it was kept."""
        name = subscription.name
        error = EventError("not handled before the event bus was closed")
        entry = DeadLetterEntry.of(delivery.event, name, error)
        entry.waiting = entry.lane in self._parking.lanes
        self._errors.append(EventHandlerError(entry.event_type, name, error.message, error))
        return await self._parking.save(entry)

    async def redeliver(self, event: DomainEvent, handler_name: str) -> Result[None, EventError]:
        """Call one handler once, as a replay of dead letters does; its failure makes no new dead letter.

        Returns:
            `Ok(None)`, or `Err(EventHandlerError)` with the handler's error as `__cause__`.
        """
        topic = self._routes.topic(event)
        subscription = self._find(topic, handler_name)
        kind = event.event_type or type(event).__name__
        if subscription is None:
            return Err(EventHandlerError(kind, handler_name, "no such handler is subscribed to this event"))
        self._check_usable()
        task = get_running_loop().create_task(self._call_once(subscription, event), context=self._base_context.copy())
        try:
            value = await task
        except BaseException as error:
            if not is_failure(error):
                raise
            return Err(failed(kind, handler_name, error))
        return Err(failed(kind, handler_name, failure_of(value))) if isinstance(value, FAILING) else _OK

    def _find(self, topic: Topic, name: str) -> Subscription | None:
        """Return the topic's handler of that name."""
        if name == PIPELINE:
            return self._routes.pipeline
        return next((known for known in topic.subscriptions if known.name == name), None)

    async def _call_once(self, subscription: Subscription, event: DomainEvent) -> Any:
        """Call a handler within its timeout."""
        enter_message(event)
        limit = None if subscription is self._routes.pipeline else self._handler_timeout
        async with asyncio.timeout(limit):
            return await subscription.call(event)

    async def _fan_out(self, event: Any) -> DispatchResult:
        """Run all handlers of one event, as the innermost part of the middleware pipeline."""
        delivery = Delivery(event, self._routes.topic(event).subscriptions)
        enter_message(event)
        delivery.context = copy_context()
        try:
            while (attempt := self._advance(delivery)) is not None:
                await self._carry(attempt)
            if not delivery.finished:
                delivery.done = get_running_loop().create_future()
                await delivery.done
        finally:
            delivery.finished = True
        errors = [(kind, error) for kind, error in delivery.errors if isinstance(error, Exception)]
        return DispatchResult(not delivery.errors, delivery.results, errors)

    def _rebuild(self) -> None:
        self._routes.pipeline = None
        if self._middlewares:
            chain = chained(self._middlewares, self._fan_out)

            async def pipeline(event: Any) -> Any:
                return await chain(event)

            self._routes.pipeline = Subscription(DomainEvent, pipeline, PIPELINE, pipeline)
        self._routes.refresh()

    def _health(self) -> tuple[HealthStatus, dict[str, Any]]:
        status = HealthStatus.UNHEALTHY if self._closing else HealthStatus.HEALTHY
        if self._parking.unsaved:
            status = HealthStatus.DEGRADED
        return status, {
            "handlers": len(self._routes),
            "unfinished_events": self._backlog.unfinished,
            "running_handlers": len(self._active),
            "dispatch_errors": len(self._errors),
            "parked_lanes": len(self._parking.lanes),
            "unsaved_dead_letters": len(self._parking.unsaved),
        }

    @property
    def dispatch_errors(self) -> tuple[Exception, ...]:
        """The latest failures of handlers, oldest first; each an `EventHandlerError` with its `__cause__`."""
        return tuple(self._errors)

    def clear_dispatch_errors(self) -> None:
        """Forget the failures seen so far."""
        self._errors.clear()

    @property
    def dead_letters(self) -> DeadLetterStore | None:
        """Where events go that a handler cannot handle; None if switched off."""
        return self._parking.store

    def subscription_count(self, event_type: type) -> int:
        """Return how many handlers an event of exactly this class would reach."""
        return self._routes.count(event_type)

    def set_tracer(self, tracer: TracerProtocol | None) -> None:
        """Attach a tracer, or detach it with None."""
        self._observer.tracer = tracer
        self._routes.refresh()

    def set_hook_registry(self, hooks: HookRegistryProtocol | None) -> None:
        """Attach a hook registry, or detach it with None."""
        self._observer.hooks = hooks
        self._routes.refresh()
