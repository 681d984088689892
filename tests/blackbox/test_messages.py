"""Messages in the hands of a program that knows only the documents."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from lexigram.events import (
    Command,
    CommandBusImpl,
    DomainEvent,
    Event,
    InMemoryEventStore,
    IntegrationEvent,
    Query,
    SqliteEventStore,
)
from lexigram.events.decorators.idempotent import idempotent
from lexigram.events.stores.idempotency import InMemoryIdempotencyStore
from lexigram.events.stores.inbox import Inbox


class Plain(DomainEvent):
    order_id: str
    lines: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Decorated(DomainEvent):
    order_id: str
    total: Decimal = Decimal("0.10")


class PlainBelowDecorated(Decorated):
    extra: int


@dataclass(frozen=True, slots=True)
class Slotted(DomainEvent):
    order_id: str


class Shipped(IntegrationEvent):
    order_id: str


class Place(Command[str]):
    order_id: str


EVENTS: list[Any] = [
    Plain(order_id="a", lines=[1]),
    Decorated(order_id="a"),
    PlainBelowDecorated(order_id="a", extra=1),
    Slotted(order_id="a"),
    Shipped(order_id="a", source_service="shop", destination_services=["post"]),
    Event(event_type="ping", data={"a": (1, Decimal("1.0"))}),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
async def test_every_kind_of_event_class_keeps_class_and_fields_everywhere(event: Any, tmp_path: Path) -> None:
    """Copies, pickles of every protocol, the `with_` helpers and a database file give the same event."""
    pickles = [pickle.loads(pickle.dumps(event, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in (copy.copy(event), copy.deepcopy(event), event.with_version(3), *pickles):
        assert type(other) is type(event)
        assert other == event
    helped = event.for_aggregate(uuid4(), "Order").with_correlation_id(uuid4()).with_causation_id(uuid4())
    assert type(helped) is type(event)
    assert (helped.event_id, helped.to_dict().keys()) == (event.event_id, event.to_dict().keys())
    async with SqliteEventStore(tmp_path / "events.db") as store:
        await store.append("s", [copy.copy(event)])
    async with SqliteEventStore(tmp_path / "events.db") as store:
        (stored,) = await store.read("s")
    assert type(stored) is type(event)
    assert stored == event


@pytest.mark.parametrize("cls", [Plain, Decorated, PlainBelowDecorated, Slotted, Shipped, Place])
def test_missing_and_unknown_fields_are_named_together(cls: Any) -> None:
    """However the class was written, one error tells everything that is wrong."""
    with pytest.raises(TypeError) as caught:
        cls(colour="red", shape="round")
    assert all(name in str(caught.value) for name in ("order_id", "colour", "shape"))


class Rename(Command):
    expected_version: int
    correlation_id: str
    target_aggregate_id: str


class Renamed(Rename):
    name: str = ""


class Annotated(DomainEvent):
    to_dict: str
    with_version: int


class Doubled(DomainEvent):
    amount: int

    @property
    def double(self) -> int:
        return self.amount * 2


class Fixed(Doubled):
    @property
    def amount(self) -> int:  # type: ignore[override]
        return 7


def test_fields_named_like_inherited_properties_and_methods_are_fields() -> None:
    """A required field that a base class has as a property or method is read back, in subclasses too."""
    for cls in (Rename, Renamed):
        command = cls(expected_version=4, correlation_id="c", target_aggregate_id="a")
        assert (command.expected_version, command.correlation_id, command.target_aggregate_id) == (4, "c", "a")
    event = Annotated(to_dict="d", with_version=3)
    assert (event.to_dict, event.with_version) == ("d", 3)


def test_a_property_below_a_field_of_its_name_wins() -> None:
    """What a subclass computes replaces the field, as in any Python class."""
    assert Fixed(amount=1).amount == 7
    assert Fixed(amount=1).double == 14


class CancelConcert(Command):
    """A command with fields that have the names of an event's metadata."""

    event_id: UUID
    actor_id: str = "a singer"


class Cancelled(DomainEvent):
    pass


class Refund(Command):
    pass


async def test_a_command_is_known_by_its_own_id() -> None:
    """Not by a field `event_id`: several commands about one concert are several messages."""
    concert = uuid4()
    first, second = CancelConcert(event_id=concert), CancelConcert(event_id=concert)

    handled: list[Any] = []
    store = InMemoryEventStore()
    once = Inbox("shop", store, InMemoryIdempotencyStore()).handler(handled.append)
    assert [await once(command) for command in (first, second, first)] == [True, True, False]
    assert handled == [first, second]

    @idempotent()
    async def cancel(command: CancelConcert) -> UUID:
        return command.id

    assert [await cancel(command) for command in (first, second)] == [first.id, second.id]


async def test_what_a_command_s_handler_makes_is_caused_by_the_command() -> None:
    """Whatever fields the command has."""
    bus = CommandBusImpl()
    bus.register(CancelConcert, lambda command: (Cancelled(), Refund()))
    command = CancelConcert(event_id=uuid4())
    event, refund = await bus.dispatch(command)
    assert (event.causation_id, event.correlation_id, event.actor_id) == (command.id, command.id, None)
    assert refund.metadata.causation_id == refund.metadata.correlation_id == command.id
    assert refund.metadata.user_id is None


@pytest.mark.parametrize("name", ["first-name", "class", "", "$type", "a b"])
def test_ad_hoc_attributes_may_have_any_name(name: str) -> None:
    """Such as the keys of JSON from elsewhere: such an event is shown, compared and copied like any other."""
    event = Event(**{name: "Ada"})
    assert f"{name}='Ada'" in repr(event)
    assert dataclasses.asdict(event)[name] == "Ada"
    for again in (dataclasses.replace(event), copy.deepcopy(event), Event.from_dict(event.to_dict())):
        assert again == event
        assert getattr(again, name) == "Ada"


@dataclass(frozen=True, slots=True)
class SlottedBelow(Slotted):
    """Names of metadata that are not its own kind's are fields like any other."""

    id: str = ""
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class SlottedCommand(Command):
    version: str = ""


@pytest.mark.parametrize(
    "make",
    [
        DomainEvent,
        Event,
        Command,
        Query,
        lambda: Plain(order_id="o"),
        lambda: SlottedBelow(order_id="o", id="a", timestamp=1),
        lambda: SlottedCommand(version="b"),
    ],
)
def test_no_class_of_messages_lists_slots(make: Any) -> None:
    """Where one does, orjson lets go of what attributes return before it has written it, and the interpreter crashes."""
    message = make()
    assert "__slots__" not in vars(type(message))
    orjson.dumps(message)
    assert pickle.loads(pickle.dumps(message)) == message
    assert dataclasses.replace(message) == message
    if isinstance(message, SlottedBelow):
        assert (message.order_id, message.id, message.timestamp) == ("o", "a", 1)
