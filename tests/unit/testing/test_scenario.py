"""The scenario fails exactly when it should."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Generic, TypeVar
from uuid import uuid4

import pytest

from lexigram.events import AggregateRoot, Event, EventLoadError
from lexigram.events.testing.scenario import Scenario
from tests.unit.aggregates.domain import Counter, ItemAdded, Order, OrderCancelled, OrderShippedEvent, Unheard

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_the_events_that_come_out_are_compared_by_value() -> None:
    """Ids, times and metadata of the events do not matter."""
    scenario = Scenario(Order, "o-1")
    scenario.given(ItemAdded(sku="a"), ItemAdded(sku="b")).when(lambda order: order.ship(NOON)).then(
        OrderShippedEvent(at=NOON, correlation_id=uuid4())
    )
    assert scenario.aggregate.status == "shipped"
    assert scenario.aggregate.id == "o-1"


def test_lists_of_events_are_accepted() -> None:
    """Both spellings of given and then."""
    added = [ItemAdded(sku="a")]
    Scenario(Order).given(added).when(lambda order: order.add("a")).then([ItemAdded(sku="a")])


@pytest.mark.parametrize(
    "expected",
    [
        [],
        [ItemAdded(sku="b")],
        [ItemAdded(sku="a", quantity=2)],
        [ItemAdded(sku="a"), ItemAdded(sku="a")],
        [Unheard()],
    ],
)
def test_other_events_fail(expected: list[object]) -> None:
    """Another field, another class, another number: the message shows both lists."""
    scenario = Scenario(Order).when(lambda order: order.add("a"))
    with pytest.raises(AssertionError, match=r"actual events:\n  ItemAdded\(sku='a', quantity=1"):
        scenario.then(expected)


def test_no_events_expected() -> None:
    """`then()` alone says that nothing happened."""
    Scenario(Order).when(lambda order: order.status).then().then_returns("draft")
    with pytest.raises(AssertionError, match="expected the result"):
        Scenario(Order).when(lambda order: order.status).then_returns("other")


def test_expected_errors() -> None:
    """Type and message are checked, and that no event came out."""
    scenario = Scenario(Order).given(OrderCancelled())
    scenario.when(lambda order: order.add("a")).then_raises(ValueError, match="not a draft")
    with pytest.raises(AssertionError, match="got ValueError"):
        scenario.when(lambda order: order.add("a")).then_raises(KeyError)
    with pytest.raises(AssertionError, match="matching 'xyz'"):
        scenario.when(lambda order: order.add("a")).then_raises(ValueError, match="xyz")
    with pytest.raises(AssertionError, match="nothing was raised"):
        scenario.when(lambda order: None).then_raises(ValueError)

    def half(counter: Counter) -> None:
        counter.add()
        raise ValueError("late")

    with pytest.raises(AssertionError, match="after events"):
        Scenario(Counter).when(half).then_raises(ValueError)


def test_unexpected_errors_come_through() -> None:
    """A raising action is not taken for one without events, whatever step follows."""
    for step in ("then", "then_returns", "then_state", "when"):
        scenario = Scenario(Order).given(OrderCancelled()).when(lambda order: order.add("a"))
        with pytest.raises(ValueError, match="not a draft"):
            {
                "then": lambda s=scenario: s.then(),
                "then_returns": lambda s=scenario: s.then_returns(None),
                "then_state": lambda s=scenario: s.then_state(),
                "when": lambda s=scenario: s.when(lambda order: None),
            }[step]()


def test_state_can_be_checked() -> None:
    """Attributes by keyword."""
    scenario = Scenario(Order).when(lambda order: order.add("a", price=Decimal(2)))
    scenario.then_state(total=Decimal("2.00"), status="draft")
    with pytest.raises(AssertionError, match=r"Order\.status is 'draft'"):
        scenario.then_state(status="shipped")
    with pytest.raises(AssertionError, match="is missing"):
        scenario.then_state(nonsense=1)


def test_steps_can_follow_each_other() -> None:
    """Each `when` starts with what the one before left."""
    Scenario(Counter).when(lambda c: c.add(2)).then(ItemAdded(sku="x", quantity=2)).when(lambda c: c.add(3)).then(
        ItemAdded(sku="x", quantity=3)
    ).then_state(count=5)


def test_factory_methods_are_actions() -> None:
    """An action that returns a new aggregate goes on with that one."""

    def opened(_: Counter) -> Counter:
        counter = Counter(id="fresh")
        counter.add()
        return counter

    scenario = Scenario(Counter).when(opened).then(ItemAdded(sku="x"))
    assert scenario.aggregate.id == "fresh"


def test_misuse_is_reported() -> None:
    """Forgetting `when`, giving what cannot be replayed, waiting."""
    with pytest.raises(AssertionError, match=r"call when\(\) first"):
        Scenario(Order).then()
    with pytest.raises(EventLoadError):
        Scenario(Order).given(Unheard())

    async def waiting(order: Order) -> None: ...

    with pytest.raises(TypeError, match="do not wait"):
        Scenario(Order).when(waiting)


def test_ad_hoc_events_are_compared_too() -> None:
    """By event type and keyword arguments."""

    class Adhoc(AggregateRoot):
        allow_unhandled_events = True

        def do(self, size: int) -> None:
            self._apply(Event(event_type="Done", size=size))

    Scenario(Adhoc).when(lambda a: a.do(1)).then(Event(event_type="Done", size=1))
    for other in (Event(event_type="Done", size=2), Event(event_type="Other", size=1)):
        with pytest.raises(AssertionError):
            Scenario(Adhoc).when(lambda a: a.do(1)).then(other)


@pytest.mark.parametrize("wrong", [5, None, ItemAdded, [ItemAdded]])
def test_what_is_no_event_is_told(wrong: object) -> None:
    """A class in the place of an event, say; it was an error about some attribute, or a comparison that failed oddly."""
    with pytest.raises(TypeError, match="events are given and expected"):
        Scenario(Order).given(wrong)
    with pytest.raises(TypeError, match="events are given and expected"):
        Scenario(Order).when(lambda order: None).then(wrong)


@pytest.mark.parametrize("wrong", [5, None, ItemAdded])
def test_a_scenario_is_about_an_aggregate(wrong: object) -> None:
    """Anything else is told at once."""
    with pytest.raises(TypeError, match="subclass of AggregateRoot"):
        Scenario(wrong)  # type: ignore[type-var, arg-type]


T = TypeVar("T")


class Box(AggregateRoot, Generic[T]):
    content: T | None = None

    def _handle_item_added(self, event: ItemAdded) -> None:
        self.content = event.sku  # type: ignore[assignment]


def test_a_scenario_of_a_generic_aggregate_names_what_it_is_of() -> None:
    """`Box[str]` is a Box, as it is for a repository."""
    Scenario(Box[str]).when(lambda box: box._apply(ItemAdded(sku="a"))).then(ItemAdded(sku="a")).then_state(content="a")
