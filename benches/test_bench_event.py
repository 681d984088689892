"""Constructing and copying messages; run with `pytest benches/test_bench_event.py`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from lexigram.contracts.events.messages import MessageMetadata
from lexigram.events import Command, DomainEvent, message_context


class ItemAdded(DomainEvent):
    order_id: str
    sku: str
    quantity: int
    price: Decimal
    note: str = ""


class AddItem(Command[None]):
    order_id: str
    sku: str
    quantity: int
    price: Decimal
    note: str = ""


PRICE = Decimal("19.90")
CORRELATION = uuid4()


def event() -> ItemAdded:
    return ItemAdded(order_id="order-123", sku="SKU-9", quantity=3, price=PRICE)


def command() -> AddItem:
    return AddItem(order_id="order-123", sku="SKU-9", quantity=3, price=PRICE)


def addressed_event() -> ItemAdded:
    return ItemAdded(
        order_id="order-123", sku="SKU-9", quantity=3, price=PRICE,
        aggregate_id="order-123", aggregate_type="Order", correlation_id=CORRELATION,
    )  # fmt: skip


@pytest.mark.parametrize("make", [event, command, addressed_event], ids=lambda make: make.__name__)
def test_construct(benchmark: Any, make: Any) -> None:
    """Five fields, id and time; with inline metadata."""
    assert benchmark(make).quantity == 3


def test_construct_while_a_command_is_handled(benchmark: Any) -> None:
    """The same, inheriting correlation, causation, user and tenant."""
    handled = AddItem(
        order_id="o", sku="s", quantity=1, price=PRICE, metadata=MessageMetadata(user_id="u", tenant_id="t")
    )
    with message_context(handled):
        assert benchmark(event).causation_id == handled.id


def test_read_a_field(benchmark: Any) -> None:
    """Attribute access."""
    made = event()
    assert benchmark(lambda: made.quantity) == 3


def test_copy_with_a_version(benchmark: Any) -> None:
    """A copy with one value changed."""
    assert benchmark(event().with_version, 7).version == 7


def test_compare(benchmark: Any) -> None:
    """Two equal events."""
    made = event()
    assert benchmark(made.__eq__, made.with_version(1)) is True
