"""Functions of a program that would do nothing, or whose answer would be lost, are refused or heard."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from lexigram.contracts.core.result import Err
from lexigram.events import (
    AggregateRoot,
    Command,
    CommandBusImpl,
    DomainEvent,
    EventBusImpl,
    EventValidationError,
    InlineProjection,
    InMemoryEventStore,
    ProjectionBuildError,
    ProjectionManager,
    Query,
    QueryBusImpl,
    TableProjection,
    command_handler,
    event_handler,
)
from lexigram.events.middleware.validation import ValidationMiddleware


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


REFUSING: list[Callable[[Any], Any]] = [
    lambda handler: EventBusImpl().subscribe(Paid, handler),
    lambda handler: EventBusImpl().subscribe_all(handler),
    lambda handler: CommandBusImpl().register(Pay, handler),
]


@pytest.mark.parametrize("handler", [plain, waiting, Handler, Handler(), functools.partial(plain)])
@pytest.mark.parametrize("register", REFUSING)
def test_a_handler_that_yields_is_refused(handler: Any, register: Callable[[Any], Any]) -> None:
    """Calling a generator function runs nothing: every message would count as handled."""
    with pytest.raises(EventValidationError, match="yields"):
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
