"""Functions of a program that would do nothing, or whose answer would be lost, are refused or heard."""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from lexigram.contracts.core.result import Err
from lexigram.events import (
    AggregateRoot,
    Command,
    CommandBusImpl,
    CommandExecutionError,
    DomainEvent,
    EventBusImpl,
    EventSourcingRepository,
    EventValidationError,
    InlineProjection,
    InMemoryEventStore,
    InMemorySnapshotStore,
    ProjectionBuildError,
    ProjectionManager,
    Query,
    QueryBusImpl,
    SagaBase,
    SagaManager,
    SnapshotManager,
    TableProjection,
    command_handler,
    event_handler,
    saga_step,
)
from lexigram.events.decorators.validation import validate, validate_command
from lexigram.events.middleware.circuit_breaker import CircuitBreakerMiddleware
from lexigram.events.middleware.retry import RetryMiddleware
from lexigram.events.middleware.validation import ValidationMiddleware
from lexigram.events.schema.evolution import SchemaEvolution, Upcaster
from lexigram.events.schema.registry import SchemaRegistry


class Paid(DomainEvent):
    amount: int = 0


class Pay(Command):
    amount: int = 0


class Payments(Query[Any]):
    pass


def plain(message: Any) -> Iterator[None]:
    yield


async def waiting(message: Any) -> AsyncIterator[None]:
    yield


class Handler:
    def handle(self, message: Any) -> Iterator[None]:
        yield

    __call__ = handle


class Called:
    def __call__(self, message: Any) -> Iterator[None]:
        yield


REFUSING: list[Callable[[Any], Any]] = [
    lambda handler: EventBusImpl().subscribe(Paid, handler),
    lambda handler: EventBusImpl().subscribe_all(handler),
    lambda handler: CommandBusImpl().register(Pay, handler),
]


@pytest.mark.parametrize("handler", [plain, waiting, Handler, Handler(), Called, Called(), functools.partial(plain)])
@pytest.mark.parametrize("register", REFUSING)
def test_a_handler_that_yields_is_refused(handler: Any, register: Callable[[Any], Any]) -> None:
    """Calling a generator function runs nothing: every message would count as handled."""
    with pytest.raises(EventValidationError, match="yields"):
        register(handler)


@types.coroutine
def old_style(message: Any) -> Iterator[None]:
    yield


@pytest.mark.parametrize("handler", [old_style, functools.partial(old_style)])
@pytest.mark.parametrize("register", REFUSING)
def test_a_coroutine_made_of_a_generator_is_none_that_only_yields(handler: Any, register: Callable[[Any], Any]) -> None:
    """What `types.coroutine` makes can be awaited, and is."""
    register(handler)


@pytest.mark.parametrize("decorator", [command_handler(Pay), event_handler(Paid)])
def test_a_decorated_handler_that_yields_is_refused_where_it_is_written(decorator: Any) -> None:
    """The error comes from the decorator, not at boot."""
    with pytest.raises(EventValidationError, match="waiting yields"):
        decorator(waiting)


async def test_a_query_may_be_answered_by_a_generator() -> None:
    """The generator is the value, which the caller iterates over."""
    bus = QueryBusImpl()
    bus.register(Payments, waiting)
    assert [part async for part in await bus.execute(Payments())] == [None]


def test_a_handler_of_an_aggregate_that_yields_is_refused() -> None:
    """Its changes would never happen, though the event is recorded."""

    class Account(AggregateRoot):
        def _handle_paid(self, event: Paid) -> Iterator[None]:
            yield

    account = Account()
    with pytest.raises(EventValidationError, match="_handle_paid yields"):
        account._apply(Paid())
    assert not account.has_uncommitted_events


def test_a_validator_that_yields_is_refused() -> None:
    """It would accept every message."""
    with pytest.raises(EventValidationError, match="yields"):
        ValidationMiddleware().register_validator(Pay, plain)


async def test_a_projection_that_yields_is_refused() -> None:
    """It would be live and empty."""

    class Totals:
        handles = (Paid,)

        async def apply(self, event: Paid) -> AsyncIterator[None]:
            yield

    with pytest.raises(EventValidationError, match=r"Totals\.apply yields"):
        ProjectionManager(InMemoryEventStore()).register(Totals())
    projection = InlineProjection("totals")
    for register in (projection.handle(Paid), projection.on_reset):
        with pytest.raises(EventValidationError, match="waiting yields"):
            register(waiting)


async def test_an_err_of_a_projection_is_a_failure() -> None:
    """As of any other handler: the position stays and the error is told."""
    projection = InlineProjection("totals")

    @projection.handle(Paid)
    async def paid(event: Paid) -> Any:
        return Err(ValueError("no such account"))

    class Contract:
        handles = (Paid,)

        def handle_event(self, event: Paid) -> Any:
            return Err("no such account")

    store = InMemoryEventStore()
    async with ProjectionManager(store) as manager:
        manager.register(projection)
        manager.register(Contract())
        await store.append("a", [Paid()])
        for name in ("totals", "Contract"):
            with pytest.raises(ProjectionBuildError, match="no such account"):
                await manager.wait_for(name, 1, timeout=5)


async def test_a_forgotten_await_is_a_failure() -> None:
    """Of a handler or of a middleware: what should have been done was not, though it returned."""

    async def send(event: Paid) -> None: ...

    async def forgetful(event: Paid) -> Any:
        return send(event)

    async def layer(event: Paid, next_handler: Any) -> Any:
        return next_handler(event)

    for middlewares, handler in (([], forgetful), ([layer], send)):
        async with EventBusImpl(middlewares, {"retry_failed_handlers": False}) as bus:
            bus.subscribe(Paid, handler)
            await bus.publish(Paid())
            await bus.flush()
            assert "an await is missing" in str(bus.dispatch_errors)
            assert bus.dead_letters is not None
            (letter,) = await bus.dead_letters.list_entries()
            assert not await bus.dead_letters.replay(letter.entry_id, bus)


async def test_functions_of_the_retry_middleware_may_wait() -> None:
    """An asynchronous condition decided for every retry, and an asynchronous `on_retry` was never run."""
    told: list[int] = []

    async def failing(command: Pay) -> None:
        raise ValueError(len(told))

    async def condition(error: Exception) -> bool:
        return error.args[0] < 2

    async def on_retry(command: Any, error: Exception, attempt: int) -> None:
        told.append(attempt)

    bus = CommandBusImpl([RetryMiddleware(5, 0, retry_condition=condition, on_retry=on_retry)])
    bus.register(Pay, failing)
    with pytest.raises(CommandExecutionError, match="ValueError: 2"):
        await bus.dispatch(Pay())
    assert told == [1, 2]


@pytest.mark.parametrize(
    "errors",
    [ValueError, [ValueError], (KeyError, ValueError), {ValueError}, KeyError | ValueError, ((KeyError,), ValueError)],
)
async def test_errors_to_retry_are_given_one_by_one_or_together(errors: Any) -> None:
    """A list was an error, but only when the first command failed."""
    calls: list[Any] = []

    def failing(command: Pay) -> None:
        calls.append(command)
        raise ValueError

    bus = CommandBusImpl([RetryMiddleware(1, 0, retryable_exceptions=errors)])
    bus.register(Pay, failing)
    with pytest.raises(CommandExecutionError):
        await bus.dispatch(Pay())
    assert len(calls) == 2
    assert CircuitBreakerMiddleware(monitored_exceptions=errors).state == "closed"


@pytest.mark.parametrize(
    ("option", "value"),
    [("retryable_exceptions", "ValueError"), ("retryable_exceptions", [5]), ("retry_condition", 5), ("on_retry", 5)],
)
def test_what_cannot_decide_about_retries_is_refused(option: str, value: Any) -> None:
    """At construction, naming the option."""
    with pytest.raises(EventValidationError, match=option):
        RetryMiddleware(**{option: value})


async def refuse(message: Any) -> None:
    raise ValueError("no money")


async def test_validators_of_decorated_handlers_may_wait() -> None:
    """One that waits was never run, and everything accepted."""

    class Order(Command):
        async def validate(self) -> None:
            raise ValueError("no money")

    @validate_command(custom_validators=[refuse])
    async def pay(command: Pay) -> str:
        return "paid"

    @validate
    async def order(command: Order) -> str:
        return "ordered"

    for handler, command in ((pay, Pay()), (order, Order())):
        with pytest.raises(EventValidationError, match="is not valid: no money"):
            await handler(command)


def test_a_validator_that_waits_needs_a_handler_that_can() -> None:
    """What it raises at once counts; where it really waits, the error says what to do."""

    async def waiting_validator(message: Any) -> None:
        await asyncio.sleep(0)

    for validator, told in ((refuse, "no money"), (waiting_validator, "make it a coroutine function")):

        @validate_command(custom_validators=[validator])
        def pay(command: Pay) -> str:
            return "paid"

        with pytest.raises(EventValidationError, match=told):
            pay(Pay())


async def test_an_error_of_a_validator_may_have_a_list_of_errors() -> None:
    """Only those of pydantic are functions."""

    class Refused(ValueError):
        errors = ("amount",)

    def validator(message: Any) -> None:
        raise Refused("no money")

    middleware = ValidationMiddleware()
    middleware.register_validator(Pay, validator)
    bus = CommandBusImpl([middleware])
    bus.register(Pay, lambda command: None)
    with pytest.raises(EventValidationError, match="Pay is not valid: no money"):
        await bus.dispatch(Pay())


def test_the_class_of_an_upcaster_is_refused() -> None:
    """Every event it is for would fail when it is read."""

    class Renamed(Upcaster):
        event_type, from_version, to_version = "Paid", 1, 2

        async def upcast(self, data: dict[str, Any]) -> dict[str, Any]:
            return data

    with pytest.raises(EventValidationError, match="an instance of Renamed"):
        SchemaEvolution(SchemaRegistry()).register_upcaster(Renamed)  # type: ignore[arg-type]

    class Static:
        event_type, from_version, to_version = "Paid", 1, 2

        @staticmethod
        async def upcast(data: dict[str, Any]) -> dict[str, Any]:
            return data

    evolution: Any = SchemaEvolution(SchemaRegistry())
    evolution.register_upcaster(Static)  # needs no instance
    assert evolution.latest_upcast("Paid") == 2


async def test_an_empty_id_of_a_saga_is_refused() -> None:
    """A random one took its place, so that a second start was another saga."""

    class Order(SagaBase):
        name = "order"

        @saga_step
        async def pay(self, ctx: Any) -> None: ...

    manager = SagaManager()
    manager.register(Order)
    with pytest.raises(EventValidationError, match="saga_id must not be empty"):
        await manager.start("order", saga_id="")


def test_an_event_class_has_one_function_of_a_projection() -> None:
    """A second one would silently take the place of the first."""
    projection = InlineProjection("totals")
    projection.handle(Paid)(lambda event: None)
    with pytest.raises(EventValidationError, match="Paid is handled already"):
        projection.handle(Paid)(lambda event: None)
    table = TableProjection("payments", "id", {"id": "TEXT"})
    table.on(Paid)(lambda event: None)
    with pytest.raises(EventValidationError, match="Paid is handled already"):
        table.on(Paid)(lambda event: None)


@pytest.mark.parametrize(("event_type", "function"), [(5, print), (Pay, print), (Paid, 5)])
def test_a_projection_handles_events_with_functions(event_type: Any, function: Any) -> None:
    """Anything else is told at once rather than at the first event."""
    with pytest.raises(EventValidationError):
        InlineProjection("totals").handle(event_type)(function)


async def test_a_projection_of_commands_is_refused() -> None:
    """It would never get one."""

    class Totals:
        handles = (Pay,)

        def apply(self, event: Any) -> None: ...

    with pytest.raises(EventValidationError, match="Pay is a class of commands"):
        ProjectionManager(InMemoryEventStore()).register(Totals())


class Ledger(AggregateRoot):
    def _handle_paid(self, event: Paid) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((None,), "event_store"),
        ((InMemoryEventStore(), EventBusImpl()), "snapshot_store"),
        ((InMemoryEventStore(), None, InMemorySnapshotStore()), "event_bus"),
        ((InMemoryEventStore(), None, None, 5), "snapshot_policy"),
    ],
)
def test_a_repository_with_something_in_the_wrong_place_is_refused(arguments: tuple[Any, ...], field: str) -> None:
    """A bus in the place of the snapshot store published nothing, with a warning about snapshots at most."""
    with pytest.raises(EventValidationError, match=f"{field} must be"):
        EventSourcingRepository(Ledger, *arguments)


def test_a_snapshot_manager_without_its_stores_is_refused() -> None:
    """It failed at its first use."""
    with pytest.raises(EventValidationError, match="snapshot_store must be"):
        SnapshotManager(InMemoryEventStore(), InMemoryEventStore())  # type: ignore[arg-type]
    with pytest.raises(EventValidationError, match="event_store must be"):
        SnapshotManager(None, InMemorySnapshotStore())  # type: ignore[arg-type]


async def test_a_priority_that_is_no_number_changes_nothing() -> None:
    """The error left the handler subscribed, and every later subscription failed."""
    bus = EventBusImpl()
    for priority in ("high", None):
        with pytest.raises(EventValidationError, match="priority must be a number"):
            bus.subscribe(Paid, print, priority=priority)  # type: ignore[arg-type]
        with pytest.raises(EventValidationError, match="priority must be a number"):
            event_handler(Paid, priority=priority)  # type: ignore[arg-type]
    assert bus.subscription_count(Paid) == 0
    bus.subscribe(Paid, print, priority=1)
    assert bus.subscription_count(Paid) == 1
