"""What a projection is: it names the events it handles and applies them. Source: spec/reference-surface.md."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from lexigram.contracts.core.result import Err
from lexigram.contracts.domain.events import DomainEvent
from lexigram.events.buses._attempt import failure_of
from lexigram.events.buses._handler import check_handler_runs, handle_of, handler_name
from lexigram.events.exceptions import EventError, EventValidationError
from lexigram.events.messages.callables import check_runs
from lexigram.events.messages.kinds import check_kind
from lexigram.events.projections.routing import EventRoutes, handled_types
from lexigram.events.stores._settled import nobody_cancelled

__all__ = ["InlineProjection", "ProjectionCheckpoint", "ProjectionProtocol", "ProjectionStatus"]

Positioned = tuple[Any, int]
"""An event and its global position."""


class ProjectionStatus(StrEnum):
    """Whether a projection takes events; `ProjectionState` tells in more detail what its runner does."""

    RUNNING = "running"
    PAUSED = "paused"
    REBUILDING = "rebuilding"
    ERROR = "error"


@dataclass
class ProjectionCheckpoint:
    """How far a projection has come.

    Args:
        position: Global position of the last event it has processed; 0 before the first.
    """

    projection_name: str
    position: int = 0
    last_processed_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class ProjectionProtocol(ABC):  # noqa: B024 - one of two methods is implemented, checked when it is registered
    """Base of projections: subclass it, set `name` and `handles`, implement `apply(event)` or `handle_event(event)`.

    Both may be plain or coroutine functions. Without `handles` the event parameter's annotation decides (an event class
    or a union of them), and without one the projection receives everything. A class receives its subclasses' events.

    Class attributes:
        name: Unique among the projections of one database; the class name if not set.
        handles: Event classes.
        depends_on: Names of projections that must have processed an event before this one does.
        in_memory: True when the read model lives in this object only, so that every start begins at position 0
            whatever a durable checkpoint store remembers.
        needs_parked: True when its events that were parked must be replayed or purged before it can be reset.
        needs_whole_order: True when events of different streams belong together, so that the log must not be divided
            into partitions for it.
        inline: True to run it in the transaction of each append that concerns it: its rows are visible the moment the
            append returns, and if it fails, the append fails and nothing is stored. On SQLite and PostgreSQL for a
            `DurableProjection`; on the in-memory store for every other. Register it in every process that appends.
    """

    depends_on: ClassVar[Iterable[str]] = ()
    in_memory: bool = False
    inline: bool = False
    needs_whole_order: bool = False
    needs_parked: bool = False
    may_park: bool = False
    """Set for it: whether an event that fails is parked and the next one is applied."""

    def __init__(self) -> None:
        self._begin()

    def __new__(cls, *args: Any, **kwargs: Any) -> ProjectionProtocol:
        self = super().__new__(cls)
        self._begin()  # a subclass that forgets super().__init__() is still a projection
        return self

    def _begin(self) -> None:
        self._checkpoint = ProjectionCheckpoint("")
        self._status = ProjectionStatus.RUNNING
        self._error: str | None = None
        self._handlers: list[Any] = []
        self._routes: EventRoutes | None = None

    @property
    def name(self) -> str:
        """Unique name; the class name unless overridden by a property or a class attribute."""
        return type(self).__name__

    @property
    def handles(self) -> Iterable[type[DomainEvent]]:
        """Event classes this projection wants."""
        return handled_types(type(self))

    @property
    def checkpoint(self) -> ProjectionCheckpoint:
        """Name and position, as last advanced."""
        self._checkpoint.projection_name = self.name
        return self._checkpoint

    @property
    def position(self) -> int:
        """Global position of the last event processed, handled or not; 0 before the first."""
        return self._checkpoint.position

    @property
    def status(self) -> ProjectionStatus:
        """Whether it takes events."""
        return self._status

    @property
    def error(self) -> str | None:
        """The error that stopped it, or None."""
        return self._error

    def can_handle(self, event: Any) -> bool:
        """Return whether the event is of a handled class (subclasses included); cost is one dictionary lookup."""
        if self._routes is None:
            self._routes = EventRoutes(self.handles)
        return self._routes.wants(type(event))

    async def apply(self, event: Any) -> None:
        """Change the read model by one event. Override this or `handle_event`.

        Raises:
            EventValidationError: The class overrides neither.
        """
        if type(self).handle_event is not ProjectionProtocol.handle_event:
            raise_if_err(await settled(self.handle_event(event)))
        elif not self._handlers:
            raise EventValidationError(f"{type(self).__name__} has neither apply() nor handle_event()", field="apply")
        for handler in self._handlers:
            raise_if_err(await settled(handle_of(handler)(event)))

    async def handle_event(self, event: Any) -> None:
        """Change the read model by one event; the documents' name for `apply`."""
        raise_if_err(await settled(self.apply(event)))

    async def handle_late(self, event: Any) -> None:
        """Change the read model by one event that was parked before; like any other, unless overridden."""
        raise_if_err(await settled(self.handle_event(event)))

    def register_event_handler(self, handler: object) -> None:
        """Add a callable or an object with `handle(event)` that is called for every event this projection handles.

        Used by projections that override neither `apply` nor `handle_event`, or that call `super().apply(event)`.
        """
        if not callable(handle_of(handler)):
            raise EventValidationError(f"{handler!r} is neither callable nor has handle(event)", field="handler")
        check_handler_runs(handler)
        self._handlers.append(handler)

    async def reset(self) -> None:
        """Empty the read model; override it to delete rows, and call `super().reset()` to forget the position."""
        self._checkpoint.position = 0
        self._checkpoint.last_processed_at = None

    def advance(self, position: int) -> None:
        """Note that everything up to `position` is processed; a smaller position than the present one is ignored."""
        if position > self._checkpoint.position:
            self._checkpoint.position = position
            self._checkpoint.last_processed_at = datetime.now(UTC)

    def restore_checkpoint(self, checkpoint: ProjectionCheckpoint) -> None:
        """Continue from a stored checkpoint."""
        self._checkpoint = checkpoint

    def pause(self) -> None:
        """Take no more events; position and read model stay."""
        self._status = ProjectionStatus.PAUSED

    def resume(self) -> None:
        """Take events again, from where it stopped; clears the error."""
        self._status = ProjectionStatus.RUNNING
        self._error = None

    def set_error(self, error: str) -> None:
        """Stop with an error; the position stays where it was."""
        self._status = ProjectionStatus.ERROR
        self._error = error

    def set_rebuilding(self) -> None:
        """Note that the read model is being built anew."""
        self._status = ProjectionStatus.REBUILDING
        self._error = None


async def settled(outcome: Any) -> Any:
    """Return `outcome`, awaited if it is awaitable: user code may be plain or asynchronous.

    Raises:
        EventError: LEX_ERR_EVT_001; the code was cancelled from within, for example because a task it waited for was.
    """
    if not inspect.isawaitable(outcome):
        return outcome
    try:
        return await outcome
    except asyncio.CancelledError as error:
        if nobody_cancelled():
            raise EventError("cancelled from within: something it waited for was cancelled", cause=error) from error
        raise


def check_new(event_type: type, known: Container[type]) -> None:
    """Refuse a second function for an event class: which of them counts nobody could tell."""
    if event_type in known:
        raise EventValidationError(f"{event_type.__name__} is handled already", field="event_type")


def raise_if_err(result: Any) -> None:
    """Raise what a handler has returned as an `Err`."""
    if isinstance(result, Err):
        raise failure_of(result)


class InlineProjection(ProjectionProtocol):
    """A projection put together from functions.

    Args:
        in_memory: True when the functions change only memory; then every start begins at position 0.

    Example:
        orders = InlineProjection("orders")

        @orders.handle(OrderPlaced)
        async def placed(event: OrderPlaced) -> None: ...
    """

    def __init__(self, name: str, *, in_memory: bool = False) -> None:
        super().__init__()
        if not isinstance(name, str) or not name:
            raise EventValidationError("A projection needs a name; pass a non-empty string", field="name")
        self._name = name
        self.in_memory = in_memory
        self._functions: dict[type[DomainEvent], Callable[..., Any]] = {}
        self._on_reset: list[Callable[..., Any]] = []
        self._found: dict[type, Callable[..., Any] | None] = {}

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self._name

    @property
    def handles(self) -> tuple[type[DomainEvent], ...]:
        """The classes registered by `handle`."""
        return tuple(self._functions)

    def handle(self, event_type: type[DomainEvent]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that makes a function handle `event_type` and its subclasses (the nearest class wins).

        Raises:
            EventValidationError: LEX_ERR_EVT_024; not an event class, it has its function already, or not a function.
        """
        check_kind(event_type, "event", "event_type")

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            if not callable(function):
                raise EventValidationError(f"{function!r} is not a function", field="function")
            check_runs(function, handler_name(function), "function")
            check_new(event_type, self._functions)
            self._functions[event_type] = function
            self._routes = None
            self._found.clear()
            return function

        return decorate

    def on_reset(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function, plain or asynchronous, that empties the read model before a rebuild."""
        check_runs(func, handler_name(func), "func")
        self._on_reset.append(func)
        return func

    async def apply(self, event: Any) -> None:
        """Call the function of the event's class, or of its nearest parent class that has one."""
        cls = type(event)
        if cls not in self._found:
            self._found[cls] = next((self._functions[base] for base in cls.__mro__ if base in self._functions), None)
        function = self._found[cls]
        if function is not None:
            raise_if_err(await settled(function(event)))

    async def reset(self) -> None:
        """Run the `on_reset` functions and forget the position."""
        for function in self._on_reset:
            await settled(function())
        await super().reset()


def wanted_by(projection: ProjectionProtocol, batch: Sequence[Positioned]) -> list[Positioned]:
    """Return what a projection handles. It is asked once per class of event: catching up is mostly this loop."""
    can_handle = projection.can_handle
    if type(projection).can_handle is not ProjectionProtocol.can_handle:
        return [item for item in batch if can_handle(item[0])]  # the projection's own rule may look at the values
    handled: dict[type, bool] = {}
    wanted = []
    for item in batch:
        cls = type(item[0])
        verdict = handled.get(cls)
        if verdict is None:
            verdict = handled[cls] = can_handle(item[0])
        if verdict:
            wanted.append(item)
    return wanted
