"""What is stored of a saga. Source: spec/reference-surface.md, spec/architecture.md."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from lexigram.events.exceptions import SagaError
from lexigram.events.messages.clock import now as now


class SagaStatus(StrEnum):
    """What a saga is doing.

    NOT_STARTED/PENDING → STARTED → RUNNING → COMPLETED; on a failure or timeout RUNNING → COMPENSATING → COMPENSATED,
    or COMPENSATION_FAILED, which waits for an operator. FAILED and TIMED_OUT end a saga that had nothing to undo.
    """

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    FAILED = "failed"
    NOT_STARTED = "not_started"
    STARTED = "started"
    TIMED_OUT = "timed_out"
    COMPENSATION_FAILED = "compensation_failed"

    @property
    def is_terminal(self) -> bool:
        """Whether the saga has ended; COMPENSATION_FAILED has not, an operator must act."""
        return self in _TERMINAL

    @property
    def is_forward(self) -> bool:
        """Whether the saga goes forward: it has begun, and neither ended nor turned round."""
        return self in _FORWARD

    @property
    def is_unfinished(self) -> bool:
        """Whether a manager goes on with the saga when it starts."""
        return not self.is_terminal and self is not SagaStatus.COMPENSATION_FAILED


_FORWARD = frozenset({SagaStatus.PENDING, SagaStatus.NOT_STARTED, SagaStatus.STARTED, SagaStatus.RUNNING})
_TERMINAL = frozenset({SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED, SagaStatus.TIMED_OUT})

UNFINISHED = tuple(status for status in SagaStatus if status.is_unfinished)
"""States of sagas that a manager goes on with."""
TERMINAL = tuple(status for status in SagaStatus if status.is_terminal)
"""States of sagas that have ended."""


class SagaStepStatus(StrEnum):
    """What a step of a saga is doing; FAILED with a compensation error means that undoing it failed."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    FAILED = "failed"


@dataclass(frozen=True)
class UnreadValue:
    """Stands for a stored value whose class this program does not know; it is stored again as it was.

    Args:
        plain: The value as plain JSON data.
        error: Why it cannot be read.
    """

    plain: Any
    error: str


@dataclass
class SagaStepRecord:
    """One step of one saga as stored.

    Args:
        output: What the step returned.
        attempts: How often it was called, from 0.
        compensation_attempts: How often its compensation was called, from 0.
        compensation_error: The last error of its compensation, or None.
        retry_at: When its next attempt is due, if it is one of several parallel steps; None = at once.
    """

    step_name: str
    status: SagaStepStatus = SagaStepStatus.PENDING
    started_at: datetime | None = None
    completed_at: datetime | None = None
    output: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    attempts: int = 0
    compensation_attempts: int = 0
    compensation_error: str | None = None
    retry_at: datetime | None = None

    @property
    def is_done(self) -> bool:
        """Whether the step was carried out and is never called again (it may have been undone since)."""
        return self.status in _DONE


_DONE = frozenset({SagaStepStatus.COMPLETED, SagaStepStatus.COMPENSATING, SagaStepStatus.COMPENSATED})


def copy_plain(value: Any) -> Any:
    """Return a copy of nested dictionaries, lists and sets; what may not change is shared, anything else deep-copied."""
    kind = type(value)
    if kind in _SHARED:
        return value
    if kind is dict:
        return {key: copy_plain(item) for key, item in value.items()}
    if kind is list:
        return [copy_plain(item) for item in value]
    return copy.deepcopy(value)


_SHARED = frozenset(
    {str, int, float, bool, bytes, type(None), datetime, date, time, timedelta, UUID, Decimal, frozenset}
)


@dataclass
class SagaRecord:
    """One saga as stored after every step.

    Args:
        steps: By step name, in order of definition.
        cursor: Name of the step that runs or comes next; None at the end, or where there are no steps.
        step_order: The step names as they were when the saga began; a changed definition is detected by it.
        version: Counts the saves; a save with an outdated version is refused.
        deadline: When the saga times out; None = never.
        reason: Why it did not simply complete: "failure", "timeout", "cancelled" or "forced"; None otherwise.
        correlation_key: What ties events to an event-driven saga; None for others.
        positions: Up to which position of the log each follower, by its name, has handed in what concerns the saga.
        handled: Ids of the events it has handled besides: those that `process` handed in, or that came late.
        pending: Commands that `handle` returned and that have not been dispatched yet, in order.
        pending_attempts: How often dispatching the first of them has failed.
        ending: The state the saga takes once `pending` is empty; None while it goes on.
        timers: When each timer that `set_timer` set is due.
        wake_at: When a failed attempt is to be repeated; None while nothing is delayed.
        children: Ids of the sagas its steps have run, each with the name of the step, in order.
    """

    saga_id: str
    saga_name: str
    status: SagaStatus = SagaStatus.PENDING
    data: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, SagaStepRecord] = field(default_factory=dict)
    created_at: datetime = field(default_factory=now)
    updated_at: datetime = field(default_factory=now)
    completed_at: datetime | None = None
    error: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    cursor: str | None = None
    step_order: list[str] = field(default_factory=list)
    version: int = 0
    deadline: datetime | None = None
    reason: str | None = None
    correlation_key: str | None = None
    positions: dict[str, int] = field(default_factory=dict)
    handled: list[str] = field(default_factory=list)
    pending: list[Any] = field(default_factory=list)
    pending_attempts: int = 0
    ending: SagaStatus | None = None
    timers: dict[str, datetime] = field(default_factory=dict)
    wake_at: datetime | None = None
    children: dict[str, str] = field(default_factory=dict)

    def step(self, name: str) -> SagaStepRecord:
        """Return the record of a step, created when asked for first."""
        return self.steps.setdefault(name, SagaStepRecord(name))

    @property
    def unread(self) -> dict[str, str]:
        """Which of its values this program cannot read, by place, each with the reason; empty for nearly every saga.

        There `data`, `metadata` or the output of a step has an `UnreadValue`. Such a saga does not go on here.
        """
        places: dict[str, dict[str, Any]] = {"data": self.data, "metadata": self.metadata}
        places.update((f"steps.{name}.output", step.output) for name, step in self.steps.items())
        return {
            f"{place}.{name}": value.error
            for place, values in places.items()
            for name, value in values.items()
            if type(value) is UnreadValue
        }

    @property
    def current_step(self) -> str | None:
        """Name of the step that runs, failed or comes next; None once the saga has ended."""
        return self.cursor

    @property
    def waits_for_events(self) -> bool:
        """Whether nothing is left to do before the next event or timer."""
        return self.status.is_forward and self.cursor is None and not self.pending

    @property
    def due_at(self) -> datetime | None:
        """When somebody has to look after the saga even if no event comes: None = never.

        A saga that waits for events has its timers and its deadline; any other unfinished one is due since it began.
        """
        if not self.status.is_unfinished:
            return None
        if not self.waits_for_events:
            return self.created_at
        times = [*self.timers.values(), *([] if self.deadline is None else [self.deadline])]
        return min(times, default=None)


def check_readable(record: SagaRecord) -> None:
    """Refuse to show user code a record of which something cannot be read here.

    Raises:
        SagaError: LEX_ERR_EVT_026; says what cannot be read, and why.
    """
    if record.unread:
        reasons = "; ".join(f"{place}: {error}" for place, error in record.unread.items())
        raise SagaError(
            f"Saga {record.saga_id!r} ({record.saga_name}) cannot go on in this program, which cannot read all of it: {reasons}"
        )


def copy_record(record: SagaRecord) -> SagaRecord:
    """Return a copy of a record that shares nothing changeable with it."""
    return replace(
        record,
        data=copy_plain(record.data),
        steps={name: replace(step, output=copy_plain(step.output)) for name, step in record.steps.items()},
        metadata=copy_plain(record.metadata),
        step_order=list(record.step_order),
        positions=dict(record.positions),
        handled=list(record.handled),
        pending=list(record.pending),
        timers=dict(record.timers),
        children=dict(record.children),
    )
