"""Stamping: which events a store may mark in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import DomainEvent, EventValidationError
from lexigram.events.messages.stamping import prepare, rebuild, stamp


class Ours(DomainEvent):
    a: int = 1


@dataclass(frozen=True, init=False)
class Theirs(ContractEvent):
    a: int = 1


class Plain(ContractEvent):
    pass


class Claimed(DomainEvent):
    version: str


def test_a_fresh_event_of_ours_is_stamped_in_place() -> None:
    """prepare gives the event itself; stamp writes version and position."""
    event = Ours()
    assert prepare(event) is event
    stamp(event, 3, 17)
    assert (event.version, event.sequence_number) == (3, 17)


def test_a_version_alone_does_not_make_an_event_stamped() -> None:
    """Aggregates number their pending events before a store sees them."""
    event = Ours().with_version(4)
    assert prepare(event) is event


def test_a_stamped_event_is_copied() -> None:
    """The first one keeps its numbers."""
    event = Ours(a=5)
    stamp(event, 1, 1)
    copy = prepare(event)
    assert copy is not event
    assert copy.sequence_number is None
    stamp(copy, 2, 9)
    assert (event.version, event.sequence_number, copy.version, copy.sequence_number) == (1, 1, 2, 9)
    assert copy == event


@pytest.mark.parametrize("event", [ContractEvent(actor_id="me"), Theirs(a=7), Plain(extra=[1])])
def test_events_of_the_contract_become_stamped_copies(event: Any) -> None:
    """Class and attributes stay, the original is untouched."""
    copy = prepare(event)
    stamp(copy, 2, 5)
    assert copy is not event
    assert type(copy) is type(event)
    assert (copy.version, copy.sequence_number) == (2, 5)
    assert event.sequence_number is None
    assert not hasattr(event, "version")
    untouched = {**vars(event), "sequence_number": None}
    assert {name: value for name, value in vars(copy).items() if name != "version"} == {
        **untouched,
        "sequence_number": 5,
    }


def test_a_users_version_field_is_not_overwritten() -> None:
    """The stream version is kept beside it."""
    event = Claimed(version="1.2")
    stamp(event, 4, 8)
    assert (event.version, event.sequence_number) == ("1.2", 8)


@pytest.mark.parametrize("value", [None, 5, "event", {}, Ours, object()])
def test_what_is_not_an_event_is_refused(value: Any) -> None:
    """One clear error."""
    with pytest.raises(EventValidationError, match="domain events"):
        prepare(value)


def test_impossible_numbers_are_refused() -> None:
    """Nothing is written then."""
    event = Ours()
    with pytest.raises(OverflowError):
        stamp(event, -1, 1)
    with pytest.raises(OverflowError):
        stamp(event, 1, 2**70)
    assert (event.version, event.sequence_number) == (0, None)


def test_rebuild_makes_an_event_without_its_init() -> None:
    """Fields and metadata by name, other attributes in the last argument; defaults fill the rest."""

    class Loud(DomainEvent):
        a: int
        b: int = 2

        def __init__(self, **values: Any) -> None:
            raise AssertionError

        def __post_init__(self) -> None:
            raise AssertionError

    event = rebuild(Loud, {"a": 1, "version": 3, "tags": ("t",), "event_type": "x"}, {"note": 5})
    assert (event.a, event.b, event.version, event.tags, event.event_type) == (1, 2, 3, ("t",), "x")
    assert event.note == 5  # type: ignore[attr-defined]
    assert event.event_id.version == 7
