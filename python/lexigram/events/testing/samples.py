"""Events and helpers that the contract suites use."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.event import DomainEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable


class SuiteItemAdded(DomainEvent):
    """The usual event of the suites."""

    sku: str
    quantity: int = 1


class SuiteGiftAdded(SuiteItemAdded):
    """A subclass, selected together with its base."""

    price: Decimal = Decimal("0.00")


class SuiteItemRemoved(DomainEvent):
    """Another type."""

    sku: str


@dataclasses.dataclass(init=False, frozen=True)
class SuiteForeignEvent(ContractEvent):
    """An event of the framework's own class, not of ours."""

    note: str = ""


# The classes' own names are long, so that selecting by class name is not ambiguous where a program has an `ItemAdded`.
ItemAdded = SuiteItemAdded
GiftAdded = SuiteGiftAdded
ItemRemoved = SuiteItemRemoved
ForeignEvent = SuiteForeignEvent


def added(*skus: str, tags: Iterable[str] = ()) -> list[Any]:
    """Return fresh `ItemAdded` events, one for each sku."""
    return [ItemAdded(sku=sku, tags=tuple(tags)) for sku in skus]


def skus(events: Iterable[Any]) -> list[str]:
    """Return what tells the events of the suites apart."""
    return [event.sku for event in events]


def versions(events: Iterable[Any]) -> list[int]:
    """Return the versions of events."""
    return [event.version for event in events]


def positions(events: Iterable[Any]) -> list[int]:
    """Return the global positions of events."""
    return [event.sequence_number for event in events]


async def collect(stream: AsyncIterator[Any]) -> list[Any]:
    """Return everything an async iterator yields."""
    return [item async for item in stream]


async def refuses(call: Awaitable[Any], field: str) -> None:
    """Assert that a call is refused with an error that names the field."""
    with pytest.raises(EventValidationError) as caught:
        await call
    assert caught.value.field is not None, "the error names no field"
    assert caught.value.field.startswith(field)
    assert isinstance(caught.value, ValueError)
