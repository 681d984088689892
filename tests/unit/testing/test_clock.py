"""Stopping the clock and counting ids."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from lexigram.events import Command
from lexigram.events.messages.clock import freeze_clock, next_id_number, now, number_ids, numbered_id
from tests.unit.aggregates.domain import Counter, Unheard

MOMENT = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


class DoIt(Command[None]):
    """A command."""


@pytest.fixture(autouse=True)
def running() -> Iterator[None]:
    """Time and ids are as usual afterwards."""
    yield
    freeze_clock(None)
    number_ids(None)


def test_a_frozen_clock_stands_still_for_all_messages() -> None:
    """Events, commands and `now` see the same moment until it is released."""
    freeze_clock(MOMENT)
    assert (Unheard().occurred_at, DoIt().timestamp, now()) == (MOMENT, MOMENT, MOMENT)
    freeze_clock(MOMENT.astimezone(timezone(timedelta(hours=3))) + timedelta(seconds=1))
    assert Unheard().occurred_at == MOMENT + timedelta(seconds=1)
    freeze_clock(None)
    assert abs(datetime.now(UTC) - now()) < timedelta(seconds=5)
    assert Unheard().occurred_at > MOMENT


def test_counted_ids_are_the_same_in_every_run() -> None:
    """Events, commands and aggregates take the next number; afterwards ids are random again."""
    number_ids(1)
    assert [Unheard().event_id, DoIt().id, Counter().id] == [numbered_id(1), numbered_id(2), numbered_id(3)]
    assert str(numbered_id(255)) == "00000000-0000-7000-8000-0000000000ff"
    assert numbered_id(1).version == 7
    assert next_id_number() == 4
    number_ids(None)
    assert next_id_number() is None
    assert Unheard().event_id != numbered_id(4)
