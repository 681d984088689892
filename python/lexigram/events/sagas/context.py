"""What a saga step receives and returns. Source: spec/reference-surface.md, spec/architecture.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, overload

from lexigram.events.exceptions import SagaError
from lexigram.events.sagas.types import SagaRecord, SagaStatus


class Services:
    """Services by name or type: `ctx.services.inventory`, `ctx.services[Inventory]`.

    Args:
        source: A mapping of names or types to services, an object with them as attributes, or a container with
            `resolve(type)`.
    """

    __slots__ = ("_source",)

    def __init__(self, source: Any = None) -> None:
        self._source = {} if source is None else source

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        source = self._source
        if isinstance(source, Mapping):
            if name in source:
                return source[name]
        elif hasattr(source, name):
            return getattr(source, name)
        raise SagaError(f"There is no service {name!r}; pass it in services= of the SagaManager")

    def __getitem__(self, key: Any) -> Any:
        source = self._source
        if isinstance(source, Mapping) and key in source:
            return source[key]
        if isinstance(key, str):
            return getattr(self, key)
        if isinstance(source, Mapping):
            found = [service for service in source.values() if isinstance(service, key)]
            if len(found) == 1:
                return found[0]
        elif hasattr(source, "resolve"):
            return source.resolve(key)  # a container's resolve is usually a coroutine: await services[Type]
        raise SagaError(f"There is no service {getattr(key, '__name__', key)}; pass it in services= of the SagaManager")


@dataclass
class SagaContext:
    """What a step sees.

    Args:
        data: Shared by all steps and stored after each; values as in events.
        step_results: Output of the finished steps by name.
        services: What the manager was given, or the container.
        step_name: The step being run.
        attempt: Its attempt, from 1.
        is_undoing: Whether its compensation is being run.
        timers: When each timer is due; `SagaBase.set_timer` and `cancel_timer` change it.
    """

    saga_id: str
    saga_name: str
    data: dict[str, Any] = field(default_factory=dict)
    step_results: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    services: Any = field(default_factory=Services, repr=False)
    step_name: str = ""
    attempt: int = 1
    is_undoing: bool = False
    timers: dict[str, datetime] = field(default_factory=dict)
    _children: Callable[[str], SagaRecord | None] | None = field(default=None, repr=False, compare=False)

    async def run_saga(self, saga_name: str, data: Mapping[str, Any] | None = None, *, key: str = "") -> SagaRecord:
        """Run another saga as part of this step, and return its record once it has completed.

        The first call leaves the step, with everything it has appended rolled back; when the other saga has ended, the
        step is called again from its beginning and goes on behind this call. Keep what comes before it repeatable. If
        this saga has to be compensated later, the other one is compensated too, before the step's own compensation.

        Args:
            saga_name: A saga registered with the same manager.
            data: What its steps find in `ctx.data`.
            key: Tells sagas of the same name in one step apart.

        Raises:
            SagaError: LEX_ERR_EVT_026; it ended otherwise than completed (this step is not tried again), or its name
                is unknown, or this is no step going forward by itself (parallel ones cannot).
        """
        if self._children is None:
            raise SagaError(f"ctx.run_saga({saga_name!r}) can only be called in a step that goes forward by itself")
        child_id = f"{self.saga_id}/{self.step_name}/{saga_name}{key and ':' + key}"
        record = self._children(child_id)
        if record is None or record.status.is_unfinished:
            raise ChildNeeded(child_id, saga_name, dict(data or {}))
        if record.status is not SagaStatus.COMPLETED:
            raise ChildFailed(f"Saga {child_id!r} ended as {record.status.value}: {record.error}")
        return record

    @property
    def idempotency_key(self) -> str:
        """A key that stays the same when the step is tried again: give it to services outside of this database.

        Its compensation has another one, which stays the same too: a refund is no repetition of the payment.
        """
        return f"{self.saga_id}:{self.step_name}{':undo' if self.is_undoing else ''}"


class ChildNeeded(BaseException):
    """Leaves a step that needs the outcome of another saga; no handler of ordinary errors may swallow it."""

    def __init__(self, saga_id: str, saga_name: str, data: dict[str, Any]) -> None:
        super().__init__(saga_id)
        self.saga_id, self.saga_name, self.data = saga_id, saga_name, data


class ChildFailed(SagaError):
    """A saga that a step has run did not complete; running the step again cannot change that."""


class _Success:
    """`SagaStepResult.success(data=…)` on the class, the flag on an instance."""

    @overload
    def __get__(self, instance: None, owner: type[SagaStepResult]) -> Callable[..., SagaStepResult]: ...
    @overload
    def __get__(self, instance: SagaStepResult, owner: type[SagaStepResult]) -> bool: ...
    def __get__(self, instance: SagaStepResult | None, owner: type[SagaStepResult]) -> Any:
        if instance is not None:
            return instance._success

        def success(data: dict[str, Any] | None = None, **more: Any) -> SagaStepResult:
            return owner(True, {**(data or {}), **more})

        return success

    def __set__(self, instance: SagaStepResult, value: bool) -> None:
        instance._success = bool(value)


class SagaStepResult:
    """Outcome of a step.

    Args:
        success: Whether it succeeded. On the class, `SagaStepResult.success(data=…)` builds a success.
        output: What later steps find in `step_results`; also readable as `data`.
        error: Why it failed.
        retry_after: Seconds until the step is to be tried again; None = do not.
    """

    success = _Success()
    _success: bool

    def __init__(
        self,
        success: bool,
        output: dict[str, Any] | None = None,
        error: str | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        self.success = success
        self.output = {} if output is None else output
        self.error = error
        self.retry_after = retry_after

    @property
    def data(self) -> dict[str, Any]:
        """The output."""
        return self.output

    @classmethod
    def Ok(cls, output: dict[str, Any] | None = None) -> SagaStepResult:
        """Return a success."""
        return cls(True, output)

    @classmethod
    def fail(cls, error: str) -> SagaStepResult:
        """Return a failure that is not retried: the saga compensates."""
        return cls(False, error=str(error))

    @classmethod
    def retry(cls, error: str = "The step asked to be tried again", delay: float = 0.0) -> SagaStepResult:
        """Return a failure that is tried again after `delay` seconds, at most `max_retries` times."""
        return cls(False, error=str(error), retry_after=delay)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SagaStepResult):
            return NotImplemented
        return (self.success, self.output, self.error) == (other.success, other.output, other.error)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SagaStepResult(success={self.success}, output={self.output!r}, error={self.error!r})"


def as_result(value: Any) -> SagaStepResult:
    """Return what a step returned as a result: a framework `Result` too; any plain value is a success."""
    if isinstance(value, SagaStepResult):
        return value
    if callable(getattr(value, "is_err", None)) and callable(getattr(value, "unwrap_err", None)):
        if value.is_err():
            return SagaStepResult.fail(str(value.unwrap_err()))
        value = value.unwrap()
    if value is None:
        return SagaStepResult.Ok()
    return SagaStepResult.Ok(dict(value) if isinstance(value, Mapping) else {"result": value})
