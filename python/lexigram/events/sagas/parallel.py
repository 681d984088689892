"""Steps that run at the same time. Each is stored when it ends, so a crash repeats only those that had not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lexigram.events.sagas.definition import StepDefinition
from lexigram.events.sagas.types import SagaStatus, now

if TYPE_CHECKING:
    from lexigram.events.sagas.executor import SagaExecutor


async def perform_group(executor: SagaExecutor, lead: StepDefinition) -> tuple[StepDefinition, Exception] | None:
    """Carry out `lead` and its parallel steps concurrently; return the first that failed once all have ended.

    Unlike single steps they share no transaction with the saga's state, since one database transaction cannot serve
    several tasks: after a crash an unfinished one is called again.
    """
    saving = asyncio.Lock()
    members = [step for step in (lead, *lead.parallel) if not executor.record.step(step.name).is_done]
    errors = await asyncio.gather(*(_perform_member(executor, step, saving) for step in members))
    for step, error in zip(members, errors, strict=True):
        if error is not None:
            return step, error
    await executor.leave_group(lead)
    return None


async def _perform_member(executor: SagaExecutor, step: StepDefinition, saving: asyncio.Lock) -> Exception | None:
    from lexigram.events.sagas.executor import note_failure, note_success

    while True:
        started, attempt = now(), executor.record.step(step.name).attempts + 1
        outcome: Exception | None = None
        try:
            result = await executor.call(step.action, step, executor.record, attempt)
        except Exception as error:
            outcome = error
        async with saving, executor.changing() as draft:
            if outcome is None:
                note_success(draft.step(step.name), result, started, attempt)
            else:
                note_failure(draft.step(step.name), outcome)
            draft.data = executor.record.data
            draft.status = SagaStatus.RUNNING
        if outcome is None:
            return None
        delay = executor.delay_before_retry(step.retry, attempt, outcome)
        if delay is None:
            return outcome
        await asyncio.sleep(delay)
