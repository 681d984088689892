"""Command and query bus."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from lexigram.contracts.events.protocols.cqrs import CommandBusProtocol, QueryBusProtocol
from lexigram.contracts.exceptions.domain import DomainError
from lexigram.contracts.exceptions.infra import InfrastructureError
from lexigram.events.buses.command import CommandBusImpl
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.buses.query import QueryBusImpl
from lexigram.events.config import CommandBusConfig, EventsConfig, QueryBusConfig
from lexigram.events.exceptions import (
    CommandExecutionError,
    ConcurrencyError,
    DuplicateHandlerError,
    EventError,
    EventValidationError,
    HandlerNotFoundError,
    QueryExecutionError,
)
from lexigram.events.messages.command import Command
from lexigram.events.messages.context import current_context
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.query import Query
from lexigram.events.middleware.metrics import MetricsMiddleware
from lexigram.events.middleware.retry import RetryMiddleware


class CreateOrder(Command[str]):
    """A command."""

    item: str = "x"


class CreateOrders(Command[str]):
    """A command with a similar name."""


class GetOrder(Query[str]):
    """A query."""

    number: int = 1


class OrderPlaced(DomainEvent):
    """An event."""

    item: str


async def test_dispatch_returns_what_the_handler_returns() -> None:
    """For every kind of handler."""

    async def coroutine(command: CreateOrder) -> str:
        return f"coroutine {command.item}"

    def plain(command: CreateOrder) -> str:
        return f"plain {command.item}"

    class WithHandle:
        async def handle(self, command: CreateOrder) -> str:
            return f"handle {command.item}"

    for handler, expected in (
        (coroutine, "coroutine"),
        (plain, "plain"),
        (WithHandle(), "handle"),
        (WithHandle, "handle"),
    ):
        bus = CommandBusImpl()
        bus.register(CreateOrder, handler)
        assert await bus.dispatch(CreateOrder(item="1")) == f"{expected} 1"
        assert await bus.dispatch(CreateOrder(item="2")) == f"{expected} 2"


async def test_the_framework_contracts_hold() -> None:
    """At runtime."""
    assert isinstance(CommandBusImpl(), CommandBusProtocol)
    assert isinstance(QueryBusImpl(), QueryBusProtocol)
    assert inspect.iscoroutinefunction(CommandBusImpl().dispatch)


async def test_a_second_handler_is_refused_the_same_one_is_not() -> None:
    """DuplicateHandlerError names both."""

    async def first(command: Any) -> None: ...

    async def second(command: Any) -> None: ...

    bus = CommandBusImpl()
    bus.register(CreateOrder, first)
    bus.register(CreateOrder, first)
    with pytest.raises(DuplicateHandlerError, match="first") as caught:
        bus.register(CreateOrder, second)
    assert "second" in str(caught.value)
    assert bus.unregister(CreateOrder) is True
    assert bus.unregister(CreateOrder) is False
    bus.register(CreateOrder, second)


async def test_a_missing_handler_suggests_near_misses() -> None:
    """Similar names and base classes."""

    class Special(CreateOrder):
        pass

    async def handler(command: Any) -> None: ...

    bus = CommandBusImpl()
    bus.register(CreateOrder, handler)
    with pytest.raises(HandlerNotFoundError) as caught:
        await bus.dispatch(CreateOrders())
    assert caught.value.hint is not None
    assert "CreateOrder" in caught.value.hint
    with pytest.raises(HandlerNotFoundError, match="Special") as caught:
        await bus.dispatch(Special())
    assert caught.value.hint is not None
    assert "subclasses are not included" in caught.value.hint
    with pytest.raises(HandlerNotFoundError):
        await QueryBusImpl().execute(GetOrder())


async def test_unexpected_errors_are_wrapped_with_their_cause() -> None:
    """ValueError and friends; for queries likewise."""

    async def broken(message: Any) -> None:
        raise KeyError("stock")

    commands, queries = CommandBusImpl(), QueryBusImpl()
    commands.register(CreateOrder, broken)
    queries.register(GetOrder, broken)
    with pytest.raises(CommandExecutionError) as command_error:
        await commands.dispatch(CreateOrder())
    assert isinstance(command_error.value.__cause__, KeyError)
    assert command_error.value.command_type == "CreateOrder"
    with pytest.raises(QueryExecutionError) as query_error:
        await queries.execute(GetOrder())
    assert isinstance(query_error.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "error", [ConcurrencyError(), EventError("x"), DomainError("x"), InfrastructureError("x"), asyncio.CancelledError()]
)
async def test_known_errors_and_cancellation_pass_through(error: BaseException) -> None:
    """The very same object."""

    async def broken(message: Any) -> None:
        raise error

    bus = CommandBusImpl()
    bus.register(CreateOrder, broken)
    with pytest.raises(type(error)) as caught:
        await bus.dispatch(CreateOrder())
    assert caught.value is error


async def test_without_configuration_nothing_is_retried() -> None:
    """Not even a lost race."""
    calls: list[Any] = []

    async def racing(command: Any) -> None:
        calls.append(command)
        raise ConcurrencyError("lost")

    bus = CommandBusImpl()
    bus.register(CreateOrder, racing)
    with pytest.raises(ConcurrencyError):
        await bus.dispatch(CreateOrder())
    assert len(calls) == 1


async def test_configured_retries_are_for_transient_errors() -> None:
    """A lost race and a lost connection, not a ValueError; a RetryMiddleware of one's own replaces them."""
    calls: list[str] = []

    async def handler(command: CreateOrder) -> str:
        calls.append(command.item)
        if command.item == "value":
            raise ValueError("no")
        if len(calls) < 3:
            raise ConcurrencyError("lost") if command.item == "race" else ConnectionResetError("lost")
        return "done"

    config = CommandBusConfig(max_retries=3, retry_delay_seconds=0.001)
    bus = CommandBusImpl(config=config)
    bus.register(CreateOrder, handler)
    for item, expected in (("race", 3), ("connection", 3), ("value", 1)):
        calls.clear()
        if item == "value":
            with pytest.raises(CommandExecutionError):
                await bus.dispatch(CreateOrder(item=item))
        else:
            assert await bus.dispatch(CreateOrder(item=item)) == "done"
        assert len(calls) == expected
    for other in (
        CommandBusImpl([RetryMiddleware(max_retries=0)], config),
        CommandBusImpl(config=config, max_retries=0),
    ):
        calls.clear()
        other.register(CreateOrder, handler)
        with pytest.raises(ConcurrencyError):
            await other.dispatch(CreateOrder(item="race"))
        assert len(calls) == 1


async def test_configured_retries_stand_before_metrics() -> None:
    """Each attempt is measured."""

    async def racing(command: Any) -> None:
        raise ConcurrencyError("lost")

    metrics = MetricsMiddleware()
    bus = CommandBusImpl([metrics], CommandBusConfig(max_retries=2, retry_delay_seconds=0))
    bus.register(CreateOrder, racing)
    with pytest.raises(ConcurrencyError):
        await bus.dispatch(CreateOrder())
    assert metrics.recorder.count("cqrs.messages", outcome="failure") == 3


async def test_a_timeout_cancels_the_handler() -> None:
    """And is reported as the cause."""
    ended: list[str] = []

    async def slow(message: Any) -> None:
        try:
            await asyncio.sleep(5)
        finally:
            ended.append("cancelled")

    bus = QueryBusImpl(config=QueryBusConfig(timeout_seconds=0.01))
    bus.register(GetOrder, slow)
    with pytest.raises(QueryExecutionError) as caught:
        await bus.execute(GetOrder())
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert "not finished within 0.01 s" in str(caught.value)
    assert ended == ["cancelled"]


@pytest.mark.parametrize("bus_class", [CommandBusImpl, QueryBusImpl, EventBusImpl])
def test_a_configuration_is_never_ignored(bus_class: Any) -> None:
    """A mapping is taken as the settings it holds, an object without any of them is refused."""
    assert bus_class(config={}) is not None
    with pytest.raises(EventValidationError, match="unknown configuration key"):
        bus_class(config={"timeout_secs": 5})
    for wrong in (5, EventsConfig()):
        with pytest.raises(EventValidationError, match="config must be"):
            bus_class(config=wrong)


async def test_settings_may_be_a_mapping() -> None:
    """They take effect."""
    bus = CommandBusImpl(config={"timeout_seconds": 0.01, "max_retries": 0})
    bus.register(CreateOrder, lambda message: asyncio.sleep(5))
    with pytest.raises(CommandExecutionError, match=r"not finished within 0\.01 s"):
        await bus.dispatch(CreateOrder())


async def test_a_handler_that_does_not_suspend_arms_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio.timeout is not even called."""
    armed: list[float] = []
    real = asyncio.timeout

    def counting(delay: float) -> Any:
        armed.append(delay)
        return real(delay)

    async def quick(command: CreateOrder) -> str:
        if command.item == "wait":
            await asyncio.sleep(0)
        return command.item

    bus = CommandBusImpl(config=CommandBusConfig(timeout_seconds=7))
    bus.register(CreateOrder, quick)
    monkeypatch.setattr(asyncio, "timeout", counting)
    assert await bus.dispatch(CreateOrder(item="go")) == "go"
    assert armed == []
    assert await bus.dispatch(CreateOrder(item="wait")) == "wait"
    assert armed == [7]


async def test_what_a_handler_emits_is_caused_by_the_command() -> None:
    """Correlation and causation, also after a suspension; the context ends with the dispatch."""
    emitted: list[OrderPlaced] = []

    async def handler(command: CreateOrder) -> None:
        await asyncio.sleep(0)
        context = current_context()
        assert context is not None
        assert context.message_id == command.id
        emitted.append(OrderPlaced(item=command.item))

    bus = CommandBusImpl()
    bus.register(CreateOrder, handler)
    command = CreateOrder()
    await bus.dispatch(command)
    assert emitted[0].causation_id == command.id
    assert emitted[0].correlation_id == command.id
    assert current_context() is None


async def test_concurrent_commands_have_their_own_context() -> None:
    """Each sees itself before and after it waits."""

    async def handler(command: CreateOrder) -> bool:
        await asyncio.sleep(0.001)
        context = current_context()
        return context is not None and context.message_id == command.id

    bus = CommandBusImpl()
    bus.register(CreateOrder, handler)
    assert all(await asyncio.gather(*[bus.dispatch(CreateOrder()) for _ in range(20)]))


async def test_a_nested_dispatch_restores_the_outer_context() -> None:
    """Also when the inner command fails."""

    async def inner(command: Any) -> None:
        raise ValueError("no")

    async def outer(command: CreateOrder) -> Any:
        with pytest.raises(CommandExecutionError):
            await bus.dispatch(CreateOrders())
        context = current_context()
        return context and context.message_id

    bus = CommandBusImpl()
    bus.register(CreateOrders, inner)
    bus.register(CreateOrder, outer)
    command = CreateOrder()
    assert await bus.dispatch(command) == command.id


async def test_a_factory_builds_classes_and_injects_parameters() -> None:
    """Once, at the first message; it may be asynchronous."""
    built: list[Any] = []

    class Handler:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        async def handle(self, command: CreateOrder) -> str:
            return self.prefix + command.item

    async def function(query: GetOrder, prefix: str) -> str:
        return f"{prefix}{query.number}"

    async def factory(target: Any) -> Any:
        await asyncio.sleep(0)
        built.append(target)
        if inspect.isclass(target):
            return target("no. ")
        return lambda message: target(message, "no. ")

    commands, queries = CommandBusImpl(handler_factory=factory), QueryBusImpl(handler_factory=factory)
    commands.register(CreateOrder, Handler)
    queries.register(GetOrder, function)
    assert built == []
    assert await asyncio.gather(*[commands.dispatch(CreateOrder(item="1")) for _ in range(5)]) == ["no. 1"] * 5
    assert await queries.execute(GetOrder()) == "no. 1"
    assert built == [Handler, function]


async def test_a_class_that_cannot_be_built_says_how_to_help() -> None:
    """A required argument and no factory."""

    class Handler:
        def __init__(self, repository: Any) -> None: ...

        async def handle(self, command: Any) -> None: ...

    bus = CommandBusImpl()
    bus.register(CreateOrder, Handler)
    with pytest.raises(EventValidationError, match="handler_factory"):
        await bus.dispatch(CreateOrder())


@pytest.mark.parametrize(
    ("message_type", "handler", "field"),
    [("CreateOrder", print, "message_type"), (CreateOrder, 3, "handler"), (CreateOrder, lambda: 1, "handler")],
)
async def test_bad_registrations_are_refused_by_name(message_type: Any, handler: Any, field: str) -> None:
    """Nothing is registered."""
    bus = CommandBusImpl()
    with pytest.raises(EventValidationError) as caught:
        bus.register(message_type, handler)
    assert caught.value.field == field
    assert not bus.handles(CreateOrder)


async def test_middleware_added_later_applies_to_earlier_handlers() -> None:
    """And can be taken out again."""
    seen: list[str] = []

    async def note(message: Any, next_handler: Any) -> Any:
        seen.append("before")
        result = await next_handler(message)
        seen.append("after")
        return result

    async def handler(command: Any) -> str:
        seen.append("handler")
        return "done"

    bus = CommandBusImpl()
    bus.register(CreateOrder, handler)
    assert bus.use(note) is bus
    assert await bus.dispatch(CreateOrder()) == "done"
    assert seen == ["before", "handler", "after"]
    assert bus.unuse(note) is True
    assert bus.unuse(note) is False
    await bus.dispatch(CreateOrder())
    assert len(seen) == 4


async def test_dispatch_takes_few_frames() -> None:
    """At most six Python calls from the call of dispatch to the handler's return, without middleware."""
    import sys

    async def handler(command: Any) -> None: ...

    bus = CommandBusImpl()
    bus.register(CreateOrder, handler)
    command, calls = CreateOrder(), 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    await bus.dispatch(command)
    sys.setprofile(None)
    assert calls <= 6


async def test_an_abandoned_dispatch_is_cleaned_up_quietly() -> None:
    """The collector closes it in another context."""

    async def handler(command: Any) -> None:
        await asyncio.sleep(0)

    bus = CommandBusImpl()
    bus.register(CreateOrder, handler)
    coroutine = bus.dispatch(CreateOrder())
    import contextvars

    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()


async def test_health_tells_what_is_registered() -> None:
    """At once."""
    bus = CommandBusImpl()
    health = await bus.health_check()
    assert health.is_healthy()
    assert health.details == {"handlers": 0, "middlewares": 0}
