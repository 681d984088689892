"""How a saga is written: a class with steps, and optionally with events that start and continue it.

Source: spec/architecture.md, spec/reference-surface.md, lexigram.contracts.workflow.SagaProtocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, TypeVar, overload

from lexigram.events.exceptions import EventValidationError
from lexigram.events.sagas.context import SagaContext
from lexigram.events.sagas.definition import Action, RetryPolicy, SagaDefinition, StepDefinition, as_action
from lexigram.events.sagas.types import now

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__saga_step__"


@dataclass(frozen=True)
class StepOptions:
    """What `saga_step` notes on a method."""

    name: str
    undoes: bool = False
    compensation: Callable[..., Any] | str | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None


@overload
def saga_step(name: F) -> F: ...
@overload
def saga_step(
    name: str | None = None,
    *,
    compensation: bool | str | Callable[..., Any] = False,
    max_retries: int | None = None,
    retry_delay: float | None = None,
    timeout: float | None = None,
    retry_on: tuple[type[BaseException], ...] | None = None,
) -> Callable[[F], F]: ...
def saga_step(
    name: Any = None,
    *,
    compensation: bool | str | Callable[..., Any] = False,
    max_retries: int | None = None,
    retry_delay: float | None = None,
    timeout: float | None = None,
    retry_on: tuple[type[BaseException], ...] | None = None,
) -> Any:
    """Make a method a step of its saga; steps run in the order in which they are defined, those of base classes first.

    Args:
        name: The step's name; that of the method if None.
        compensation: A function of `(self, ctx)` or `(ctx)`, or a method's name, that undoes the step; or True, which
            makes the decorated method itself the one that undoes the step called `name`.
        max_retries: Further attempts after the first, from 0; None = configuration (3).
        retry_delay: Seconds before the first of them, then doubling; None = configuration (1.0).
        timeout: Seconds for one attempt, above 0; None = only the saga's deadline.
        retry_on: Exceptions worth another attempt; None = all but plain programming errors such as KeyError.

    Raises:
        EventValidationError: A number is out of range, or `compensation=True` without a name.
    """
    if callable(name):
        return saga_step()(name)
    if name is not None and (not isinstance(name, str) or not name):
        raise EventValidationError(f"A step name must be a non-empty string, not {name!r}", field="name")
    if compensation is True and name is None:
        raise EventValidationError(
            'compensation=True needs the name of the step: @saga_step("charge", …)', field="name"
        )
    if max_retries is not None and max_retries < 0:
        raise EventValidationError(f"max_retries must be at least 0, not {max_retries}", field="max_retries")
    if retry_delay is not None and retry_delay < 0:
        raise EventValidationError(f"retry_delay must be at least 0 seconds, not {retry_delay}", field="retry_delay")
    if timeout is not None and timeout <= 0:
        raise EventValidationError(f"timeout must be above 0 seconds, not {timeout}", field="timeout")

    def decorate(function: F) -> F:
        options = StepOptions(
            name or function.__name__,
            undoes=compensation is True,
            compensation=None if isinstance(compensation, bool) else compensation,
            retry=RetryPolicy(max_retries, retry_delay, retry_on),
            timeout=timeout,
        )
        setattr(function, _MARK, options)
        return function

    return decorate


class SagaBase:
    """Base of sagas: methods decorated with `@saga_step`, run in order of definition and undone in reverse.

    A saga may also, or only, react to events: list classes in `start_events` and `continue_events`, tell with
    `correlation_key` which saga an event belongs to, and implement `handle`.

    Class attributes:
        name: Stored with every saga of this class; the class name if empty.
        timeout: Seconds until the whole saga times out; None = configuration (300), `math.inf` = never.
        start_events: Events that begin a saga unless there is one of the same correlation key.
        continue_events: Events that are handed to a saga that is there; others are ignored.
    """

    name: ClassVar[str] = ""
    timeout: ClassVar[float | None] = None
    start_events: ClassVar[Iterable[type[Any]]] = ()
    continue_events: ClassVar[Iterable[type[Any]]] = ()

    context: SagaContext
    """The saga whose event is being handled; set before `handle` is called."""

    @classmethod
    def saga_name(cls) -> str:
        """Return the name under which sagas of this class are stored."""
        return cls.name or cls.__name__

    def correlation_key(self, event: Any) -> str | None:
        """Return what ties `event` to one saga: its correlation id, else its aggregate id. None ignores the event."""
        key = event.correlation_id if getattr(event, "correlation_id", None) is not None else event.aggregate_id
        return None if key is None else str(key)

    def start_data(self, event: Any) -> dict[str, Any]:
        """Return the data a saga begins with when `event` starts it; by default the event's own fields."""
        from lexigram.events.sagas.events import own_fields

        return own_fields(event)

    async def handle(self, event: Any) -> list[Any]:
        """React to a start or continue event: change `self.context.data`, return the commands to dispatch.

        The commands are stored with the new state and dispatched after that, in order, each in one transaction with
        the note that it was: exactly once where command handlers write to the same database, and again, with the same
        id, after a crash elsewhere. A failing one is tried again like a step; see `command_failed`.
        """
        return []

    async def on_timer(self, name: str) -> list[Any]:
        """React to a timer that is due: like `handle`. Called once for each timer, after restarts too."""
        return []

    async def on_timeout(self) -> list[Any]:
        """Return the commands to dispatch before the saga ends as TIMED_OUT; called once if it waits for events then."""
        return []

    async def command_failed(self, command: Any, error: Exception) -> list[Any] | None:
        """React to a command that failed for good: return the commands to dispatch instead.

        None, the default, ends the saga as FAILED with the command kept, so that an operator's `retry` sends it again.
        """
        return None

    def set_timer(self, name: str, after: float | timedelta) -> None:
        """Call `on_timer(name)` after so many seconds, whatever restarts in between; replaces a timer of this name.

        Args:
            name: What `on_timer` gets.
            after: Seconds from now, from 0, or a duration. The moment is kept by the wall clock.
        """
        delay = after if isinstance(after, timedelta) else timedelta(seconds=after)
        if delay < timedelta(0):
            raise EventValidationError(f"after must be at least 0 seconds, not {after!r}", field="after")
        self.context.timers[name] = now() + delay

    def cancel_timer(self, name: str) -> None:
        """Forget a timer; one that is not set is fine."""
        self.context.timers.pop(name, None)

    def complete(self) -> None:
        """Call when handling an event or timer: the saga ends once the commands returned are dispatched."""
        self.context.metadata["outcome"] = "completed"

    def accepts_steps(self, stored: list[str], present: list[str]) -> bool:
        """Return whether a saga in flight that began with the steps `stored` may go on with the `present` ones."""
        return stored == present


def definition_of(saga_class: type[SagaBase]) -> SagaDefinition:
    """Return the steps of a saga class.

    Raises:
        EventValidationError: A compensation names no step, or a step is undone twice.
    """
    attributes: dict[str, StepOptions] = {}
    for base in reversed(saga_class.__mro__):
        for attribute, value in base.__dict__.items():
            options = getattr(value, _MARK, None)
            if options is not None:
                attributes[attribute] = options
            elif attribute in attributes and not callable(value):
                del attributes[attribute]  # a subclass dropped the step: `reserve = None`
    undoing: dict[str, tuple[Action, RetryPolicy]] = {}
    forward = {attribute: options for attribute, options in attributes.items() if not options.undoes}
    for attribute, options in attributes.items():
        if options.undoes:
            if options.name not in {step.name for step in forward.values()} or options.name in undoing:
                raise EventValidationError(
                    f"{saga_class.__name__}.{attribute} undoes {options.name!r}, which is "
                    + ("undone already" if options.name in undoing else "no step"),
                    field="compensation",
                )
            undoing[options.name] = (_method(attribute), options.retry)
    steps = []
    for attribute, options in forward.items():
        undo, retry = undoing.get(options.name, (_compensation(saga_class, options.compensation), options.retry))
        steps.append(StepDefinition(options.name, _method(attribute), undo, options.retry, retry, options.timeout))
    return SagaDefinition(saga_class.saga_name(), steps, timeout=saga_class.timeout)


def _method(attribute: str) -> Action:
    return lambda saga, ctx: getattr(saga, attribute)(ctx)


def _compensation(saga_class: type[SagaBase], given: Callable[..., Any] | str | None) -> Action | None:
    if given is None:
        return None
    name = given if isinstance(given, str) else getattr(given, "__name__", "")
    found = getattr(saga_class, name, None)
    if isinstance(given, str):
        if not callable(found):
            raise EventValidationError(f"{saga_class.__name__} has no method {given!r}", field="compensation")
        return _method(given)
    # A function of the class body is looked up by name, so that a subclass may override it.
    inherited = any(base.__dict__.get(name) is given for base in saga_class.__mro__)
    return _method(name) if inherited else as_action(given)
