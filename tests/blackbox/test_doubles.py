"""Doubles of the standard library's `unittest.mock` wherever a program's own tests put them."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec

import pytest

from lexigram.events import (
    AbstractEventStore,
    AggregateRoot,
    Command,
    CommandBusImpl,
    DomainEvent,
    EventBusConfig,
    EventBusImpl,
    EventHandlerProtocol,
    EventSourcingRepository,
    EventStoreProtocol,
    HandlerRegistry,
    InMemoryEventStore,
)
from lexigram.events.hooks import EventHandledHook, EventPublishedHook, EventStoredHook
from lexigram.events.projections.base import InlineProjection
from lexigram.events.projections.manager import ProjectionManager


class Rang(DomainEvent):
    times: int = 1


class Ring(Command):
    times: int = 1


class Bell(AggregateRoot):
    rung: int = 0

    def ring(self) -> None:
        self._apply(Rang())

    def _handle_rang(self, event: Rang) -> None:
        self.rung += event.times


class Handler:
    async def handle(self, event: Any) -> None:
        raise NotImplementedError


def with_handle() -> MagicMock:
    double = MagicMock()
    double.handle = AsyncMock()
    return double


FUNCTIONS = {"AsyncMock": AsyncMock, "Mock": Mock, "MagicMock": MagicMock}
OBJECTS = {
    "MagicMock with handle": with_handle,
    "MagicMock of the contract": lambda: MagicMock(spec=EventHandlerProtocol),
    "AsyncMock of a class": lambda: AsyncMock(spec=Handler),
    "autospec": lambda: create_autospec(Handler, instance=True),
}


@pytest.mark.parametrize("kind", [*FUNCTIONS, *OBJECTS])
async def test_a_double_handles_events_and_commands(kind: str) -> None:
    """One that has a method `handle` is called there, any other one itself; neither by guessing attributes."""
    double = {**FUNCTIONS, **OBJECTS}[kind]()
    called = double if kind in FUNCTIONS else double.handle
    called.return_value = None
    bus, commands, registry = EventBusImpl(), CommandBusImpl(), HandlerRegistry()
    registry.register_command_handler(Ring, double)
    registry.register_with_buses(command_bus=commands)
    bus.subscribe(Rang, double)
    event, command = Rang(), Ring()
    await bus.publish(event)
    await asyncio.wait_for(bus.flush(), 5)
    await commands.dispatch(command)
    assert [call.args for call in called.call_args_list] == [(event,), (command,)]
    assert bus.unsubscribe(Rang, double)
    await bus.close()


async def test_a_double_that_raises_is_a_dead_letter() -> None:
    """Named like its class."""
    bus = EventBusImpl(config=EventBusConfig(retry_failed_handlers=False))
    bus.subscribe(Rang, AsyncMock(side_effect=ValueError("broken")))
    await bus.publish(Rang())
    await asyncio.wait_for(bus.flush(), 5)
    assert bus.dead_letters is not None
    (entry,) = await bus.dead_letters.list_entries()
    assert (entry.handler_name, entry.error) == ("unittest.mock.AsyncMock", "broken")
    await bus.close()


async def test_a_double_handles_in_a_projection() -> None:
    """As a function that a projection calls."""
    projection, handler, manager = InlineProjection("bells"), AsyncMock(), ProjectionManager()
    projection.handle(Rang)(handler)
    manager.register(projection)
    event = Rang()
    assert await manager.process(event, 1) == ["bells"]
    handler.assert_awaited_once_with(event)


@pytest.mark.parametrize("spec", [None, EventStoreProtocol, AbstractEventStore, InMemoryEventStore])
async def test_a_repository_takes_doubles_of_store_and_bus(spec: Any) -> None:
    """It appends with the version expected, publishes, and takes the aggregate as saved."""
    store, bus = AsyncMock(spec=spec), AsyncMock()
    store.append.return_value = 1
    bell = Bell(id="b")
    bell.ring()
    events = bell.get_pending_events()
    await EventSourcingRepository(Bell, store, event_bus=bus).save(bell)
    store.append.assert_awaited_once_with("b", events, 0)
    bus.publish.assert_awaited_once_with(events)
    assert (bell.get_pending_events(), bell.version) == ([], 1)


async def test_hooks_that_fail_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What they tell of has happened: the append returns, the event is published and handled once, the log has it."""
    hooks = MagicMock()
    hooks.call_action = AsyncMock(side_effect=RuntimeError("hook"))
    store, bus, handler = InMemoryEventStore(), EventBusImpl(hooks=hooks), AsyncMock(return_value=None)
    store.set_hook_registry(hooks)
    bus.subscribe(Rang, handler)
    event = Rang()
    assert await store.append("b", [event]) == 1
    assert (await bus.publish(event)).is_ok()
    await asyncio.wait_for(bus.flush(), 5)
    handler.assert_awaited_once_with(event)
    assert not bus.dispatch_errors
    for hook in (EventStoredHook, EventPublishedHook, EventHandledHook):
        assert f"the hooks for {hook.name} failed" in caplog.text
    await bus.close()
