"""What a unit of work without a transaction has appended so far, by event id: the same events again are a retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lexigram.events.stores._primitives import Appended, already_stored


class Place(NamedTuple):
    """Where an event of the unit will be stored.

    Args:
        version: Its version in the stream, provisional as long as the unit is open.
        append: The append it belongs to, as the unit keeps it.
        behind: How many events of the same append follow it.
    """

    stream_id: str
    version: int
    append: Any
    behind: int

    def shifted(self, last: Appended) -> Appended:
        """Return where it is stored, given where the last event of its append is."""
        return Appended(last.version - self.behind, last.position - self.behind)


class PendingEvents:
    """The events of one unit of work by id."""

    def __init__(self) -> None:
        self._places: dict[Any, Place] = {}

    def find(self, stream_id: str, ids: Sequence[Any]) -> Place | None:
        """Return the place of the last event if the unit has appended these already; None if it has none of them.

        Raises:
            EventPersistenceError: LEX_ERR_EVT_012; it has some of them, or elsewhere, or in another order.
        """
        found = [self._places[event_id] for event_id in ids if event_id in self._places]
        if not found:
            return None
        first = found[0].version
        wanted = [(stream_id, version) for version in range(first, first + len(ids))]
        if [(place.stream_id, place.version) for place in found] != wanted:
            raise already_stored(stream_id)
        return found[-1]

    def add(self, stream_id: str, ids: Sequence[Any], version: int, append: Any) -> None:
        """Note an append whose last event will have this version."""
        for behind, event_id in enumerate(reversed(ids)):
            self._places[event_id] = Place(stream_id, version - behind, append, behind)
