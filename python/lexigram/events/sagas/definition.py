"""A saga as the engine runs it: named steps with their compensations, whatever way they were written down."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lexigram.events.exceptions import EventValidationError
from lexigram.events.sagas.context import SagaContext

Action = Callable[[Any, SagaContext], Any]
"""Called with the saga object (None for orchestrated ones) and the context; may return an awaitable."""

PERMANENT_ERRORS = (LookupError, TypeError, AttributeError, NameError, AssertionError, EventValidationError)
"""Errors in the program or its input: trying again cannot help."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often something is tried again.

    Args:
        max_retries: Further attempts after the first, from 0; None = the manager's default.
        retry_delay: Seconds before the first of them, doubled for each further one; None = the manager's default.
        retry_on: Exception classes that are tried again; None = all but `PERMANENT_ERRORS`.
    """

    max_retries: int | None = None
    retry_delay: float | None = None
    retry_on: tuple[type[BaseException], ...] | None = None

    def allows(self, error: BaseException) -> bool:
        """Return whether this error is worth another attempt."""
        if self.retry_on is not None:
            return isinstance(error, self.retry_on)
        return not isinstance(error, PERMANENT_ERRORS)


@dataclass(frozen=True)
class StepDefinition:
    """One step.

    Args:
        timeout: Seconds for one attempt; None = only the saga's deadline.
        next_step: The step after this one; None = the next in order.
        on_failure: The step to go to instead of compensating; None = compensate.
        parallel: Steps that run at the same time as this one; the saga goes on when all have ended.
    """

    name: str
    action: Action
    compensation: Action | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    compensation_retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    next_step: str | None = None
    on_failure: str | None = None
    parallel: tuple[StepDefinition, ...] = ()


class SagaDefinition:
    """The ordered steps of one kind of saga.

    Args:
        timeout: Seconds from its start to its deadline; None = the manager's default.
        make: Returns the object that actions are called with, one per run.

    Raises:
        EventValidationError: A step name occurs twice, a jump leads nowhere, or the timeout is no number above 0.
    """

    def __init__(
        self,
        name: str,
        steps: Sequence[StepDefinition],
        *,
        timeout: float | None = None,
        make: Callable[[], Any | Awaitable[Any]] = lambda: None,
    ) -> None:
        if not name:
            raise EventValidationError("A saga needs a name", field="name")
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise EventValidationError(
                f"The timeout of saga {name!r} must be seconds above 0, math.inf or None, not {timeout!r}",
                field="timeout",
            )
        self.name = name
        self.steps = tuple(steps)
        self.timeout = timeout
        self.make = make
        self._by_name: dict[str, StepDefinition] = {}
        for step in self.steps:
            for each in (step, *step.parallel):
                if each.name in self._by_name:
                    raise EventValidationError(f"Saga {name!r} has two steps named {each.name!r}", field="steps")
                self._by_name[each.name] = each
        names = [step.name for step in self.steps]
        for step in self.steps:
            for target in (step.next_step, step.on_failure):
                if target is not None and target not in names:
                    raise EventValidationError(
                        f"Step {step.name!r} of saga {name!r} leads to {target!r}; its steps are {names}", field="steps"
                    )

    @property
    def step_names(self) -> list[str]:
        """All step names in order, parallel ones behind the step they accompany."""
        return list(self._by_name)

    def step(self, name: str) -> StepDefinition | None:
        """Return a step by name, or None."""
        return self._by_name.get(name)

    def first(self) -> str | None:
        """Return the name of the first step; None for a saga that only handles events."""
        return self.steps[0].name if self.steps else None

    def after(self, step: StepDefinition) -> str | None:
        """Return the name of the step that follows a finished one; None at the end."""
        if step.next_step is not None:
            return step.next_step
        index = next(index for index, each in enumerate(self.steps) if each.name == step.name)
        return self.steps[index + 1].name if index + 1 < len(self.steps) else None


def as_action(function: Callable[..., Any]) -> Action:
    """Return a function of (ctx) or of (saga, ctx) as an action."""
    required = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) >= 2:
        return function
    return lambda _saga, ctx: function(ctx)
