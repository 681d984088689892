"""What one event does to one event-driven saga: begin it, change it, dispatch its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


class ProcessStep:
    """Delivers events to the sagas of one class.

    The saga's new state, the note that the event was handled and the commands to dispatch are stored as one record, and
    commit with the checkpoint of the follower where sagas and events share a database.
    """

    def __init__(self, manager: SagaManager, saga_class: type[SagaBase], bus: Any | None) -> None:
        self._manager = manager
        self._class = saga_class
        self._bus = bus

    async def deliver(self, event: Any, *, starts: bool) -> str | None:
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
                elif str(event.event_id) in record.handled:
                    return None if record.waits_for_events or not record.status.is_unfinished else saga_id
                elif record.status.is_terminal or record.ending is not None:
                    return None
                journal = SagaJournal(manager.store, record, manager._transactions)
                try:
                    await self._handle(saga, journal, event, has_steps=bool(definition.steps))
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

    async def _handle(self, saga: SagaBase, journal: SagaJournal, event: Any, *, has_steps: bool) -> None:
        fresh = journal.record.version == 0
        async with journal.changing(atomic=True) as draft:
            draft.handled.append(str(event.event_id))
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
