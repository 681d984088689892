"""Runs one saga: steps forward, compensations backward, every outcome stored before the next. Source: design, sagas."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lexigram.events.exceptions import ConcurrencyError, SagaError
from lexigram.events.projections.base import settled
from lexigram.events.sagas.context import SagaContext, SagaStepResult, as_result
from lexigram.events.sagas.definition import Action, RetryPolicy, SagaDefinition, StepDefinition
from lexigram.events.sagas.journal import SagaJournal
from lexigram.events.sagas.types import SagaRecord, SagaStatus, SagaStepRecord, SagaStepStatus, now

_LONGEST_DELAY_SECONDS = 60.0
_FORWARD = frozenset({SagaStatus.PENDING, SagaStatus.NOT_STARTED, SagaStatus.STARTED, SagaStatus.RUNNING})


class StepFailed(Exception):
    """A step returned a failure instead of raising."""

    def __init__(self, result: SagaStepResult) -> None:
        super().__init__(result.error or "the step returned a failure")
        self.retry_after = result.retry_after


class DeadlinePassed(Exception):
    """The whole saga ran out of time."""


@dataclass(frozen=True)
class Defaults:
    """What the configuration says for steps that do not say it themselves."""

    max_retries: int = 3
    retry_delay: float = 1.0
    compensate: bool = True


class SagaExecutor:
    """Drives one saga until it has ended or waits for an operator.

    Each step runs in a unit of work of its own where the event store offers one: what the step appends and the
    saga's new state commit together, so a step that is stored as finished has happened exactly once. Elsewhere a step
    may be called again after a crash; `ctx.idempotency_key` stays the same then.
    """

    def __init__(
        self, journal: SagaJournal, definition: SagaDefinition, saga: Any, services: Any, defaults: Defaults
    ) -> None:
        self._journal = journal
        self._definition = definition
        self._saga = saga
        self._services = services
        self._defaults = defaults

    @property
    def record(self) -> SagaRecord:
        """The last stored state."""
        return self._journal.record

    async def run(self) -> SagaRecord:
        """Run until the saga has ended, or its compensation has failed; return the record.

        Raises:
            SagaError: LEX_ERR_EVT_026; another process runs the saga.
        """
        while True:
            if self.record.status in _FORWARD:
                await self._forward()
            elif self.record.status is SagaStatus.COMPENSATING:
                await self._backward()
            else:
                return self.record

    # Forward

    async def _forward(self) -> None:
        name = self.record.cursor
        if name is None:
            async with self._journal.changing() as draft:
                end(draft, SagaStatus.COMPLETED)
            return
        step = self._definition.step(name)
        if step is None:
            raise SagaError(f"Saga {self.record.saga_id!r} stands at step {name!r}, which no longer exists")
        error = await self._perform(step)
        if error is not None:
            await self._fail(step, error)

    async def _perform(self, step: StepDefinition) -> Exception | None:
        """Carry out a step and those parallel to it, with retries; return the error that ends them."""
        if step.parallel:
            from lexigram.events.sagas.parallel import perform_group

            return await perform_group(self, step)
        while True:
            error = await self._attempt(step)
            if error is None:
                return None
            delay = self.delay_before_retry(step.retry, self.record.step(step.name).attempts + 1, error)
            if delay is None:
                return error
            async with self._journal.changing() as draft:
                note_failure(draft.step(step.name), error)
            await asyncio.sleep(delay)

    async def _attempt(self, step: StepDefinition) -> Exception | None:
        """Carry out a step once; a second time, locked, if something else came in between."""
        return await self._twice(lambda deferred: self._do(step, deferred=deferred))

    async def _twice(self, act: Callable[[bool], Awaitable[Exception | None]]) -> Exception | None:
        if self._journal.deferred is not None:
            error = await act(True)
            if not isinstance(error, ConcurrencyError):
                return error
        return await act(False)

    async def _do(self, step: StepDefinition, *, deferred: bool) -> Exception | None:
        try:
            async with self._journal.changing(atomic=True, deferred=deferred) as draft:
                record = draft.step(step.name)
                started, attempt = now(), record.attempts + 1
                result = await self.call(step.action, step, draft, attempt)
                note_success(record, result, started, attempt)
                draft.cursor = self._definition.after(step)
                draft.status = SagaStatus.RUNNING
                if draft.cursor is None:
                    end(draft, SagaStatus.COMPLETED)
        except Exception as error:
            if self._journal.taken_over:
                raise
            return error
        return None

    async def leave_group(self, lead: StepDefinition) -> None:
        """Go on behind a group of parallel steps that have all been carried out."""
        async with self._journal.changing() as draft:
            draft.cursor = self._definition.after(lead)
            if draft.cursor is None:
                end(draft, SagaStatus.COMPLETED)

    def changing(self) -> AbstractAsyncContextManager[SagaRecord]:
        """Yield a draft of the record and store it at the end."""
        return self._journal.changing()

    async def call(self, action: Action, step: StepDefinition, draft: SagaRecord, attempt: int) -> SagaStepResult:
        """Call user code within its time; raise what it raises, `StepFailed` or `DeadlinePassed`."""
        left = None if draft.status is SagaStatus.COMPENSATING else seconds_left(draft.deadline)
        if left is not None and left <= 0:
            raise DeadlinePassed(f"the saga's deadline was {draft.deadline}")
        limit = step.timeout if left is None else left if step.timeout is None else min(left, step.timeout)
        context = self.context(draft, step.name, attempt)
        try:
            async with asyncio.timeout(limit) as timer:
                result = as_result(await settled(action(self._saga, context)))
        except TimeoutError as error:
            if not timer.expired():
                raise
            if left is not None and limit == left:
                raise DeadlinePassed(f"the saga's deadline was {draft.deadline}") from error
            raise TimeoutError(f"step {step.name!r} took longer than {limit:g} s") from error
        if not result.success:
            raise StepFailed(result)
        return result

    def context(self, draft: SagaRecord, step_name: str, attempt: int) -> SagaContext:
        """Return what user code sees of the draft; changes of `data` are changes of the draft."""
        return SagaContext(
            draft.saga_id,
            draft.saga_name,
            draft.data,
            {name: step.output for name, step in draft.steps.items() if step.is_done},
            draft.metadata,
            self._services,
            step_name,
            attempt,
            draft.status is SagaStatus.COMPENSATING,
        )

    def delay_before_retry(self, policy: RetryPolicy, attempts: int, error: Exception) -> float | None:
        """Return the seconds until the next attempt after `attempts` failed ones; None when there is none."""
        allowed = self._defaults.max_retries if policy.max_retries is None else policy.max_retries
        if attempts > allowed or isinstance(error, DeadlinePassed):
            return None
        if isinstance(error, StepFailed):
            return error.retry_after
        if not policy.allows(error):
            return None
        base = self._defaults.retry_delay if policy.retry_delay is None else policy.retry_delay
        return min(base * 2.0 ** (attempts - 1), _LONGEST_DELAY_SECONDS) * random.uniform(0.9, 1.1)

    async def _fail(self, step: StepDefinition, error: Exception) -> None:
        """Store the failure: go to the step named for it, or begin to compensate, or end."""
        timed_out = isinstance(error, DeadlinePassed | TimeoutError)
        async with self._journal.changing() as draft:
            if not step.parallel:
                note_failure(draft.step(step.name), error)
            draft.error = f"{step.name}: {describe(error)}"
            if step.on_failure is not None and not isinstance(error, DeadlinePassed):
                draft.cursor = step.on_failure
                draft.status = SagaStatus.RUNNING
                return
            self.begin_compensation(draft, "timeout" if timed_out else "failure")

    # Backward

    def begin_compensation(self, draft: SagaRecord, reason: str) -> None:
        """Turn the saga round; it ends at once where nothing has to be undone."""
        draft.reason = reason
        if self._defaults.compensate and self._undoable(draft):
            draft.status = SagaStatus.COMPENSATING
        else:
            end(draft, SagaStatus.TIMED_OUT if reason == "timeout" else SagaStatus.FAILED)

    def _undoable(self, draft: SagaRecord) -> list[StepDefinition]:
        """Return the steps still to be undone, the last one finished first."""
        names = [record.step_name for record in draft.steps.values() if record.is_done and not is_undone(record)]
        steps = [self._definition.step(name) for name in reversed(names)]
        return [step for step in steps if step is not None and step.compensation is not None]

    async def _backward(self) -> None:
        steps = self._undoable(self.record)
        if not steps:
            async with self._journal.changing() as draft:
                end(draft, SagaStatus.COMPENSATED)
            return
        step = steps[0]
        error = await self._undo(step)
        if error is None:
            return
        delay = self.delay_before_retry(
            step.compensation_retry, self.record.step(step.name).compensation_attempts + 1, error
        )
        async with self._journal.changing() as draft:
            record = draft.step(step.name)
            record.status = SagaStepStatus.COMPENSATING
            record.compensation_attempts += 1
            record.compensation_error = describe(error)
            if delay is None:
                draft.status = SagaStatus.COMPENSATION_FAILED
        if delay is not None:
            await asyncio.sleep(delay)

    async def _undo(self, step: StepDefinition) -> Exception | None:
        """Undo one step once; the last one ends the saga in the same write."""
        return await self._twice(lambda deferred: self._compensate(step, deferred=deferred))

    async def _compensate(self, step: StepDefinition, *, deferred: bool) -> Exception | None:
        assert step.compensation is not None
        try:
            async with self._journal.changing(atomic=True, deferred=deferred) as draft:
                record = draft.step(step.name)
                await self.call(step.compensation, step, draft, record.compensation_attempts + 1)
                record.compensation_attempts += 1
                record.compensation_error = None
                record.status = SagaStepStatus.COMPENSATED
                if not self._undoable(draft):
                    end(draft, SagaStatus.COMPENSATED)
        except Exception as error:
            if self._journal.taken_over:
                raise
            return error
        return None


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
    return str(error) if isinstance(error, StepFailed | DeadlinePassed) else f"{type(error).__name__}: {error}"


def seconds_left(deadline: datetime | None) -> float | None:
    """Return the seconds until a deadline, negative when it has passed."""
    return None if deadline is None else (deadline - now()).total_seconds()
