"""What an operator does with sagas: look, wait, retry, force, cancel, purge. Source: design, section sagas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from lexigram.events.exceptions import EventValidationError, SagaError
from lexigram.events.sagas.engine import SagaEngine
from lexigram.events.sagas.journal import SagaJournal
from lexigram.events.sagas.progress import end
from lexigram.events.sagas.types import TERMINAL, SagaRecord, SagaStatus, SagaStepStatus, check_readable, now
from lexigram.events.stores._validation import check_number


class SagaOperations(SagaEngine):
    """The engine with the operations that people and tools need."""

    # Looking

    async def get(self, saga_id: str) -> SagaRecord | None:
        """Return the saga as stored last, or None."""
        return await self.store.load(saga_id)

    async def list(
        self, saga_name: str | None = None, status: str | Iterable[str] | None = None, limit: int = 100
    ) -> list[SagaRecord]:
        """Return sagas, oldest first, of one kind or of all, in one state, some states or any.

        One of which this program cannot read everything is among them, with `record.unread` saying what; one of a kind
        that is not registered here as well (`record.saga_name not in sagas.saga_names`): it can be force-completed.

        Args:
            saga_name: The kind; None = all that are registered or stored.
            status: States, as `SagaStatus` or by their names.
            limit: How many at most, from 0.

        Raises:
            EventValidationError: LEX_ERR_EVT_024; there is no such state, or `limit` is negative.
        """
        names = {*self.saga_names, *await self.store.list_names()} if saga_name is None else {saga_name}
        wanted = SagaStatus if status is None else (status,) if isinstance(status, str) else status
        try:
            statuses = [SagaStatus(each) for each in wanted]
        except ValueError as error:
            raise EventValidationError(f"status: {error}; known: {', '.join(SagaStatus)}", field="status") from None
        return await self.store.list_by_status(statuses, names, check_number(limit, "limit"))

    async def wait_for(self, saga_id: str, timeout: float | None = None) -> SagaRecord:
        """Return the saga once it does not run in this process any more.

        Raises:
            TimeoutError: It still runs after `timeout` seconds.
            SagaError: LEX_ERR_EVT_026; there is no such saga.
        """
        task = self._running.get(saga_id)
        if task is not None:
            await asyncio.wait((task,), timeout=timeout)
            if not task.done():
                raise TimeoutError(f"Saga {saga_id!r} still runs after {timeout} s")
        return await self._load(saga_id)

    async def drain(self) -> None:
        """Return when no saga runs in this process."""
        while self._running:
            await asyncio.wait(set(self._running.values()))

    # Operating

    async def retry(self, saga_id: str) -> SagaRecord:
        """Try again what failed: a compensation (COMPENSATION_FAILED), or the step (FAILED, TIMED_OUT).

        Raises:
            SagaError: LEX_ERR_EVT_026; the saga is in another state, or runs.
        """
        record = await self._stopped(saga_id, "retried")
        check_readable(record)
        journal = SagaJournal(self.store, record, self._transactions)
        if record.status is SagaStatus.COMPENSATION_FAILED:
            async with journal.changing() as draft:
                draft.wake_at = None
                draft.status = SagaStatus.COMPENSATING
                for step in draft.steps.values():
                    if step.status is SagaStepStatus.COMPENSATING:
                        step.compensation_attempts = 0
        elif record.status in (SagaStatus.FAILED, SagaStatus.TIMED_OUT):
            definition = self._definition(record.saga_name)
            async with journal.changing() as draft:
                failed = [name for name in definition.step_names if not draft.step(name).is_done]
                draft.cursor = failed[0] if failed else None
                for name in failed:
                    step = draft.step(name)
                    step.attempts, step.retry_at = 0, None
                draft.status, draft.reason, draft.error, draft.completed_at = SagaStatus.RUNNING, None, None, None
                draft.deadline = self._deadline(definition)
                draft.pending_attempts, draft.wake_at = 0, None
        else:
            raise SagaError(f"Saga {saga_id!r} is {record.status.value}; only failed ones can be retried")
        return await asyncio.shield(self._spawn(saga_id))

    async def force_complete(self, saga_id: str, note: str = "") -> SagaRecord:
        """End a saga whose compensation failed, or that hangs, because somebody has put things right by hand.

        The steps keep their true states; `reason` becomes "forced".
        """
        record = await self._stopped(saga_id, "force-completed")
        if record.status.is_terminal:
            raise SagaError(f"Saga {saga_id!r} has ended already: {record.status.value}")
        journal = SagaJournal(self.store, record, self._transactions)
        async with journal.changing() as draft:
            draft.metadata["forced"] = {"note": note, "from": record.status.value, "at": now().isoformat()}
            draft.reason = "forced"
            end(draft, SagaStatus.COMPLETED)
        return journal.record

    async def cancel(self, saga_id: str, note: str = "") -> SagaRecord:
        """Stop a saga that has not ended and undo its finished steps; a step in progress is rolled back.

        One that is being undone already is left to it.

        Raises:
            SagaError: LEX_ERR_EVT_026; it has ended already, undoing it has failed, or what has to be undone needs data
                that this program cannot read.
        """
        record = await self._load(saga_id)
        if record.status.is_terminal:
            raise SagaError(f"Saga {saga_id!r} has ended already: {record.status.value}")
        if record.status is SagaStatus.COMPENSATION_FAILED:
            raise SagaError(f"Saga {saga_id!r} could not be undone: {record.error}; retry or force-complete it")
        if record.status is SagaStatus.COMPENSATING:
            return await asyncio.shield(self._spawn(saga_id))
        await self.turn_back(saga_id, f"cancelled{': ' + note if note else ''}")
        return await asyncio.shield(self._spawn(saga_id))

    async def purge_finished(self, older_than: timedelta) -> int:
        """Delete sagas that ended longer ago than this; return how many."""
        limit = now() - older_than
        ended = await self.store.list_by_status(TERMINAL, self.saga_names)
        old = [record for record in ended if record.completed_at is not None and record.completed_at < limit]
        return sum([await self.store.delete(record.saga_id) for record in old])
