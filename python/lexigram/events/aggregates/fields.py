"""Annotated fields of aggregates, entities and value objects: defaults, construction, empty instances.

A class body such as `items: list[Item] = Field(default_factory=list)` (pydantic's or dataclasses' `field`) or
`items: list[Item] = []` is turned into dataclass fields when the class is created, so `dataclasses.fields`,
`model_dump` and the codec see them; decorating the class with `@dataclass` on top works too.
"""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Callable
from copy import copy as shallow_copy
from copy import deepcopy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from types import FunctionType
from typing import Any
from uuid import UUID

from lexigram.domain import DomainModel
from lexigram.events.messages.annotations import own_annotations
from lexigram.events.messages.event import new_id

_SHARED = (
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    Decimal,
    UUID,
    date,
    datetime,
    time,
    timedelta,
    Enum,
    type,
)
_CONSTRAINTS = {"gt", "ge", "lt", "le", "min_length", "max_length", "pattern"}


class FieldPlan:
    """What construction needs to know about one class, computed once.

    Attributes:
        class_variables: Declared, but no field of instances.
        names: Constructor parameters in order of declaration, base classes first.
        constants: Defaults that all instances can share.
        factories: Name and factory of every other default.
        required: Fields without a default.
        defaulted: Fields with one, except the id: every snapshot has them.
        validated: Whether the framework's validators or field constraints apply.
    """

    __slots__ = (
        "class_variables",
        "constants",
        "defaulted",
        "factories",
        "names",
        "positional",
        "required",
        "validated",
    )

    def __init__(self, cls: type[Any]) -> None:
        fields = dc.fields(cls)  # without class variables, which stay with the class
        own = [f for f in fields if f.name != "_pending_events"]
        self.class_variables = cls.__dataclass_fields__.keys() - {f.name for f in fields}
        self.names = frozenset(f.name for f in own if f.init)
        self.positional = tuple(f.name for f in own if f.init and not f.kw_only)
        self.constants = {f.name: f.default for f in fields if f.default is not dc.MISSING}
        self.factories: tuple[tuple[str, Callable[[], Any]], ...] = tuple(
            (f.name, f.default_factory) for f in fields if f.default_factory is not dc.MISSING
        )
        self.required = tuple(
            f.name for f in own if f.init and f.default is dc.MISSING and f.default_factory is dc.MISSING
        )
        self.defaulted = frozenset(f.name for f in own) - {"id", *self.required}
        self.validated = bool(
            cls._field_validators
            or any(cls._model_validators.values())
            or any(_CONSTRAINTS & f.metadata.keys() for f in own)
        )


def declare_fields(cls: type[Any], *, frozen: bool = False) -> None:
    """Turn the annotations of a class body into dataclass fields; a class that is a dataclass already is left alone."""
    if "__dataclass_params__" in cls.__dict__:
        return
    _undo_decorated_bases(cls)
    for name in own_annotations(cls):
        default = cls.__dict__.get(name, dc.MISSING)
        if default is not dc.MISSING and _needs_copy(default):
            setattr(cls, name, _copied_per_instance(default))
    dc.dataclass(init=False, eq=False, repr=False, frozen=frozen)(cls)
    if frozen:  # the base class refuses assignments; `@dataclass(frozen=True)` on top wants to say so itself
        for method in ("__setattr__", "__delattr__"):
            delattr(cls, method)
    for name in own_annotations(cls):
        declared = cls.__dataclass_fields__.get(name)
        if declared is not None and declared.default_factory is not dc.MISSING and name not in cls.__dict__:
            # `@dataclass` on top of this class looks for the default here again.
            setattr(cls, name, dc.field(default_factory=declared.default_factory, metadata=declared.metadata))


def _undo_decorated_bases(cls: type[Any]) -> None:
    """Below a class with `@dataclass` on it, construct, compare and show all fields again, not only those of that class."""
    for name in ("__init__", "__repr__", "__eq__", "__hash__"):
        owners = [base for base in cls.__mro__ if name in base.__dict__]
        if owners[0] is not cls and _is_generated(owners[0], name):
            setattr(cls, name, next(base for base in owners if not _is_generated(base, name)).__dict__[name])


def _is_generated(cls: type[Any], name: str) -> bool:
    """Whether `@dataclass` put this method into this class; it compiles methods from strings, and a hash can be None."""
    method = cls.__dict__[name]
    if method is None:
        return "__eq__" in cls.__dict__ and _is_generated(cls, "__eq__")
    function = getattr(method, "__wrapped__", method)
    return isinstance(function, FunctionType) and function.__code__.co_filename == "<string>"


def _needs_copy(default: Any) -> bool:
    if isinstance(default, dc.Field):
        return default.default is not dc.MISSING and _needs_copy(default.default)
    return not isinstance(default, _SHARED) and not hasattr(type(default), "__get__")


def _copied_per_instance(default: Any) -> dc.Field[Any]:
    metadata = None
    if isinstance(default, dc.Field):
        default, metadata = default.default, default.metadata
    made: dc.Field[Any] = dc.field(default_factory=partial(deepcopy, default), metadata=metadata)
    return made


def plan_of(cls: type[Any]) -> FieldPlan:
    """Return the field plan of `cls`, computed on first use."""
    plan = cls.__dict__.get("_field_plan")
    if plan is None:
        plan = FieldPlan(cls)
        cls._field_plan = plan
    return plan


def fill_defaults(instance: Any, plan: FieldPlan) -> None:
    """Set every field that has a default, bypassing `__setattr__`."""
    values = instance.__dict__
    values.update(plan.constants)
    for name, factory in plan.factories:
        values[name] = factory()


def construct(instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Give a new instance its field values: positional in order of declaration, the rest by keyword.

    Raises:
        TypeError: A required field is missing, or an argument is unknown or given twice.
        ValidationError: A validator or field constraint of the class rejects a value.
    """
    cls = type(instance)
    plan = plan_of(cls)
    if args:
        if len(args) > len(plan.positional):
            raise TypeError(
                f"{cls.__name__}() takes at most {len(plan.positional)} positional arguments, {len(args)} given"
            )
        given = dict(zip(plan.positional, args, strict=False))
        twice = given.keys() & kwargs.keys()
        if twice:
            raise TypeError(f"{cls.__name__}() got multiple values for {', '.join(sorted(twice))}")
        kwargs = {**given, **kwargs}
    missing = [name for name in plan.required if name not in kwargs]
    if missing:
        raise TypeError(f"{cls.__name__}() missing required arguments: {', '.join(missing)}")
    unknown = kwargs.keys() - plan.names
    if unknown:
        raise TypeError(f"{cls.__name__}() got unexpected arguments: {', '.join(sorted(unknown))}")
    if plan.validated:
        if "id" in plan.names and kwargs.get("id") is None:
            kwargs = {**kwargs, "id": new_id()}
        DomainModel.__init__(instance, **kwargs)
        for name in plan.class_variables:
            instance.__dict__.pop(name, None)  # the framework copies their defaults
        return
    fill_defaults(instance, plan)
    instance.__dict__.update(kwargs)
    finish = getattr(instance, "__post_init__", None)
    if finish is not None:
        finish()


def copied(instance: Any, update: dict[str, Any] | None, deep: bool) -> Any:
    """Return a copy with other values for some fields; what is in it stays what it is, unlike in the framework's copies.

    Raises:
        TypeError: `update` names what is no field.
    """
    unknown = (update or {}).keys() - plan_of(type(instance)).names
    if unknown:
        raise TypeError(f"{type(instance).__name__} has no field {', '.join(sorted(unknown))}")
    copy = deepcopy(instance) if deep else shallow_copy(instance)
    copy.__dict__.update(update or {})
    return copy
