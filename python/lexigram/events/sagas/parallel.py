"""Steps that run at the same time. Each is stored when it ends, so a crash repeats only those that had not."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from lexigram.events.sagas.definition import StepDefinition
from lexigram.events.sagas.progress import note_failure, note_success
from lexigram.events.sagas.types import SagaStatus, now
from lexigram.events.stores._settled import stopped

if TYPE_CHECKING:
    from lexigram.events.sagas.executor import SagaExecutor


async def perform_group(executor: SagaExecutor, lead: StepDefinition, *, woken: bool) -> bool:
    """Carry out `lead` and its parallel steps concurrently; once all have ended, the first that failed decides.

    Unlike single steps they share no transaction with the saga's state, since one database transaction cannot serve
    several tasks: after a crash an unfinished one is called again. When one of them has failed for good, no other one is
    tried again.

    Args:
        woken: The delay that is stored has been waited for, whatever the clock says.

    Returns:
        False if nothing is left to do but to wait for the next attempt of one of them.
    """
    record, clock = executor.record, asyncio.get_running_loop().time
    present = record.wake_at if woken and record.wake_at is not None else now()
    members = {step.name: step for step in (lead, *lead.parallel) if not record.step(step.name).is_done}
    due = {name: clock() + _seconds(executor, name, present) for name in members}
    running: dict[asyncio.Task[Exception | None], str] = {}
    failed: dict[str, Exception] = {}
    saving = asyncio.Lock()
    try:
        while True:
            for name in [name for name, moment in due.items() if moment <= clock() and not failed]:
                del due[name]
                running[asyncio.create_task(_attempt(executor, members[name], saving))] = name
            if not running:
                break
            pause = min(due.values()) - clock() if due and not failed else None
            ended, _ = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                name, error = running.pop(task), task.result()
                if error is not None:
                    failed[name] = error
                elif not executor.record.step(name).is_done:
                    due[name] = clock() + _seconds(executor, name, now())
    finally:
        await stopped(*running)
    for name in members:
        if name in failed:
            await executor.fail(lead, failed[name], name)
            return True
    if due:
        async with executor.changing() as draft:
            executor.wake_later(draft, max(0.0, min(due.values()) - clock()))
        return False
    await executor.leave_group(lead)
    return True


def _seconds(executor: SagaExecutor, name: str, present: datetime) -> float:
    """Return how long a step has to wait for its next attempt."""
    retry_at = executor.record.step(name).retry_at
    return 0.0 if retry_at is None else max(0.0, (retry_at - present).total_seconds())


async def _attempt(executor: SagaExecutor, step: StepDefinition, saving: asyncio.Lock) -> Exception | None:
    """Try a step once and store the outcome; return its error if that was the last time."""
    started, attempt = now(), executor.record.step(step.name).attempts + 1
    outcome: Exception | None = None
    delay: float | None = None
    try:
        result = await executor.call(step.action, step, executor.record, attempt)
    except Exception as error:
        outcome, delay = error, executor.delay_before_retry(step.retry, attempt, error)
    async with saving, executor.changing() as draft:
        record = draft.step(step.name)
        if outcome is None:
            note_success(record, result, started, attempt)
        else:
            note_failure(record, outcome)
        record.retry_at = None if delay is None else now() + timedelta(seconds=delay)
        draft.data = executor.record.data
        draft.status = SagaStatus.RUNNING
        draft.wake_at = None
    return outcome if delay is None else None
