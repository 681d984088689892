"""What one event does to one event-driven saga: begin it, change it, dispatch its commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import SagaError
from lexigram.events.messages.context import message_context
from lexigram.events.projections.base import settled
from lexigram.events.sagas.base import SagaBase
from lexigram.events.sagas.executor import end
from lexigram.events.sagas.journal import SagaJournal
from lexigram.events.sagas.types import SagaRecord, SagaStatus

if TYPE_CHECKING:
    from lexigram.events.sagas.manager import SagaManager


class ProcessStep:
    """Delivers events to the sagas of one class.

    The saga's new state, the note that the event was handled and everything its commands append commit together where
    sagas and events share a database; elsewhere a crash in between repeats the event.
    """

    def __init__(self, manager: SagaManager, saga_class: type[SagaBase], bus: Any | None) -> None:
        self._manager = manager
        self._class = saga_class
        self._bus = bus

    async def deliver(self, event: Any, *, starts: bool) -> str | None:
        """Let the saga of the event's correlation key handle it; return its id if it has steps to run now."""
        manager = self._manager
        definition = manager._definition(self._class.saga_name())
        saga: SagaBase = await settled(definition.make())
        key = saga.correlation_key(event)
        if key is None:
            return None
        saga_id = f"{definition.name}:{key}"
        async with manager.turn(saga_id):
            record = await manager.store.load(saga_id)
            if record is None:
                if not starts:
                    return None
                data = saga.start_data(event)
                metadata = {"started_by": str(event.event_id)}
                record = manager._new_record(definition, data, saga_id, metadata)
                record.correlation_key = key
            elif str(event.event_id) in record.handled:
                return saga_id if definition.steps and record.status.is_unfinished else None
            elif record.status.is_terminal:
                return None
            return await self._handle(saga, record, event, has_steps=bool(definition.steps))

    async def _handle(self, saga: SagaBase, record: SagaRecord, event: Any, *, has_steps: bool) -> str | None:
        journal = SagaJournal(self._manager.store, record, self._manager._transactions)
        fresh = record.version == 0
        async with journal.changing(atomic=True) as draft:
            draft.handled.append(str(event.event_id))
            if type(saga).handle is not SagaBase.handle:
                with message_context(event):
                    await self._react(saga, draft, event)
            if draft.metadata.pop("outcome", None) == "completed":
                end(draft, SagaStatus.COMPLETED)
            elif not fresh or not has_steps:
                draft.status = SagaStatus.RUNNING
        return record.saga_id if has_steps and not journal.record.status.is_terminal else None

    async def _react(self, saga: SagaBase, draft: SagaRecord, event: Any) -> None:
        saga.context = self._manager.context_of(draft)
        commands = await settled(saga.handle(event))
        for command in commands or ():
            if self._bus is None:
                raise SagaError(
                    f"{type(saga).__name__}.handle returned a command; pass command_bus=… to the SagaManager"
                )
            await self._bus.dispatch(command)
