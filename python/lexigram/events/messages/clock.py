"""The clock and the id source of messages, and how tests stop them. Both hold for the whole process."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from lexigram.events import _core


def now() -> datetime:
    """Return the present time as new messages see it: timezone-aware, UTC, microseconds."""
    moment: datetime = _core.now()
    return moment


def freeze_clock(moment: datetime | None) -> None:
    """Let every new message (and `now`) be at this moment; None lets time run again. For tests."""
    _core.freeze_clock(moment)


def number_ids(first: int | None = 1) -> None:
    """Let ids of new messages count up from `first`: `00000000-0000-7000-8000-000000000001`; None ends it. For tests."""
    _core.number_ids(first)


def numbered_id(number: int) -> UUID:
    """Return the id that `number_ids` gives to the message with this number."""
    return UUID(f"00000000-0000-7000-8000-{number:012x}")


def next_id_number() -> int | None:
    """Return the number that the next id gets; None while ids are not counted."""
    number: int | None = _core.next_id_number()
    return number
