"""What one event does to one event-driven saga: begin it, change it, dispatch its commands."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from lexigram.events.exceptions import SagaError
from lexigram.events.messages.context import message_context
from lexigram.events.projections.base import settled
from lexigram.events.sagas.base import SagaBase
from lexigram.events.sagas.journal import SagaJournal
from lexigram.events.sagas.reactions import note_reaction
from lexigram.events.sagas.types import SagaRecord, SagaStatus

if TYPE_CHECKING:
    from lexigram.events.sagas.manager import SagaManager

_ATTEMPTS = 10


class Place(NamedTuple):
    """Where an event comes from that a follower hands in.

    Args:
        follower: Its name.
        position: Of the event in its log; every earlier one that concerns sagas was handed in before. 0 = it was parked.
        is_exact: Whether the position alone tells for ever that it was handled; else its id is kept as well.
    """

    follower: str
    position: int
    is_exact: bool = True


LATE = Place("", 0)
"""An event that was parked when its turn came: earlier than what the sagas have handled since."""


class ProcessStep:
    """Delivers events to the sagas of one class.

    The saga's new state, the note that the event was handled and the commands to dispatch are stored as one record, and
    commit with the checkpoint of the follower where sagas and events share a database.
    """

    def __init__(self, manager: SagaManager, saga_class: type[SagaBase], bus: Any | None) -> None:
        self._manager = manager
        self._class = saga_class
        self._bus = bus

    async def deliver(self, event: Any, *, starts: bool, place: Place | None = None) -> str | None:
        """Let the saga of the event's correlation key handle it; return its id if it has steps or commands to run now."""
        manager = self._manager
        definition = manager._definition(self._class.saga_name())
        saga: SagaBase = await settled(definition.make())
        key = saga.correlation_key(event)
        if key is None:
            return None
        saga_id = f"{definition.name}:{key}"
        async with manager.turn(saga_id):
            for _ in range(_ATTEMPTS):
                record = await manager.store.load(saga_id)
                if record is None:
                    if not starts:
                        return None
                    record = manager._new_record(
                        definition, saga.start_data(event), saga_id, {"started_by": str(event.event_id)}
                    )
                    record.correlation_key = key
                elif await self._was_handled(record, event, place):
                    await self._keep_position(record, event, place)
                    return None if record.waits_for_events or not record.status.is_unfinished else saga_id
                elif record.status.is_terminal or record.ending is not None:
                    return None
                journal = SagaJournal(manager.store, record, manager._transactions)
                try:
                    await self._handle(saga, journal, event, place, has_steps=bool(definition.steps))
                except SagaError:
                    if not journal.taken_over:
                        raise  # otherwise its timer, or another process, came first: once more
                else:
                    return self._next(journal.record)
        raise SagaError(f"Saga {saga_id!r} is changed again and again by others; {event.event_id} was not handled")

    def _next(self, record: SagaRecord) -> str | None:
        """Return the id if there is something to run; otherwise see that timers and deadline are noticed."""
        if not record.status.is_unfinished:
            return None
        if record.waits_for_events:
            self._manager.go_on(record)
            return None
        return record.saga_id

    async def _was_handled(self, record: SagaRecord, event: Any, place: Place | None) -> bool:
        if str(event.event_id) in record.handled:
            return True
        if place is not None:
            return 0 < place.position <= record.positions.get(place.follower, 0)
        number = getattr(event, "sequence_number", None)
        if number is None or number > max(record.positions.values(), default=0):
            return False
        read = getattr(self._manager._log, "read_all", None)  # or is it a position of another log?
        return read is not None and [found.event_id for found in await read(number - 1, 1)] == [event.event_id]

    async def _keep_position(self, record: SagaRecord, event: Any, place: Place | None) -> None:
        """Forget the id of an event that a follower hands in: from now on the position tells."""
        if place is not None and place.position and place.is_exact and str(event.event_id) in record.handled:
            journal = SagaJournal(self._manager.store, record, self._manager._transactions)
            with suppress(SagaError):  # it was changed meanwhile; the id is as good
                async with journal.changing() as draft:
                    _note(draft, event, place)

    async def _handle(
        self, saga: SagaBase, journal: SagaJournal, event: Any, place: Place | None, *, has_steps: bool
    ) -> None:
        fresh = journal.record.version == 0
        async with journal.changing(atomic=True) as draft:
            _note(draft, event, place)
            commands = None
            if type(saga).handle is not SagaBase.handle:
                saga.context = self._manager.context_of(draft)
                with message_context(event):
                    commands = await settled(saga.handle(event))
            if draft.status.is_forward and (not fresh or not has_steps):
                draft.status = SagaStatus.RUNNING
            note_reaction(draft, commands)
            if draft.pending and self._bus is None:
                raise SagaError(
                    f"{type(saga).__name__}.handle returned a command; pass command_bus=… to the SagaManager"
                )


def _note(draft: SagaRecord, event: Any, place: Place | None) -> None:
    """Note that the saga handles the event now; of what a follower hands in the position is enough."""
    name = str(event.event_id)
    if place is not None and place.position:
        draft.positions[place.follower] = max(place.position, draft.positions.get(place.follower, 0))
        if place.is_exact:
            if name in draft.handled:
                draft.handled.remove(name)
            return
    if name not in draft.handled:
        draft.handled.append(name)
