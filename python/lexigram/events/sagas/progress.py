"""What is noted in a saga's record as its steps succeed, fail and end."""

from __future__ import annotations

from datetime import datetime

from lexigram.events.messages.texts import words_of
from lexigram.events.sagas.context import SagaStepResult
from lexigram.events.sagas.types import SagaRecord, SagaStatus, SagaStepRecord, SagaStepStatus, now


class StepFailed(Exception):
    """A step returned a failure instead of raising."""

    def __init__(self, result: SagaStepResult) -> None:
        super().__init__(result.error or "the step returned a failure")
        self.retry_after = result.retry_after


class DeadlinePassed(Exception):
    """The whole saga ran out of time."""


def end(draft: SagaRecord, status: SagaStatus) -> None:
    """Set a terminal state."""
    draft.status = status
    draft.cursor = None
    draft.completed_at = now()


def note_success(record: SagaStepRecord, result: SagaStepResult, started: datetime, attempt: int) -> None:
    """Note that a step is finished."""
    record.status = SagaStepStatus.COMPLETED
    record.output = result.output
    record.error = None
    record.attempts = attempt
    record.started_at = started
    record.completed_at = now()


def note_failure(record: SagaStepRecord, error: Exception) -> None:
    """Note one failed attempt."""
    record.status = SagaStepStatus.FAILED
    record.attempts += 1
    record.error = describe(error)
    record.started_at = record.started_at or now()


def is_undone(record: SagaStepRecord) -> bool:
    """Return whether the step's compensation has been carried out."""
    return record.status is SagaStepStatus.COMPENSATED


def describe(error: BaseException) -> str:
    """Return an error as an operator reads it."""
    words = words_of(error)
    return words if isinstance(error, StepFailed | DeadlinePassed) else f"{type(error).__name__}: {words}"


def seconds_left(deadline: datetime | None) -> float | None:
    """Return the seconds until a deadline, negative when it has passed."""
    return None if deadline is None else (deadline - now()).total_seconds()
