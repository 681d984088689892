"""What a projection is, however it is written."""

from __future__ import annotations

from typing import Any

import pytest

from lexigram.contracts.events.protocols.projection import ProjectionProtocol as ContractProjection
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.event import DomainEvent
from lexigram.events.projections.base import (
    InlineProjection,
    ProjectionCheckpoint,
    ProjectionProtocol,
    ProjectionStatus,
)
from lexigram.events.projections.durable import DurableProjection, bind
from lexigram.events.projections.manager import ProjectionManager


class Opened(DomainEvent):
    """An account was opened."""

    amount: int = 0


class SpecialOpened(Opened):
    """A subclass."""


class Closed(DomainEvent):
    """An account was closed."""


class Collecting(ProjectionProtocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    async def apply(self, event: Any) -> None:
        self.seen.append(event)


async def test_handles_may_be_a_class_attribute_and_includes_subclasses() -> None:
    """Name and handled classes need no property."""

    class Accounts(Collecting):
        name = "accounts"
        handles = (Opened,)

    projection = Accounts()
    assert projection.name == "accounts"
    assert projection.can_handle(SpecialOpened())
    assert not projection.can_handle(Closed())


async def test_the_annotation_decides_where_handles_is_missing() -> None:
    """A union names several classes, an unannotated parameter means every event."""

    class Annotated(ProjectionProtocol):
        async def handle_event(self, event: Opened | Closed) -> None: ...

    class Everything(Collecting): ...

    assert set(Annotated().handles) == {Opened, Closed}
    assert Annotated().name == "Annotated"
    assert Everything().can_handle(Closed())


@pytest.mark.parametrize("kind", ["async apply", "plain apply", "async handle_event", "plain handle_event"])
async def test_either_method_plain_or_asynchronous_is_called(kind: str) -> None:
    """apply and handle_event are two names of one thing."""
    seen: list[int] = []

    async def asynchronous(self: Any, event: Any) -> None:
        seen.append(event.amount)

    def plain(self: Any, event: Any) -> None:
        seen.append(event.amount)

    form, method = kind.split()
    cls = type("Some", (ProjectionProtocol,), {method: asynchronous if form == "async" else plain})
    projection = cls()
    manager = ProjectionManager()
    manager.register(projection)
    assert await manager.process(Opened(amount=1), 1) == ["Some"]
    assert await manager.process(Opened(amount=2), 2) == ["Some"]
    assert seen == [1, 2]


async def test_a_subclass_of_the_contract_with_handle_event_works() -> None:
    """As in the documents: the contract's own apply, which does nothing, must not be what is called."""

    class OrderSummaryProjection(ContractProjection):
        def __init__(self) -> None:
            self.rows: list[int] = []

        async def handle_event(self, event: DomainEvent) -> None:
            if isinstance(event, Opened):
                self.rows.append(event.amount)

    written = OrderSummaryProjection()
    manager = ProjectionManager()
    manager.register(written)
    assert await manager.process(Opened(amount=3), 1) == ["OrderSummaryProjection"]
    assert written.rows == [3]
    assert isinstance(Collecting(), ContractProjection)


async def test_an_inline_projection_calls_the_function_of_the_nearest_class() -> None:
    """A function for a subclass wins over the one for its parent; reset functions run on reset."""
    projection = InlineProjection("inline")
    seen: list[str] = []

    @projection.handle(Opened)
    async def opened(event: Opened) -> None:
        seen.append("opened")

    @projection.handle(SpecialOpened)
    def special(event: SpecialOpened) -> None:
        seen.append("special")

    @projection.on_reset
    def emptied() -> None:
        seen.clear()

    assert projection.handles == (Opened, SpecialOpened)
    await projection.apply(SpecialOpened())
    await projection.apply(Opened())
    await projection.apply(Closed())
    assert seen == ["special", "opened"]
    projection.advance(9)
    await projection.reset()
    assert seen == []
    assert projection.position == 0


async def test_registered_handlers_are_called_by_a_projection_without_methods() -> None:
    """Callables and objects with handle(event)."""
    seen: list[str] = []

    class Handler:
        async def handle(self, event: Any) -> None:
            seen.append("object")

    class Bare(ProjectionProtocol):
        handles = (Opened,)

    projection = Bare()
    projection.register_event_handler(Handler())
    projection.register_event_handler(lambda event: seen.append("function"))
    await projection.apply(Opened())
    assert seen == ["object", "function"]
    with pytest.raises(EventValidationError, match="neither callable"):
        projection.register_event_handler(3)


def test_status_position_and_error_follow_the_calls() -> None:
    """A position never goes back except by restoring or resetting."""
    projection = Collecting()
    assert projection.status is ProjectionStatus.RUNNING
    projection.advance(5)
    projection.advance(3)
    assert projection.checkpoint.position == 5
    projection.set_error("broken")
    assert (projection.status, projection.error) == (ProjectionStatus.ERROR, "broken")
    projection.resume()
    assert (projection.status, projection.error) == (ProjectionStatus.RUNNING, None)
    projection.pause()
    assert projection.status is ProjectionStatus.PAUSED
    projection.set_rebuilding()
    assert projection.status is ProjectionStatus.REBUILDING
    projection.restore_checkpoint(ProjectionCheckpoint("x", 2))
    assert projection.position == 2


def test_what_is_no_projection_is_refused_with_a_reason() -> None:
    """Classes, objects without methods, empty subclasses, taken names and circles."""
    manager = ProjectionManager()
    with pytest.raises(EventValidationError, match="Register an instance of Collecting"):
        manager.register(Collecting)
    with pytest.raises(EventValidationError, match="neither apply"):
        manager.register(object())
    with pytest.raises(EventValidationError, match="implements neither"):
        manager.register(type("Empty", (ProjectionProtocol,), {})())
    manager.register(Collecting())
    with pytest.raises(EventValidationError, match="registered already"):
        manager.register(Collecting())
    manager.register(type("A", (Collecting,), {"depends_on": ("B",)})())
    with pytest.raises(EventValidationError, match="circle"):
        manager.register(type("B", (Collecting,), {"depends_on": ("A",)})())
    assert manager.get("B") is None
    with pytest.raises(EventValidationError, match="event_store"):
        manager.register(type("D", (DurableProjection,), {"apply": Collecting.apply})())
    with pytest.raises(EventValidationError, match="no table name"):
        type("Bad", (DurableProjection,), {"tables": ("a; drop",)})
    with pytest.raises(EventValidationError, match="tuple of strings"):
        type("Bad", (DurableProjection,), {"schema": "CREATE TABLE x"})


def test_numbered_parameters_become_positional_ones_outside_of_literals() -> None:
    """The documents write $1; SQLite wants ?; quoted text stays."""
    sql, values = bind("INSERT INTO t VALUES ($2, $1, '$1', \"$2\")", ("a", "b"))
    assert sql == "INSERT INTO t VALUES (?, ?, '$1', \"$2\")"
    assert values == ["b", "a"]
    assert bind("SELECT ?", ([4],)) == ("SELECT ?", [4])
    with pytest.raises(EventValidationError, match="needs 2 parameters, 1 were given"):
        bind("SELECT $2", ("a",))


def test_what_is_no_event_class_in_handles_is_refused_at_registration() -> None:
    """Not at the first event; a method `handles()`, as in the contract of event handlers, works."""

    class Wrong(ProjectionProtocol):
        handles: Any = ["Sold"]

        async def apply(self, event: Any) -> None:
            """Never called."""

    for wrong in (["Sold"], "Sold", 3):
        Wrong.handles = wrong
        with pytest.raises(EventValidationError, match="handles must list event classes"):
            ProjectionManager().register(Wrong())
    Wrong.handles = lambda self: [DomainEvent]
    manager = ProjectionManager()
    manager.register(Wrong())
    assert manager.get_all()[0].can_handle(DomainEvent())
