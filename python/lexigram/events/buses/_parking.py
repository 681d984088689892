"""Which lanes are parked behind dead letters, and how dead letters get into their store."""

from __future__ import annotations

import logging

from lexigram.contracts.domain.events import DomainEvent
from lexigram.events.buses.dead_letter import DeadLetterEntry, DeadLetterStore, Lane
from lexigram.events.buses.dead_letter_entry import lane_of
from lexigram.events.exceptions import SerializationError

_log = logging.getLogger(__name__)


class Parking:
    """The bus's side of the dead letters.

    `lanes` are those known to be parked; one that was replayed meanwhile is noticed at its next event.
    `unsaved` are dead letters that the store did not take; they are stored with the next one, or at close.
    """

    def __init__(self, store: DeadLetterStore | None) -> None:
        self.store = store
        self.lanes: set[Lane] = set()
        self.unsaved: list[DeadLetterEntry] = []
        self.known = store is None

    def blocks(self, event: DomainEvent, handler_name: str) -> bool:
        """Return whether the handler probably must not see the event yet."""
        return event.aggregate_id is not None and lane_of(event, handler_name) in self.lanes

    async def read(self) -> None:
        """Learn which lanes were parked before this bus existed."""
        try:
            if self.store is not None:
                self.lanes.update(await self.store.pending_lanes())
            self.known = True
        except Exception as error:
            _log.error("parked lanes cannot be read, order behind earlier dead letters is not kept: %s", error)

    async def park(self, event: DomainEvent, handler_name: str) -> bool:
        """Park the event behind its lane; return False if nothing is left there by now."""
        lane, store = lane_of(event, handler_name), self.store
        if store is None or lane is None:
            return False
        async with store.holding(lane):
            parked = any(entry.lane == lane for entry in self.unsaved) or await store.is_parked(lane)
            if parked:
                self.unsaved.append(DeadLetterEntry.of(event, handler_name))
                await self.store_unsaved()
            else:
                self.lanes.discard(lane)
        return parked

    async def save(self, entry: DeadLetterEntry) -> bool:
        """Store a dead letter and park its lane; return whether the store has taken it."""
        store, lane = self.store, entry.lane
        if store is None:
            return False
        self.unsaved.append(entry)
        if lane is None:
            await self.store_unsaved()
        else:
            self.lanes.add(lane)
            async with store.holding(lane):
                await self.store_unsaved()
        return entry not in self.unsaved

    async def store_unsaved(self) -> None:
        """Store what is not stored yet, oldest first; a failure is logged and leaves it for later."""
        while self.unsaved and self.store is not None:
            entry = self.unsaved[0]
            try:
                await _save(self.store, entry)
            except Exception as error:
                _log.error("dead letter of %s for %s is not stored: %s", entry.event_type, entry.handler_name, error)
                return
            if self.unsaved and self.unsaved[0] is entry:
                del self.unsaved[0]


async def _save(store: DeadLetterStore, entry: DeadLetterEntry) -> None:
    """Store a dead letter; without its event where that cannot be stored, so that it never holds up the others."""
    try:
        await store.save(entry)
    except SerializationError as error:
        _log.error(
            "dead letter of %s for %s is stored without its event: %s", entry.event_type, entry.handler_name, error
        )
        await store.save(entry.without_event())
