"""A clock that stands still and ids that count up, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from lexigram.events.messages.clock import freeze_clock, next_id_number, number_ids, numbered_id

DEFAULT_MOMENT = datetime(2026, 1, 1, 12, tzinfo=UTC)


class FrozenClock:
    """Stops the clock of all new messages in this process until `release`.

    Args:
        moment: Where time stands still; without a time zone it is UTC. Default: noon of the first day of 2026.
    """

    def __init__(self, moment: datetime = DEFAULT_MOMENT) -> None:
        self.move_to(moment)

    @property
    def now(self) -> datetime:
        """The moment, timezone-aware, UTC."""
        return self._now

    def move_to(self, moment: datetime) -> None:
        """Put the clock to another moment, earlier or later."""
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        self._now = aware.astimezone(UTC)
        freeze_clock(self._now)

    def advance(self, by: timedelta | float) -> datetime:
        """Put the clock forward by a duration (or seconds) and return the new moment."""
        self.move_to(self._now + (by if isinstance(by, timedelta) else timedelta(seconds=by)))
        return self._now

    def release(self) -> None:
        """Let time run again."""
        freeze_clock(None)


class RecordedIds:
    """Ids of new messages and aggregates count up from 1 until `release`, and are listed here in order."""

    def __init__(self) -> None:
        self._last: int | None = None
        number_ids(1)

    def __len__(self) -> int:
        return (next_id_number() or 1) - 1 if self._last is None else self._last

    def __iter__(self) -> Iterator[UUID]:
        return (numbered_id(number) for number in range(1, len(self) + 1))

    def __getitem__(self, index: int) -> UUID:
        return list(self)[index]

    @property
    def next(self) -> UUID:
        """The id that the next message or aggregate gets."""
        return numbered_id(len(self) + 1)

    def release(self) -> None:
        """Make ids random again; the list stays."""
        self._last = len(self)
        number_ids(None)
