"""Runs one saga: steps forward, compensations backward, every outcome stored before the next. Source: design, sagas."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lexigram.events.exceptions import ConcurrencyError, EventError, SagaError
from lexigram.events.projections.base import settled
from lexigram.events.sagas.context import ChildFailed, ChildNeeded, SagaContext, SagaStepResult, as_result
from lexigram.events.sagas.definition import Action, RetryPolicy, SagaDefinition, StepDefinition
from lexigram.events.sagas.journal import SagaJournal
from lexigram.events.sagas.progress import (
    DeadlinePassed,
    StepFailed,
    describe,
    end,
    is_undone,
    note_failure,
    note_success,
    seconds_left,
)
from lexigram.events.sagas.reactions import react
from lexigram.events.sagas.types import SagaRecord, SagaStatus, SagaStepStatus, now
from lexigram.events.stores._settled import is_failure

if TYPE_CHECKING:
    from lexigram.events.sagas.children import Children

_LONGEST_DELAY_SECONDS = 60.0


@dataclass(frozen=True)
class Defaults:
    """What the configuration says for steps that do not say it themselves."""

    max_retries: int = 3
    retry_delay: float = 1.0
    compensate: bool = True


class SagaExecutor:
    """Drives one saga until it has ended, or has nothing to do before an event, a moment or another saga's end.

    Each step runs in a unit of work of its own where the event store offers one: what the step appends and the
    saga's new state commit together, so a step that is stored as finished has happened exactly once. Elsewhere a step
    may be called again after a crash; `ctx.idempotency_key` stays the same then.

    Args:
        saga: The object whose methods are the steps; None for sagas made of action objects.
        children: Starts, looks up and undoes the sagas that steps run.
        bus: Gets the commands of event-driven sagas.
    """

    def __init__(
        self,
        journal: SagaJournal,
        definition: SagaDefinition,
        saga: Any,
        services: Any,
        defaults: Defaults,
        children: Children,
        bus: Any = None,
    ) -> None:
        self._journal = journal
        self._definition = definition
        self.saga = saga
        self._services = services
        self._defaults = defaults
        self._children = children
        self._known: dict[str, SagaRecord | None] = {}
        self.bus = bus
        self.waits_for: str | None = None
        """The other saga whose end this one waits for; None = none."""
        self.pause: float | None = None
        """Seconds before the next attempt, whatever the clock is set to meanwhile; None = what is stored says it."""

    @property
    def record(self) -> SagaRecord:
        """The last stored state."""
        return self._journal.record

    @property
    def taken_over(self) -> bool:
        """Whether another process has changed the saga meanwhile; then nothing more may be written."""
        return self._journal.taken_over

    async def was_ours(self) -> bool:
        """Return whether the change that seemed to be another process's was our own, whose answer was lost."""
        return await self._journal.was_ours()

    async def run(self, *, woken: bool = False) -> SagaRecord:
        """Do all there is to do now; return the record.

        Args:
            woken: The delay before the next attempt has been waited for, whatever the clock says.

        Raises:
            SagaError: LEX_ERR_EVT_026; another process runs the saga.
        """
        self.waits_for = self.pause = None
        while self.record.status.is_unfinished:
            wake_at = self.record.wake_at
            if wake_at is not None and wake_at > now() and not woken:
                break
            going = await (self._forward(woken) if self.record.status.is_forward else self._backward())
            woken = False
            if not going:
                break
        return self.record

    def wake_later(self, draft: SagaRecord, delay: float) -> None:
        """Note that the next attempt has to wait so many seconds."""
        self.pause = delay if delay > 0 else None
        draft.wake_at = now() + timedelta(seconds=delay) if delay > 0 else None

    # Forward

    async def _forward(self, woken: bool) -> bool:
        """Do the next thing; return False if there is none before an event, a moment or another saga's end."""
        if await react(self):
            return True
        name = self.record.cursor
        if name is None:
            if not self._definition.steps:
                return False  # waits for events
            async with self._journal.changing() as draft:
                end(draft, SagaStatus.COMPLETED)
            return True
        step = self._definition.step(name)
        if step is None:
            raise SagaError(f"Saga {self.record.saga_id!r} stands at step {name!r}, which no longer exists")
        if step.next_step is not None or step.on_failure is not None:
            await asyncio.sleep(0)  # jumps may form a circle, which in memory would keep all other tasks from running
        if self.record.children:
            self._known = await self._children.known(self.record)
        if step.parallel:
            from lexigram.events.sagas.parallel import perform_group

            return await perform_group(self, step, woken=woken)
        try:
            error = await self._attempt(step)
        except ChildNeeded as needed:
            return await self._wait_for(step, needed)
        if error is None:
            return True
        delay = self.delay_before_retry(step.retry, self.record.step(step.name).attempts + 1, error)
        if delay is None:
            await self.fail(step, error)
            return True
        async with self._journal.changing() as draft:
            note_failure(draft.step(step.name), error)
            self.wake_later(draft, delay)
        return True

    async def _wait_for(self, step: StepDefinition, needed: ChildNeeded) -> bool:
        """See that the other saga runs, unless it has ended meanwhile."""
        if self.record.deadline is not None and self.record.deadline <= now():
            await self.fail(step, DeadlinePassed(f"the saga's deadline was {self.record.deadline}"))
            return True
        if needed.saga_id not in self.record.children:
            try:
                self._children.check(needed)
            except SagaError as unknown:
                await self.fail(step, ChildFailed(str(unknown)))
                return True
            async with self._journal.changing() as draft:
                draft.children[needed.saga_id] = step.name
        if await self._children.start(self.record, needed):
            self.waits_for = needed.saga_id
            return False
        return True

    async def _attempt(self, step: StepDefinition) -> Exception | None:
        """Carry out a step once; a second time, locked, if something else came in between."""
        return await self._twice(lambda deferred: self._do(step, deferred=deferred))

    async def _twice(self, act: Callable[[bool], Awaitable[Exception | None]]) -> Exception | None:
        if self._journal.deferred is not None:
            error = await act(True)
            if not isinstance(error, ConcurrencyError):
                return error
            await self._journal.check()
        return await act(False)

    async def _do(self, step: StepDefinition, *, deferred: bool) -> Exception | None:
        try:
            async with self._journal.changing(atomic=True, deferred=deferred) as draft:
                record = draft.step(step.name)
                started, attempt = now(), record.attempts + 1
                result = await self.call(step.action, step, draft, attempt, may_run_sagas=True)
                note_success(record, result, started, attempt)
                draft.wake_at = None
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
            draft.wake_at = None
            draft.cursor = self._definition.after(lead)
            if draft.cursor is None:
                end(draft, SagaStatus.COMPLETED)

    def changing(self, *, atomic: bool = False) -> AbstractAsyncContextManager[SagaRecord]:
        """Yield a draft of the record and store it at the end; with `atomic`, together with what the block appends."""
        return self._journal.changing(atomic=atomic)

    async def call(
        self, action: Action, step: StepDefinition, draft: SagaRecord, attempt: int, *, may_run_sagas: bool = False
    ) -> SagaStepResult:
        """Call user code within its time; raise what it raises, `StepFailed` or `DeadlinePassed`."""
        left = None if draft.status is SagaStatus.COMPENSATING else seconds_left(draft.deadline)
        if left is not None and left <= 0:
            raise DeadlinePassed(f"the saga's deadline was {draft.deadline}")
        limit = step.timeout if left is None else left if step.timeout is None else min(left, step.timeout)
        context = self.context(draft, step.name, attempt)
        context._children = self._known.get if may_run_sagas else None
        try:
            async with asyncio.timeout(limit) as timer:
                result = as_result(await settled(action(self.saga, context)))
        except TimeoutError as error:
            if not timer.expired():
                raise
            if left is not None and limit == left:
                raise DeadlinePassed(f"the saga's deadline was {draft.deadline}") from error
            raise TimeoutError(f"step {step.name!r} took longer than {limit:g} s") from error
        except BaseException as error:
            if isinstance(error, Exception | asyncio.CancelledError | ChildNeeded) or not is_failure(error):
                raise
            raise EventError(describe(error), cause=error) from error
        if not result.success:
            raise StepFailed(result)
        return result

    def context(self, draft: SagaRecord, step_name: str = "", attempt: int = 1) -> SagaContext:
        """Return what user code sees of the draft; changes of `data` and `timers` are changes of the draft."""
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
            draft.timers,
        )

    def delay_before_retry(self, policy: RetryPolicy, attempts: int, error: Exception) -> float | None:
        """Return the seconds until the next attempt after `attempts` failed ones; None when there is none."""
        allowed = self._defaults.max_retries if policy.max_retries is None else policy.max_retries
        if attempts > allowed or isinstance(error, DeadlinePassed | ChildFailed):
            return None
        if isinstance(error, StepFailed):
            return error.retry_after
        if not policy.allows(error):
            return None
        base = self._defaults.retry_delay if policy.retry_delay is None else policy.retry_delay
        return min(base * 2.0 ** (attempts - 1), _LONGEST_DELAY_SECONDS) * random.uniform(0.9, 1.1)

    async def fail(self, step: StepDefinition, error: Exception, name: str | None = None) -> None:
        """Store the failure: go to the step named for it, or begin to compensate, or end.

        Args:
            name: Which of the steps parallel to it has failed; None = the step itself.
        """
        timed_out = isinstance(error, DeadlinePassed | TimeoutError)
        async with self._journal.changing() as draft:
            if not step.parallel:
                note_failure(draft.step(step.name), error)
            draft.error = f"{name or step.name}: {describe(error)}"
            draft.wake_at = None
            if step.on_failure is not None and not isinstance(error, DeadlinePassed):
                draft.cursor = step.on_failure
                draft.status = SagaStatus.RUNNING
                return
            self.begin_compensation(draft, "timeout" if timed_out else "failure")

    # Backward

    def begin_compensation(self, draft: SagaRecord, reason: str) -> None:
        """Turn the saga round; it ends at once where nothing has to be undone."""
        draft.reason = reason
        if self.has_to_undo(draft):
            draft.status = SagaStatus.COMPENSATING
        else:
            end(draft, SagaStatus.TIMED_OUT if reason == "timeout" else SagaStatus.FAILED)

    def has_to_undo(self, draft: SagaRecord) -> bool:
        """Return whether there is something to undo when the saga turns round."""
        return self._defaults.compensate and bool(self._undoable(draft) or draft.children)

    def _undoable(self, draft: SagaRecord) -> list[StepDefinition]:
        """Return the steps still to be undone, the last one finished first."""
        names = [record.step_name for record in draft.steps.values() if record.is_done and not is_undone(record)]
        steps = [self._definition.step(name) for name in reversed(names)]
        return [step for step in steps if step is not None and step.compensation is not None]

    async def _backward(self) -> bool:
        """Undo the next thing; return False if another saga has to be undone first."""
        steps = self._undoable(self.record)
        if self.record.children:
            try:
                self.waits_for = await self._children.undo(self.record, keep=[step.name for step in steps[1:]])
            except SagaError as stuck:
                async with self._journal.changing() as draft:
                    draft.status, draft.error = SagaStatus.COMPENSATION_FAILED, str(stuck)
                return True
            if self.waits_for is not None:
                return False
        if not steps:
            async with self._journal.changing() as draft:
                end(draft, SagaStatus.COMPENSATED)
            return True
        step = steps[0]
        error = await self._undo(step)
        if error is None:
            return True
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
            else:
                self.wake_later(draft, delay)
        return True

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
                draft.wake_at = None
                if not self._undoable(draft) and not draft.children:
                    end(draft, SagaStatus.COMPENSATED)
        except Exception as error:
            if self._journal.taken_over:
                raise
            return error
        return None
