"""Failures of unusual kinds: outside of `Exception`, without a text."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lexigram.events import (
    Command,
    CommandBusImpl,
    CommandExecutionError,
    DomainEvent,
    EventBusImpl,
    InMemoryEventStore,
    InMemorySagaStore,
    ProjectionBuildError,
    ProjectionManager,
    SagaBase,
    SagaManager,
    saga_step,
)


class Paid(DomainEvent):
    pass


class Pay(Command):
    pass


class Panic(BaseException):
    """As extensions written in Rust raise it."""


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


FAILURES = [
    Panic("broken"),
    BaseExceptionGroup("both", [Panic("broken")]),
    Speechless(),
    asyncio.CancelledError("within"),
]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_whatever_an_event_handler_raises_is_its_failure(failure: BaseException, waits: bool) -> None:
    """It is tried as often as configured, told and kept; other handlers and events go on."""
    calls: list[Any] = []

    async def failing(event: Paid) -> None:
        calls.append("failing")
        if waits:
            await asyncio.sleep(0)
        raise failure

    async with EventBusImpl(config={"max_handler_retries": 1, "retry_delay_seconds": 0}) as bus:
        bus.subscribe(Paid, failing)
        bus.subscribe(Paid, calls.append)
        event = Paid()
        await bus.publish(event)
        await asyncio.wait_for(bus.flush(), 5)
        assert sorted(calls, key=str) == sorted([event, "failing", "failing"], key=str)
        (error,) = bus.dispatch_errors
        assert error.__cause__ is failure
        assert bus.dead_letters is not None
        (letter,) = await bus.dead_letters.list_entries()
        assert letter.error_type == type(failure).__name__
        assert not await bus.dead_letters.replay(letter.entry_id, bus)
        (letter,) = await bus.dead_letters.list_entries()
        assert letter.attempts == 3


async def test_a_command_that_fails_without_a_text_is_wrapped() -> None:
    """The cause is there, and the message says why its text is not."""

    def failing(command: Pay) -> None:
        raise Speechless

    bus = CommandBusImpl()
    bus.register(Pay, failing)
    with pytest.raises(CommandExecutionError, match=r"Pay failed: Speechless: .*cannot be made") as caught:
        await bus.dispatch(Pay())
    assert isinstance(caught.value.__cause__, Speechless)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_whatever_a_step_raises_fails_the_saga(failure: BaseException) -> None:
    """What was done before is undone; the saga does not stay where it is for ever."""
    undone: list[str] = []

    class Order(SagaBase):
        name = "order"

        async def refund(self, ctx: Any) -> None:
            undone.append("charge")

        @saga_step(compensation=refund)
        async def charge(self, ctx: Any) -> None: ...

        @saga_step(max_retries=0)
        async def ship(self, ctx: Any) -> None:
            raise failure

    sagas = InMemorySagaStore()
    manager = SagaManager(sagas)
    manager.register(Order)
    saga_id = await manager.start("order")
    record = await sagas.load(saga_id)
    assert record is not None
    assert record.status == "compensated"
    assert undone == ["charge"]
    assert "ship" in str(record.error)


async def test_a_projection_that_fails_without_a_text_says_where() -> None:
    """The error names projection, event and position as for any other."""

    class Totals:
        handles = (Paid,)

        def apply(self, event: Paid) -> None:
            raise Speechless

    store = InMemoryEventStore()
    async with ProjectionManager(store) as manager:
        manager.register(Totals())
        await store.append("a", [Paid()])
        with pytest.raises(ProjectionBuildError, match="'Totals' cannot apply Paid at position 1: Speechless"):
            await manager.wait_for("Totals", 1, timeout=5)


async def test_subscribe_all_is_undone_with_the_library_s_own_domain_event() -> None:
    """`DomainEvent` as a program imports it stands for every event, as in the documents."""
    got: list[Any] = []
    async with EventBusImpl() as bus:
        bus.subscribe_all(got.append)
        assert bus.unsubscribe(DomainEvent, got.append)
        assert not bus.unsubscribe(DomainEvent, got.append)
        await bus.publish(Paid())
        await bus.flush()
        assert got == []


@pytest.mark.parametrize("nothing", ["", b""])
async def test_a_text_is_no_list_of_events(nothing: Any) -> None:
    """Not even an empty one."""
    async with EventBusImpl() as bus:
        with pytest.raises(ValueError, match="is not an event"):
            await bus.publish(nothing)
