"""Empty aggregates for a repository to replay events onto."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from uuid import UUID

from lexigram.events.aggregates.fields import fill_defaults, plan_of

Factory = Callable[[UUID | str], Any]


def empty_aggregate(cls: type[Any], aggregate_id: UUID | str) -> Any:
    """Return an aggregate without history that has the given id, as given (UUID or str).

    A class with the inherited constructor gets its fields' defaults; required fields stay unset until an event sets
    them. A class with its own `__init__` is called if it can be given an id alone (a parameter `id` or
    `aggregate_id`, a single required parameter ending in `_id`, or no required parameter); otherwise, or if
    construction emits events, `__init__` is bypassed. A repository takes `factory=` for everything else.
    """
    make = cls.__dict__.get("_empty_factory")
    if make is None:
        make = _choose(cls)
        cls._empty_factory = staticmethod(make)
        return make(aggregate_id)
    return make.__func__(aggregate_id)


def bypasses_constructor(cls: type[Any]) -> bool:
    """Whether `empty_aggregate` cannot run the class's own `__init__`, because it needs more than an id."""
    from lexigram.events.aggregates.aggregate import AggregateRoot

    return cls.__init__ is not AggregateRoot.__init__ and _id_parameter(cls) is None


def _choose(cls: type[Any]) -> Factory:
    def bypassed(aggregate_id: UUID | str) -> Any:
        aggregate = object.__new__(cls)
        fill_defaults(aggregate, plan_of(cls))
        aggregate.__dict__["id"] = aggregate_id
        return aggregate

    def finished(aggregate_id: UUID | str) -> Any:
        aggregate = bypassed(aggregate_id)
        aggregate.__post_init__()
        return aggregate

    from lexigram.events.aggregates.aggregate import AggregateRoot

    if cls.__init__ is AggregateRoot.__init__:
        return bypassed if cls.__post_init__ is AggregateRoot.__post_init__ else finished
    how = _id_parameter(cls)
    if how is None:
        return bypassed

    def called(aggregate_id: UUID | str) -> Any:
        aggregate = cls(**{how: aggregate_id}) if how else cls()
        if aggregate._pending_events:
            return bypassed(aggregate_id)
        aggregate.id = aggregate_id
        return aggregate

    return called


def _id_parameter(cls: type[Any]) -> str | None:
    """Return the constructor's parameter for the id, "" if it can be called without any, None if it cannot be used."""
    parameters = [
        p
        for p in list(inspect.signature(cls.__init__).parameters.values())[1:]
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    required = [p.name for p in parameters if p.default is p.empty]
    for name in ("id", "aggregate_id"):
        if any(p.name == name for p in parameters) and set(required) <= {name}:
            return name
    if not required:
        return ""
    return required[0] if len(required) == 1 and required[0].endswith("_id") else None
