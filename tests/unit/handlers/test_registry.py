"""The handler registry: noting, routing, discovering, registering."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from lexigram.contracts.core.result import Ok
from lexigram.events.buses.command import CommandBusImpl
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.buses.query import QueryBusImpl
from lexigram.events.decorators.handlers import (
    clear_handlers,
    command_handler,
    event_handler,
    get_all_handlers,
    multi_event_handler,
    query_handler,
)
from lexigram.events.exceptions import DuplicateHandlerError, EventValidationError
from lexigram.events.handlers.base import (
    CommandHandlerProtocol,
    EventHandlerProtocol,
    MultiEventHandlerProtocol,
    QueryHandlerProtocol,
)
from lexigram.events.handlers.discovery import discover_and_register, discover_event_types
from lexigram.events.handlers.registry import HandlerRegistry, clear_handler_registry
from lexigram.events.messages.command import Command
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.query import Query

T = TypeVar("T")


class Ship(Command[str]):
    """A command."""


class Track(Query[str]):
    """A query."""

    parcel: str = "1"


class Shipped(DomainEvent):
    """An event."""


class Arrived(DomainEvent):
    """Another event."""


class ShipHandler(CommandHandlerProtocol[Ship, str]):
    async def handle(self, command: Any) -> str:
        return "shipped"


class TrackHandler(QueryHandlerProtocol[Track, str]):
    async def handle(self, query: Any) -> str:
        return query.parcel


class OnShipped(EventHandlerProtocol[Shipped]):
    seen: list[Any] = []

    async def handle(self, event: Any) -> Any:
        self.seen.append(type(event).__name__)
        return Ok(None)


@pytest.fixture(autouse=True)
def _own_decorators() -> Iterator[None]:
    """Start without decorated handlers, and leave the others' as they were."""
    from lexigram.events.decorators import handlers

    before = dict(handlers._known)
    clear_handlers()
    OnShipped.seen.clear()
    yield
    handlers._known.clear()
    handlers._known.update(before)


async def test_classes_are_routed_by_their_type_argument() -> None:
    """And called through the buses."""
    registry = HandlerRegistry()
    for handler in (ShipHandler, TrackHandler, OnShipped):
        registry.register(handler)
    assert registry.get_command_handlers() == {Ship: ShipHandler}
    assert registry.get_query_handlers() == {Track: TrackHandler}
    assert registry.get_event_handlers() == {Shipped: [OnShipped]}
    commands, queries, events = CommandBusImpl(), QueryBusImpl(), EventBusImpl()
    registry.register_with_buses(commands, queries, events)
    assert await commands.dispatch(Ship()) == "shipped"
    assert await queries.execute(Track(parcel="9")) == "9"
    await events.publish(Shipped())
    await events.close()
    assert OnShipped.seen == ["Shipped"]


def test_a_type_argument_is_found_through_generic_bases() -> None:
    """Given by a subclass of a subclass, or inherited."""

    class Base(EventHandlerProtocol[T], Generic[T]):
        async def handle(self, event: T) -> Any: ...

    class Middle(Base[T]):
        pass

    class Concrete(Middle[Arrived]):
        pass

    class Inheriting(Concrete):
        pass

    for handler in (Concrete, Inheriting):
        registry = HandlerRegistry()
        registry.register(handler)
        assert registry.get_event_handlers() == {Arrived: [handler]}


def test_without_type_argument_the_annotation_of_handle_counts() -> None:
    """For commands, queries and events, unions included."""

    class Plain:
        async def handle(self, message: Ship) -> None: ...

    class Asking:
        def handle(self, message: Track) -> str:
            return ""

    class Both:
        async def handle(self, event: Shipped | Arrived) -> None: ...

    class Bare(EventHandlerProtocol):  # type: ignore[type-arg]
        async def handle(self, event: Arrived) -> Any: ...

    registry = HandlerRegistry()
    for handler in (Plain, Asking, Both, Bare):
        registry.register(handler)
    assert registry.get_command_handlers() == {Ship: Plain}
    assert registry.get_query_handlers() == {Track: Asking}
    assert registry.get_event_handlers() == {Shipped: [Both], Arrived: [Both, Bare]}


async def test_a_multi_event_handler_says_itself_what_it_handles() -> None:
    """It is asked before it is built, and built once for all its events."""
    built: list[Any] = []

    class Multi(MultiEventHandlerProtocol):
        def __init__(self, seen: list[str]) -> None:
            built.append(self)
            self.seen = seen

        def handles(self) -> list[type]:
            return [Shipped, Arrived]

        async def handle(self, event: Any) -> Any:
            self.seen.append(type(event).__name__)

    class Impossible(MultiEventHandlerProtocol):
        def handles(self) -> list[type]:
            return self.missing  # type: ignore[attr-defined,no-any-return]

        async def handle(self, event: Any) -> Any: ...

    seen: list[str] = []
    registry, bus = HandlerRegistry(), EventBusImpl()
    registry.register(Multi)
    registry.register_with_buses(event_bus=bus, handler_factory=lambda target: target(seen))
    await bus.publish([Shipped(), Arrived()])
    await bus.close()
    assert seen == ["Shipped", "Arrived"]
    assert len(built) == 1
    with pytest.raises(EventValidationError):
        registry.register(Impossible)


@pytest.mark.parametrize(
    "wrong", [object, int, 5, lambda event: None, type("Empty", (), {"handle": lambda self, x: x})]
)
def test_what_does_not_say_what_it_handles_is_refused(wrong: Any) -> None:
    """With a hint how to."""
    with pytest.raises(EventValidationError) as caught:
        HandlerRegistry().register(wrong)
    assert caught.value.field == "handler"


@pytest.mark.parametrize(
    ("use", "message", "right"),
    [
        (command_handler, Shipped, "event"),
        (query_handler, Ship, "command"),
        (event_handler, Ship, "command"),
        (multi_event_handler, Track, "query"),
        (CommandBusImpl().register, Shipped, "event"),
        (QueryBusImpl().register, Ship, "command"),
        (EventBusImpl().subscribe, Track, "query"),
        (HandlerRegistry().register_command_handler, Track, "query"),
        (HandlerRegistry().register_event_handler, Ship, "command"),
    ],
)
def test_messages_of_another_kind_are_refused(use: Any, message: type, right: str) -> None:
    """Such a handler would never be called; the error says what to use instead."""
    with pytest.raises(EventValidationError, match=f"{message.__name__} is a class of .* use the {right} bus"):
        use(message, lambda given: None) if inspect.ismethod(use) else use(message)


def test_found_twice_is_registered_once_two_are_refused() -> None:
    """Two definitions for a command or query; events take any number."""
    registry = HandlerRegistry()
    for _ in range(2):
        for handler in (ShipHandler, TrackHandler, OnShipped):
            registry.register(handler)

    class Other(CommandHandlerProtocol[Ship, str]):
        async def handle(self, command: Ship) -> str:
            return ""

    with pytest.raises(DuplicateHandlerError, match="ShipHandler") as caught:
        registry.register(Other)
    assert "Other" in str(caught.value)

    class AlsoOnShipped(OnShipped):
        pass

    registry.register(AlsoOnShipped)
    assert registry.get_event_handlers() == {Shipped: [OnShipped, AlsoOnShipped]}
    commands, events = CommandBusImpl(), EventBusImpl()
    registry.register_with_buses(commands, None, events)
    registry.register_with_buses(commands, None, events)
    assert events.subscription_count(Shipped) == 2


async def test_decorated_functions_are_loaded_with_their_metadata() -> None:
    """Priorities order them; a function may handle several messages; loading twice changes nothing."""
    seen: list[str] = []

    @command_handler(Ship, name="ship it", team="logistics")
    def ship(command: Ship) -> str:
        return "done"

    @event_handler(Shipped, priority=-5)
    async def late(event: Shipped) -> None:
        seen.append("late")

    @multi_event_handler(Shipped, Arrived, priority=5)
    async def early(event: Any) -> None:
        seen.append("early")

    @event_handler(Shipped)
    @event_handler(Arrived)
    async def both(event: Any) -> None:
        seen.append("both")

    assert ship(Ship()) == "done", "the decorator returns the function itself"
    infos = {info.name: info for info in get_all_handlers()}
    assert infos["ship it"].metadata == {"team": "logistics"}
    assert infos["ship it"].is_async is False
    assert {info.handler_type for info in get_all_handlers()} == {"command", "event"}
    assert len(get_all_handlers("event")) == 4
    registry, commands, events = HandlerRegistry(), CommandBusImpl(), EventBusImpl()
    for _ in range(2):
        registry.load_decorators()
        registry.register_with_buses(commands, None, events)
    assert await commands.dispatch(Ship()) == "done"
    await events.publish(Shipped())
    await events.flush()
    assert seen == ["early", "both", "late"]
    seen.clear()
    await events.publish(Arrived())
    await events.close()
    assert seen == ["early", "both"]


async def test_results_of_cacheable_queries_are_kept() -> None:
    """By content, or by the query's key; skip_cache renews; failures and Err are not kept."""
    calls: list[str] = []

    @query_handler(Track, cacheable=True, cache_ttl=60)
    async def track(query: Track) -> str:
        calls.append(query.parcel)
        if query.parcel == "broken":
            raise ConnectionError("no")
        return f"{query.parcel} call {len(calls)}"

    registry, bus = HandlerRegistry(), QueryBusImpl()
    registry.load_decorators()
    registry.register_with_buses(query_bus=bus)
    assert await bus.execute(Track(parcel="1")) == "1 call 1"
    assert await bus.execute(Track(parcel="1")) == "1 call 1"
    assert await bus.execute(Track(parcel="2")) == "2 call 2"
    assert await bus.execute(Track(parcel="1", skip_cache=True)) == "1 call 3"
    assert await bus.execute(Track(parcel="1")) == "1 call 3"
    assert await bus.execute(Track(parcel="5", cache_key="same")) == "5 call 4"
    assert await bus.execute(Track(parcel="6", cache_key="same")) == "5 call 4"
    for _ in range(2):
        with pytest.raises(Exception, match="no"):
            await bus.execute(Track(parcel="broken"))
    assert calls.count("broken") == 2
    assert await track(Track(parcel="1")) == "1 call 7", "called directly, nothing is cached"


def test_bad_decorations_are_refused_by_name() -> None:
    """A method, something that is no class, no events, a negative lifetime."""
    with pytest.raises(EventValidationError) as caught:
        command_handler("Ship")  # type: ignore[arg-type]
    assert caught.value.field == "command_type"
    with pytest.raises(EventValidationError):
        multi_event_handler()
    with pytest.raises(EventValidationError):
        query_handler(Track, cache_ttl=0)
    with pytest.raises(EventValidationError, match="method"):

        class Service:
            @command_handler(Ship)
            async def ship(self, command: Ship) -> None: ...


PACKAGE = {
    "shop/__init__.py": "",
    "shop/messages.py": """
from lexigram.events import Command, DomainEvent
class Buy(Command): pass
class Sold(DomainEvent): pass
""",
    "shop/handlers.py": """
from lexigram.events import CommandHandlerProtocol, event_handler
from shop.messages import Buy, Sold
class BuyHandler(CommandHandlerProtocol[Buy, str]):
    async def handle(self, command): return "bought"
class Abstract(CommandHandlerProtocol[Buy, str]): pass
@event_handler(Sold)
async def note(event): pass
""",
    "shop/deep/__init__.py": "from shop.handlers import BuyHandler  # imported, not defined here\n",
    "shop/deep/more.py": """
from lexigram.events import EventHandlerProtocol
from shop.messages import Sold
class OnSold(EventHandlerProtocol[Sold]):
    async def handle(self, event): pass
""",
    "shop/broken.py": "",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on disk that can be imported."""
    for name, text in PACKAGE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "shop"]:
        del sys.modules[name]


def test_discovery_finds_what_the_modules_define(shop: Path) -> None:
    """Classes and decorated functions, once each, also when asked twice; the count says how many."""
    registry = HandlerRegistry()
    assert registry.discover("shop") == 3
    assert registry.discover("shop") == 3
    assert [handler.__name__ for handler in registry.get_command_handlers().values()] == ["BuyHandler"]
    (handlers,) = registry.get_event_handlers().values()
    assert sorted(handler.__name__ for handler in handlers) == ["OnSold", "note"]
    assert HandlerRegistry().discover("shop.handlers") == 2
    assert HandlerRegistry().discover("shop", recursive=False) == 0


def test_a_module_that_is_not_there_is_named(shop: Path) -> None:
    """An error inside a module is passed on as it is."""
    for name in ("shop.missing", "no_such_module", "no_such.module"):
        with pytest.raises(EventValidationError, match="no module") as caught:
            HandlerRegistry().discover(name)
        assert caught.value.field == "module_path"
    for wrong in (5, "", None):
        with pytest.raises(EventValidationError, match="name of a module"):
            HandlerRegistry().discover(wrong)  # type: ignore[arg-type]
    (shop / "shop/broken.py").write_text("import something_else_that_is_missing\n")
    with pytest.raises(ModuleNotFoundError, match="something_else"):
        HandlerRegistry().discover("shop")
    (shop / "shop/broken.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        HandlerRegistry().discover("shop")


def test_a_reloaded_module_replaces_its_handlers(shop: Path) -> None:
    """Not a duplicate."""
    registry = HandlerRegistry()
    registry.discover("shop.handlers")
    old = list(registry.get_command_handlers().values())
    messages = sys.modules["shop.messages"]
    del sys.modules["shop.handlers"]
    registry.discover("shop.handlers")
    assert registry.get_command_handlers()[messages.Buy] is not old[0]
    assert len(registry.get_event_handlers()[messages.Sold]) == 1


def test_event_types_are_discovered_by_name(shop: Path) -> None:
    """And handed to a serializer and a schema registry."""
    known: list[type] = []

    class Serializer:
        def register_event_type(self, event_class: type) -> None:
            known.append(event_class)

    assert list(discover_event_types("shop")) == ["Sold"]
    found = discover_and_register(["shop.messages"], serializer=Serializer())
    assert known == list(found.values())


async def test_functions_with_further_parameters_need_the_factory() -> None:
    """Which is asked once, at the first message."""
    asked: list[Any] = []

    @command_handler(Ship)
    async def ship(command: Ship, carrier: str) -> str:
        return f"shipped with {carrier}"

    async def factory(target: Any) -> Any:
        asked.append(target)
        return lambda message: target(message, carrier="dove")

    registry, bus = HandlerRegistry(), CommandBusImpl()
    registry.load_decorators()
    with pytest.raises(EventValidationError, match="container"):
        registry.register_with_buses(bus)
    registry.register_with_buses(bus, handler_factory=factory)
    assert asked == []
    assert [await bus.dispatch(Ship()) for _ in range(2)] == ["shipped with dove"] * 2
    assert asked == [ship]


async def test_buses_that_only_know_the_framework_contract_are_served() -> None:
    """register(type, handler) and subscribe(type, object with handle)."""

    class OtherBus:
        def __init__(self) -> None:
            self.handlers: dict[type, Any] = {}

        def register(self, message_type: type, handler: Any) -> None:
            self.handlers[message_type] = handler

        def subscribe(self, event_type: type, handler: Any) -> None:
            self.handlers[event_type] = handler.handle

    @event_handler(Arrived)
    def arrived(event: Arrived) -> str:
        return "noted"

    registry, commands, events = HandlerRegistry(), OtherBus(), OtherBus()
    registry.register(ShipHandler)
    registry.load_decorators()
    registry.register_with_buses(commands, None, events)
    assert await commands.handlers[Ship](Ship()) == "shipped"
    assert await events.handlers[Arrived](Arrived()) == "noted"


def test_clearing_forgets_registries_and_decorators() -> None:
    """For tests."""

    @command_handler(Ship)
    async def ship(command: Ship) -> None: ...

    registry = HandlerRegistry()
    registry.load_decorators()
    assert registry.get_command_handlers() == {Ship: ship}
    clear_handler_registry()
    assert registry.get_command_handlers() == {}
    assert get_all_handlers() == []
