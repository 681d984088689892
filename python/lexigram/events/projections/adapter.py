"""Runs objects that only follow the contract's structure (`apply(event)`) as projections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.callables import check_runs
from lexigram.events.projections.base import InlineProjection, ProjectionProtocol, raise_if_err, settled
from lexigram.events.projections.routing import EventRoutes, handled_types


class AdaptedProjection(ProjectionProtocol):
    """Wraps an object with `handle_event(event)` or `apply(event)` that is no subclass of ours."""

    def __init__(self, wrapped: Any) -> None:
        super().__init__()
        self.wrapped = wrapped
        self._call = getattr(wrapped, "handle_event", None) or wrapped.apply
        self.in_memory = bool(getattr(wrapped, "in_memory", False))
        self.inline = bool(getattr(wrapped, "inline", False))
        self.depends_on = tuple(getattr(wrapped, "depends_on", ()))  # type: ignore[misc]

    @property
    def name(self) -> str:
        """The wrapped object's name, or that of its class."""
        return str(getattr(self.wrapped, "name", None) or type(self.wrapped).__name__)

    @property
    def handles(self) -> Iterable[type[Any]]:
        """The wrapped object's `handles`, else what its annotation says."""
        return getattr(self.wrapped, "handles", None) or handled_types(type(self.wrapped))

    async def apply(self, event: Any) -> None:
        """Hand the event over."""
        raise_if_err(await settled(self._call(event)))

    async def reset(self) -> None:
        """Reset the wrapped object, if it can be, and forget the position."""
        if hasattr(self.wrapped, "reset"):
            await settled(self.wrapped.reset())
        await super().reset()


def as_projection(candidate: Any) -> ProjectionProtocol:
    """Return `candidate` as a projection of ours.

    Raises:
        EventValidationError: It implements neither `apply` nor `handle_event`, one of them yields, or it has no usable
            name.
    """
    if isinstance(candidate, type):
        raise EventValidationError(f"Register an instance of {candidate.__name__}, not the class", field="projection")
    if not isinstance(candidate, ProjectionProtocol):
        if not callable(getattr(candidate, "handle_event", None)) and not callable(getattr(candidate, "apply", None)):
            raise EventValidationError(
                f"{candidate!r} is no projection: it has neither apply(event) nor handle_event(event)",
                field="projection",
            )
        projection: ProjectionProtocol = AdaptedProjection(candidate)
    elif not _implements(candidate):
        raise EventValidationError(
            f"{type(candidate).__name__} implements neither apply(event) nor handle_event(event)", field="projection"
        )
    else:
        projection = candidate
    for method in ("apply", "handle_event"):
        check_runs(getattr(candidate, method, None), f"{type(candidate).__name__}.{method}", "projection")
    if not isinstance(projection.name, str) or not projection.name:
        raise EventValidationError(f"{type(candidate).__name__}.name must be a non-empty string", field="name")
    EventRoutes(projection.handles)  # a mistake in `handles` shows at registration, not at the first event
    return projection


def _implements(projection: ProjectionProtocol) -> bool:
    cls = type(projection)
    return (
        isinstance(projection, InlineProjection)
        or cls.apply is not ProjectionProtocol.apply
        or cls.handle_event is not ProjectionProtocol.handle_event
        or bool(getattr(projection, "takes_batches", False))
        or bool(projection._handlers)
    )
