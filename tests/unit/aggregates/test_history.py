"""Replaying events and restoring snapshots."""

from __future__ import annotations

import copy
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import uuid4

import pytest

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import (
    AggregateRoot,
    EventLoadError,
    HandlerNotFoundError,
    SerializationError,
    Snapshot,
    UnknownEvent,
)
from lexigram.events.messages.event import DomainEvent
from tests.unit.aggregates.domain import (
    Address,
    Colour,
    Counter,
    ItemAdded,
    Money,
    Note,
    Order,
    OrderCancelled,
    Unheard,
)


def history(*events: DomainEvent, start: int = 0) -> list[DomainEvent]:
    """Number events the way a store does."""
    return [event.with_version(start + number) for number, event in enumerate(events, start=1)]


def test_history_sets_state_version_and_id() -> None:
    """An aggregate without history takes its id from the events; nothing is pending."""
    events = history(ItemAdded(sku="a", aggregate_id="o-9"), ItemAdded(sku="b", quantity=2, aggregate_id="o-9"))
    order = Order()
    order.load_from_history(events)
    assert (order.id, order.version, order.total) == ("o-9", 2, Decimal("3.00"))
    assert order.pull_events() == []
    assert order.expected_version == 2


def test_history_continues_where_the_aggregate_is() -> None:
    """Later events are added to what is there."""
    counter = Counter(id="c")
    counter.load_from_history(history(ItemAdded(sku="a"), ItemAdded(sku="a")))
    counter.load_from_history(history(ItemAdded(sku="a"), start=2))
    counter.load_from_history([])
    assert (counter.count, counter.version) == (3, 3)


def test_any_iterable_of_events_is_accepted() -> None:
    """Generators too, and events that no store has numbered."""
    counter = Counter(id="c")
    counter.load_from_history(ItemAdded(sku="a") for _ in range(3))
    assert counter.version == 3


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_failing_handler_names_the_event(bad: int) -> None:
    """Stream, version and event type are in the message and the details, the cause is chained."""
    events: list[DomainEvent] = [OrderCancelled(), OrderCancelled(), OrderCancelled()]
    events[bad] = OrderCancelled(reason="boom")
    order = Order(id="o-1")
    with pytest.raises(EventLoadError) as caught:
        order.load_from_history(history(*events))
    assert caught.value.details == {"stream_id": "o-1", "version": bad + 1, "event_type": "OrderCancelled"}
    assert "'o-1'" in caught.value.message
    assert f"version {bad + 1}" in caught.value.message
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_half_replayed_aggregate_is_never_visible() -> None:
    """After a failed replay the aggregate is empty."""
    order = Order(id="o-1")
    with pytest.raises(EventLoadError):
        order.load_from_history(history(ItemAdded(sku="a"), OrderCancelled(reason="boom")))
    assert (order.id, order.version, order.lines, order.total) == ("o-1", 0, [], Decimal("0.00"))
    order.load_from_history(history(ItemAdded(sku="a")))
    assert order.version == 1


def test_a_missing_handler_fails_the_replay() -> None:
    """Unless the class opted out."""
    with pytest.raises(EventLoadError, match="_handle_unheard") as caught:
        Order(id="o").load_from_history(history(Unheard()))
    assert isinstance(caught.value.__cause__, HandlerNotFoundError)

    class Quiet(AggregateRoot):
        allow_unhandled_events = True

    quiet = Quiet(id="q")
    quiet.load_from_history(history(Unheard(), Unheard()))
    assert quiet.version == 2


def test_unknown_events_fail_the_replay_even_where_unhandled_ones_are_allowed() -> None:
    """What cannot be understood is never skipped; the stored type is named."""

    class Quiet(AggregateRoot):
        allow_unhandled_events = True

    stranger = UnknownEvent(type_name="shop.Gone", payload=b"{}", event_type="Gone").with_version(1)
    with pytest.raises(EventLoadError, match="Gone") as caught:
        Quiet(id="q").load_from_history([stranger])
    assert caught.value.details["event_type"] == "Gone"


@pytest.mark.parametrize("versions", [(2, 3), (1, 3), (5,), (2, 2)])
def test_missing_events_are_noticed(versions: tuple[int, ...]) -> None:
    """A history that does not begin at the next version, or has a hole, is refused."""
    events = [ItemAdded(sku="a").with_version(version) for version in versions]
    counter = Counter(id="c")
    with pytest.raises(EventLoadError, match="does not continue"):
        counter.load_from_history(events)
    assert counter.version == 0


def test_contract_events_are_replayed() -> None:
    """The framework's own event class has no version and needs none."""
    from dataclasses import dataclass

    @dataclass(init=False, frozen=True)
    class ItemAdded(ContractEvent):
        quantity: int = 2

    counter = Counter(id="c")
    counter.load_from_history([ItemAdded(), ItemAdded()])
    assert (counter.count, counter.version) == (4, 2)


def test_replay_checks_no_invariants_and_emits_nothing() -> None:
    """What has happened has happened."""

    class Strict(Counter):
        def _check_invariants(self) -> None:
            raise ValueError("never")

    strict = Strict(id="s")
    strict.load_from_history(history(ItemAdded(sku="a")))
    assert (strict.count, strict.pull_events()) == (1, [])


def full_order() -> Order:
    order = Order(id=uuid4(), colour=Colour.BLUE, address=Address(street="Main", since=date(2024, 2, 29)))
    order.notes = (Note("first", uuid4()), Note("zweite ä", uuid4()))
    order.add("apple", 2, Decimal("1.10"))
    order.add("pear", 1, Decimal("0.001"))
    order.ship(datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC))
    return order


def test_a_snapshot_restores_every_type() -> None:
    """Decimal, datetime, enum, set, tuple, entity, value object, dataclass, pydantic model: equal and same class."""
    order = full_order()
    twin = Order(id="x")
    twin.load_from_snapshot(order.create_snapshot())
    state = {name: value for name, value in vars(order).items() if not name.startswith("_")}
    assert {name: value for name, value in vars(twin).items() if not name.startswith("_")} == state
    assert (twin.id, twin.version, twin.expected_version, twin.pull_events()) == (order.id, 3, 3, [])
    assert [type(line.price) for line in twin.lines] == [Money, Money]
    assert type(twin.total) is Decimal
    assert type(twin.notes[0]) is Note


def test_a_snapshot_is_plain_readable_data() -> None:
    """Its state is what JSON can hold, without type marks where the annotation says the type."""
    snapshot = full_order().create_snapshot()
    assert json.loads(json.dumps(snapshot.state)) == snapshot.state
    assert snapshot.state["total"] == "2.201"
    assert snapshot.state["lines"][0]["sku"] == "apple"
    assert "$type" not in json.dumps(snapshot.state)
    assert (snapshot.aggregate_type, snapshot.version) == ("Order", 3)
    assert "id" not in snapshot.state


def test_an_aggregate_as_a_dictionary_and_back() -> None:
    """`to_dict` has id, version and state; `from_snapshot` takes it, a `Snapshot`, or the state of one."""
    order = full_order()
    data = json.loads(json.dumps(order.to_dict()))
    assert (data["id"], data["version"], data["status"]) == (str(order.id), 3, "shipped")
    for source in (data, order.create_snapshot()):
        twin = Order.from_snapshot(source)
        assert (str(twin.id), twin.version, twin.lines, twin.total) == (str(order.id), 3, order.lines, order.total)
    bare = Order.from_snapshot(order.create_snapshot().state)
    assert (bare.version, bare.total) == (0, order.total)
    fresh = Order(id="f")
    fresh.load_from_snapshot(Snapshot("f", "Order", 7, order.to_dict()))
    assert (fresh.id, fresh.version, fresh.total) == ("f", 7, order.total)


def test_a_snapshot_is_independent_of_the_aggregate() -> None:
    """Neither later changes nor a restored twin reach into it."""
    order = full_order()
    snapshot = order.create_snapshot()
    before = copy.deepcopy(snapshot.state)
    order.add_event(Unheard())
    order.lines.clear()
    twin = Order(id="t")
    twin.load_from_snapshot(snapshot)
    twin.lines.clear()
    twin.labels.add("zzz")
    assert snapshot.state == before


def test_attributes_that_are_not_annotated_survive() -> None:
    """State kept in private or unannotated attributes is part of the snapshot, types included."""

    class Handmade(AggregateRoot):
        def __init__(self, id: object = None) -> None:
            super().__init__(id=id)
            self._balance = Decimal("1.5")
            self.seen = {uuid4()}

    made, twin = Handmade("h"), Handmade("h")
    twin.load_from_snapshot(made.create_snapshot())
    assert (twin._balance, twin.seen) == (made._balance, made.seen)


def test_state_that_cannot_be_encoded_is_named() -> None:
    """The error names the attribute."""
    order = Order(id="o")
    order.colour = object()  # type: ignore[assignment]
    with pytest.raises(SerializationError, match="colour"):
        order.create_snapshot()


def test_a_snapshot_that_does_not_fit_changes_nothing() -> None:
    """A broken state raises before anything is set."""
    order = full_order()
    snapshot = order.create_snapshot()
    snapshot.state["total"] = "no decimal"
    fresh = Order(id="f")
    with pytest.raises(SerializationError):
        fresh.load_from_snapshot(snapshot)
    assert (fresh.id, fresh.version, fresh.status) == ("f", 0, "draft")


def test_a_snapshot_of_another_class_is_refused() -> None:
    """Its fields would mean something else."""
    counter = Counter(id="c")
    with pytest.raises(EventLoadError, match="of a Order, not of a Counter"):
        counter.load_from_snapshot(full_order().create_snapshot())
    assert not hasattr(counter, "lines")


def test_fields_that_a_snapshot_does_not_have_keep_their_defaults() -> None:
    """A field added since does not need a new schema version."""
    snapshot = full_order().create_snapshot()
    del snapshot.state["labels"]
    order = Order(id="o")
    order.load_from_snapshot(snapshot)
    assert order.labels == set()
