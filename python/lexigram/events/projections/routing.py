"""Which event classes a projection or saga wants: from a declaration or from an annotation."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from lexigram.contracts.domain.events import DomainEvent
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.kinds import check_kind


class EventRoutes:
    """A set of event classes, subclasses included, with the answer remembered per concrete class."""

    __slots__ = ("_known", "types")

    def __init__(self, wanted: Iterable[type[Any]]) -> None:
        if callable(wanted) and not isinstance(
            wanted, type
        ):  # a method, as in the contract's MultiEventHandlerProtocol
            wanted = wanted()
        if isinstance(wanted, str) or not isinstance(wanted, type | Iterable):
            raise EventValidationError(f"handles must list event classes, not {wanted!r}", field="handles")
        self.types = (wanted,) if isinstance(wanted, type) else tuple(wanted)
        for cls in self.types:
            if not isinstance(cls, type):
                raise EventValidationError(f"handles must list event classes, not {cls!r}", field="handles")
            check_kind(cls, "event", "handles")
        self._known: dict[type, bool] = {}

    def wants(self, cls: type) -> bool:
        """Return whether events of `cls` are wanted."""
        known = self._known.get(cls)
        if known is None:
            known = self._known[cls] = issubclass(cls, self.types)
        return known


def handled_types(cls: type) -> tuple[type[Any], ...]:
    """Return the event classes that `handle_event` or `apply` of `cls` is annotated with; every event if none."""
    for method in ("handle_event", "apply"):
        function = next((base.__dict__[method] for base in cls.__mro__ if method in base.__dict__), None)
        found = _annotated(function) if callable(function) else ()
        if found:
            return found
    return (DomainEvent,)


def _annotated(function: Callable[..., Any]) -> tuple[type[Any], ...]:
    """Return the event classes in the annotation of the first parameter after self."""
    names = list(inspect.signature(function).parameters)[1:2]
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):  # a name that exists only for the type checker
        return ()
    annotation = hints.get(names[0]) if names else None
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if union else (annotation,)
    found = tuple(member for member in members if isinstance(member, type) and issubclass(member, DomainEvent))
    return found if len(found) == len(members) else ()
