"""Sagas put together from action objects instead of a class. Source: spec/reference-surface.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from lexigram.events.exceptions import EventValidationError
from lexigram.events.sagas.context import SagaContext, SagaStepResult
from lexigram.events.sagas.definition import Action, SagaDefinition, StepDefinition
from lexigram.events.sagas.operations import SagaOperations


@runtime_checkable
class SagaAction(Protocol):
    """Something that can be done and undone."""

    async def execute(self, ctx: SagaContext) -> SagaStepResult:
        """Do it."""
        ...

    async def compensate(self, ctx: SagaContext) -> SagaStepResult:
        """Undo it."""
        ...


@dataclass
class OrchestratedStep:
    """One step of an orchestrated saga.

    Args:
        next_step: Name of the step to go to after success; None = the next in the list.
        on_failure: Name of the step to go to after failure; None = compensate.
        parallel: Steps carried out at the same time.
    """

    name: str
    action: SagaAction
    next_step: str | None = None
    on_failure: str | None = None
    parallel: list[OrchestratedStep] = field(default_factory=list)


class SagaOrchestrator(SagaOperations):
    """Runs sagas defined as lists of steps; stores, resumes and compensates like `SagaManager`."""

    def define(self, saga_name: str, steps: list[OrchestratedStep]) -> None:
        """Make a saga known.

        Raises:
            EventValidationError: No steps, a name used twice, an action that cannot execute, or a jump to nowhere.
        """
        if not steps:
            raise EventValidationError(f"Saga {saga_name!r} has no steps", field="steps")
        self._define(SagaDefinition(saga_name, [_definition(step) for step in steps]))


def _definition(step: OrchestratedStep) -> StepDefinition:
    if not callable(getattr(step.action, "execute", None)):
        raise EventValidationError(f"The action of step {step.name!r} has no execute(ctx)", field="action")
    undo = step.action.compensate if callable(getattr(step.action, "compensate", None)) else None
    return StepDefinition(
        step.name,
        _unbound(step.action.execute),
        None if undo is None else _unbound(undo),
        next_step=step.next_step,
        on_failure=step.on_failure,
        parallel=tuple(_definition(each) for each in step.parallel),
    )


def _unbound(method: Any) -> Action:
    return lambda _saga, ctx: method(ctx)
