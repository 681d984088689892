"""Applying events: handlers, metadata, invariants, pending events, version."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from lexigram.contracts.domain.aggregates import AggregateRootProtocol
from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.domain import AggregateRoot as FrameworkAggregateRoot
from lexigram.events import (
    AggregateRoot,
    DomainEvent,
    Event,
    EventValidationError,
    HandlerNotFoundError,
    VersionedAggregateRoot,
)
from lexigram.events.aggregates.handlers import handler_names, snake_case
from tests.unit.aggregates.domain import Counter, ItemAdded, Order, Unheard


def test_an_applied_event_changes_state_and_is_pending() -> None:
    """`_apply` runs the handler, buffers the event and counts it."""
    order = Order(id="o-1")
    order.add("apple", 2)
    assert (order.lines[0].sku, order.lines[0].quantity) == ("apple", 2)
    assert [type(event) for event in order.pull_events()] == [ItemAdded]
    assert order.version == 1
    assert order.has_uncommitted_events


def test_an_applied_event_says_whose_it_is() -> None:
    """Aggregate id (as given) and type are filled in."""
    order_id = uuid4()
    order = Order(id=order_id)
    order.add("apple")
    (event,) = order.pull_events()
    assert event.aggregate_id == order_id
    assert event.aggregate_type == "Order"


def test_what_an_event_says_itself_is_kept() -> None:
    """Aggregate id, type and correlation id given explicitly are not overwritten."""
    counter, correlation = Counter(id="c"), uuid4()
    counter._set_context(correlation_id=uuid4(), causation_id=uuid4())
    counter._apply(ItemAdded(sku="x", aggregate_id="other", aggregate_type="Thing", correlation_id=correlation))
    (event,) = counter.pull_events()
    assert (event.aggregate_id, event.aggregate_type, event.correlation_id) == ("other", "Thing", correlation)


def test_the_context_of_the_aggregate_reaches_its_events() -> None:
    """`_set_context` gives correlation and causation ids to the events applied afterwards."""
    counter, correlation, causation = Counter(id="c"), uuid4(), uuid4()
    counter._set_context(correlation_id=correlation, causation_id=causation)
    counter.add()
    (event,) = counter.pull_events()
    assert (event.correlation_id, event.causation_id) == (correlation, causation)


def test_a_contract_event_is_applied_as_an_addressed_copy() -> None:
    """Instances of the framework's own event class work too."""
    from dataclasses import dataclass

    @dataclass(init=False, frozen=True)
    class ItemAdded(ContractEvent):
        sku: str = "x"
        quantity: int = 3

    counter = Counter(id="c")
    given = ItemAdded(quantity=3)
    counter._apply(given)
    (event,) = counter.pull_events()
    assert counter.count == 3
    assert (event.aggregate_id, given.aggregate_id) == ("c", None)


def test_a_missing_handler_raises_and_names_the_method() -> None:
    """The error says which method to define; nothing is pending."""
    order = Order(id="o")
    with pytest.raises(HandlerNotFoundError, match="_handle_unheard") as caught:
        order._apply(Unheard())
    assert "Unheard" in caught.value.message
    assert order.version == 0


def test_a_class_can_opt_out_of_handling_everything() -> None:
    """With `allow_unhandled_events` the event is buffered and changes nothing."""

    class Quiet(AggregateRoot):
        allow_unhandled_events = True

    quiet = Quiet(id="q")
    quiet._apply(Unheard())
    assert quiet.version == 1


def test_a_failing_handler_leaves_version_and_pending_events() -> None:
    """The handler's own error comes through; the aggregate has nothing new to save."""
    order = Order(id="o")
    order.add("apple")
    with pytest.raises(RuntimeError, match="handler failed"):
        order.cancel("boom")
    assert order.version == 1
    assert len(order.pull_events()) == 1
    order.cancel()
    assert order.status == "cancelled"


def test_an_invariant_that_does_not_hold_keeps_the_event_out() -> None:
    """`_check_invariants` runs after the handler and before buffering, for `add_event` too."""

    class Limited(Counter):
        def _check_invariants(self) -> None:
            if self.count > 2:
                raise ValueError("too many")

    limited = Limited(id="l")
    limited.add(2)
    with pytest.raises(ValueError, match="too many"):
        limited.add(1)
    assert limited.version == 1
    with pytest.raises(ValueError, match="too many"):
        limited.add_event(ItemAdded(sku="x"))
    assert len(limited.pull_events()) == 1


def test_a_handler_must_not_apply_events() -> None:
    """It would emit again on every replay."""

    class Chatty(AggregateRoot):
        def _handle_item_added(self, event: ItemAdded) -> None:
            self._apply(ItemAdded(sku="y"))

    with pytest.raises(EventValidationError, match="must not apply"):
        Chatty(id="c")._apply(ItemAdded(sku="x"))


def test_only_events_can_be_applied_or_added() -> None:
    """Anything else is refused with the field."""
    order = Order(id="o")
    for call in (order._apply, order.add_event):
        with pytest.raises(EventValidationError) as caught:
            call("no event")  # type: ignore[operator]
        assert caught.value.field == "event"
    assert order.version == 0


def test_a_coroutine_handler_is_refused() -> None:
    """A handler that waits would never run."""

    class Waiting(AggregateRoot):
        async def _handle_item_added(self, event: ItemAdded) -> None: ...

    with pytest.raises(EventValidationError, match="coroutine"):
        Waiting(id="w")._apply(ItemAdded(sku="x"))


def test_event_and_short_name_have_the_same_handler() -> None:
    """`ItemAddedEvent` and `ItemAdded` are both `_handle_item_added`; the long name works as well."""
    assert handler_names("ItemAdded") == ("_handle_item_added",)
    assert handler_names("ItemAddedEvent") == ("_handle_item_added", "_handle_item_added_event")
    assert handler_names("Event") == ("_handle_event",)

    class Longhand(AggregateRoot):
        seen: int = 0

        def _handle_order_shipped_event(self, event: object) -> None:
            self.seen += 1

    from tests.unit.aggregates.domain import OrderShippedEvent

    longhand = Longhand(id="l")
    longhand._apply(OrderShippedEvent(at=datetime.now(UTC)))
    assert longhand.seen == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ItemAdded", "item_added"),
        ("HTTPCallFailed", "http_call_failed"),
        ("Order2Placed", "order2_placed"),
        ("A", "a"),
        ("order.item-added", "order.item_added"),
        ("already_snake", "already_snake"),
    ],
)
def test_snake_case(name: str, expected: str) -> None:
    """Words and acronyms are split the way people write them."""
    assert snake_case(name) == expected


def test_an_event_is_handled_by_the_handler_of_its_base() -> None:
    """A more specific event without a handler of its own goes to the nearest base class that has one."""

    class ItemAddedTwice(ItemAdded):
        pass

    counter = Counter(id="c")
    counter._apply(ItemAddedTwice(sku="x", quantity=5))
    assert counter.count == 5


def test_ad_hoc_events_are_told_apart_by_their_event_type() -> None:
    """`Event(event_type=...)` has no class of its own."""

    class Adhoc(AggregateRoot):
        log: list[str] = []

        def _handle_opened(self, event: Event) -> None:
            self.log.append("opened")

        def _handle_item_added(self, event: Event) -> None:
            self.log.append("added")

    adhoc = Adhoc(id="a")
    adhoc._apply(Event(event_type="Opened"))
    adhoc._apply(Event(event_type="order.item_added", sku="x"))
    assert adhoc.log == ["opened", "added"]
    with pytest.raises(HandlerNotFoundError, match="_handle_closed"):
        adhoc._apply(Event(event_type="Closed"))


def test_subclasses_override_handlers() -> None:
    """Each class has its own table; a parent's cached handler is not used for the child."""

    class Double(Counter):
        def _handle_item_added(self, event: ItemAdded) -> None:
            self.count += 2 * event.quantity

    single, double = Counter(id="s"), Double(id="d")
    single.add(), double.add(), single.add()
    assert (single.count, double.count) == (2, 2)


def test_static_and_partial_handlers_work() -> None:
    """Whatever Python can call under the handler's name is called."""
    from functools import partialmethod

    seen: list[object] = []

    class Odd(AggregateRoot):
        def _note(self, word: str, event: object) -> None:
            seen.append(word)

        _handle_item_added = partialmethod(_note, "partial")

        @staticmethod
        def _handle_unheard(event: object) -> None:
            seen.append("static")

    odd = Odd(id="o")
    odd._apply(ItemAdded(sku="x"))
    odd._apply(Unheard())
    assert seen == ["partial", "static"]


def test_handlers_are_resolved_once_per_class() -> None:
    """After the first event of a type, no name is looked up any more."""
    lookups: list[str] = []

    class Watched(type(Counter)):  # type: ignore[misc]
        def __getattribute__(cls, name: str) -> object:
            if name.startswith("_handle_item"):
                lookups.append(name)
            return super().__getattribute__(name)

    class Loud(Counter, metaclass=Watched):
        pass

    for number in range(5):
        Loud(id=str(number)).add()
    assert len(lookups) <= 2


def test_a_traceback_through_apply_is_short() -> None:
    """From the command method to the handler there is one frame of ours."""
    depth = 0

    class Deep(AggregateRoot):
        def command(self) -> None:
            self._apply(ItemAdded(sku="x"))

        def _handle_item_added(self, event: ItemAdded) -> None:
            nonlocal depth
            frame = sys._getframe()
            while frame.f_code.co_name != "command":
                depth += 1
                assert frame.f_back is not None
                frame = frame.f_back

    Deep(id="d").command()
    assert depth == 2


def test_pending_events_by_all_their_names() -> None:
    """`pull_events` and `get_pending_events` copy, `collect_events` empties, both `clear…` empty; the version stays."""
    counter = Counter(id="c")
    counter.add()
    pulled = counter.pull_events()
    pulled.clear()
    assert counter.get_pending_events()
    assert len(counter.collect_events()) == 1
    assert (counter.pull_events(), counter.version, counter.has_uncommitted_events) == ([], 1, False)
    counter.add()
    counter.clear_events()
    counter.add()
    counter.clear_pending_events()
    assert (counter.version, counter.expected_version, counter.pull_events()) == (3, 3, [])


def test_added_events_are_buffered_without_a_handler() -> None:
    """`add_event` is the framework's way: the caller has changed the state itself."""
    counter = Counter(id="c")
    counter.count = 7
    counter.add_event(Unheard())
    (event,) = counter.pull_events()
    assert (counter.count, counter.version, event.aggregate_id) == (7, 1, "c")


def test_the_expected_version_follows_what_was_saved() -> None:
    """Pending events do not count; what the caller asked for does."""
    versioned = type("Versioned", (VersionedAggregateRoot,), {"allow_unhandled_events": True})(id="v")
    versioned._apply(Unheard())
    assert (versioned.version, versioned.expected_version) == (1, 0)
    versioned.set_expected_version(4)
    assert versioned.expected_version == 4
    versioned.clear_events()
    assert versioned.expected_version == 1
    for bad in (-1, 1.0, True, "1"):
        with pytest.raises(EventValidationError):
            versioned.set_expected_version(bad)


def test_aggregates_are_the_frameworks() -> None:
    """The class and protocol of the framework hold."""
    assert issubclass(Order, FrameworkAggregateRoot)
    assert isinstance(Order(), AggregateRootProtocol)
    assert isinstance(Order().id, UUID)
    assert Order().id.version == 7


def test_equality_is_by_id() -> None:
    """Two aggregates of a class with the same id are equal, whatever their state."""
    one, other = Order(id="o"), Order(id="o", status="shipped")
    assert one == other
    assert hash(one) == hash(other)
    assert one != Order(id="p")
    assert repr(one) == "Order(id=o, version=0)"


class Stamped(DomainEvent):
    """An event that a store stamped already."""


def test_applying_does_not_change_the_number_of_an_event() -> None:
    """Versions are the store's to give."""

    class Any_(AggregateRoot):
        allow_unhandled_events = True

    event = Stamped()
    Any_(id="a")._apply(event)
    assert event.sequence_number is None
    assert event.version == 0
