"""What a saga does between steps: dispatch the commands it has returned, fire its timers, time out while it waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import EventValidationError
from lexigram.events.projections.base import settled
from lexigram.events.sagas.base import SagaBase
from lexigram.events.sagas.context import as_result
from lexigram.events.sagas.definition import RetryPolicy
from lexigram.events.sagas.progress import StepFailed, describe, end
from lexigram.events.sagas.record import UnreadCommand
from lexigram.events.sagas.types import SagaRecord, SagaStatus, now

if TYPE_CHECKING:
    from lexigram.events.sagas.executor import SagaExecutor


def note_reaction(draft: SagaRecord, commands: Any) -> None:
    """Keep the commands that user code returned; end the saga if it said so and nothing is left to dispatch.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; it returned something else than a list of commands or None.
    """
    if isinstance(commands, str | bytes | Mapping) or not isinstance(commands, Iterable | None):
        raise EventValidationError(
            f"Saga {draft.saga_name!r} must return a list of commands, not {type(commands).__name__}", field="commands"
        )
    draft.pending.extend(commands or ())
    if draft.metadata.pop("outcome", None) == "completed" and draft.status.is_forward:
        draft.ending = SagaStatus.COMPLETED
    end_if_done(draft)


def end_if_done(draft: SagaRecord) -> None:
    """Give the saga its last state if its last command has been dispatched."""
    if draft.ending is not None and not draft.pending:
        end(draft, draft.ending)
        draft.ending = None


async def react(executor: SagaExecutor) -> bool:
    """Do the next thing that is due, if any; return whether there was one."""
    record = executor.record
    if record.pending:
        await _dispatch(executor, record.pending[0])
        return True
    due = [name for name, moment in record.timers.items() if moment <= now()]
    if due:
        await _fire(executor, min(due, key=lambda name: record.timers[name]))
        return True
    if record.waits_for_events and record.deadline is not None and record.deadline <= now():
        await _time_out(executor)
        return True
    return False


async def _dispatch(executor: SagaExecutor, command: Any) -> None:
    """Dispatch the first pending command; that it was commits with whatever its handler appended."""
    try:
        async with executor.changing(atomic=True) as draft:
            del draft.pending[0]
            note_progress(draft)
            end_if_done(draft)
            if isinstance(command, UnreadCommand):
                raise EventValidationError(command.error, field="pending")
            result = as_result(await settled(executor.bus.dispatch(command)))
            if not result.success:
                raise StepFailed(result)
    except Exception as failure:
        error = failure
    else:
        return
    await _retry_or(executor, type(command).__name__, error, lambda draft: _give_up(executor, draft, error))


async def _fire(executor: SagaExecutor, name: str) -> None:
    try:
        async with executor.changing(atomic=True) as draft:
            del draft.timers[name]
            note_progress(draft)
            saga = _prepared(executor, draft)
            note_reaction(draft, None if saga is None else await settled(saga.on_timer(name)))
    except Exception as error:
        await _retry_or(executor, f"timer {name}", error, _fail)


async def _time_out(executor: SagaExecutor) -> None:
    try:
        async with executor.changing(atomic=True) as draft:
            note_progress(draft)
            saga = _prepared(executor, draft)
            commands = None if saga is None else await settled(saga.on_timeout())
            draft.error, draft.reason = f"the saga's deadline was {draft.deadline}", "timeout"
            draft.ending, draft.deadline = SagaStatus.TIMED_OUT, None
            note_reaction(draft, commands)
    except Exception as error:
        await _retry_or(executor, "on_timeout", error, _fail)


async def _retry_or(
    executor: SagaExecutor, what: str, error: Exception, give_up: Callable[[SagaRecord], Awaitable[None]]
) -> None:
    """Note a failed attempt: to be repeated later, or else given up."""
    if executor.taken_over:
        raise error
    delay = executor.delay_before_retry(RetryPolicy(), executor.record.pending_attempts + 1, error)
    async with executor.changing() as draft:
        draft.pending_attempts += 1
        draft.error = f"{what}: {describe(error)}"
        if delay is None:
            await give_up(draft)
        else:
            executor.wake_later(draft, delay)


async def _fail(draft: SagaRecord) -> None:
    end(draft, SagaStatus.FAILED)
    draft.reason = "failure"


async def _give_up(executor: SagaExecutor, draft: SagaRecord, error: Exception) -> None:
    """Let the saga say what to do instead of its first pending command; without an answer it ends."""
    saga = _prepared(executor, draft)
    commands = None if saga is None else await settled(saga.command_failed(draft.pending[0], error))
    if commands is None:
        await _fail(draft)
        return
    del draft.pending[0]
    draft.pending_attempts = 0
    note_reaction(draft, commands)


def note_progress(draft: SagaRecord) -> None:
    """Forget the failed attempts of what has now been done."""
    if draft.pending_attempts:
        draft.pending_attempts, draft.error = 0, None
    draft.wake_at = None


def _prepared(executor: SagaExecutor, draft: SagaRecord) -> SagaBase | None:
    """Return the saga object with the draft as its context; None for sagas made of action objects."""
    saga = executor.saga
    if not isinstance(saga, SagaBase):
        return None
    saga.context = executor.context(draft)
    return saga
