"""Value objects: immutable, compared by value. Source: spec/api-reference.md."""

from __future__ import annotations

import dataclasses as dc
from abc import ABC
from typing import Any, Generic, Self, TypeVar, dataclass_transform

import pydantic

from lexigram.domain import ValueObject as FrameworkValueObject
from lexigram.events.aggregates.fields import construct, copied, declare_fields

TValue = TypeVar("TValue")


@dataclass_transform(frozen_default=True, field_specifiers=(dc.field, dc.Field, pydantic.Field))
class ValueObject(FrameworkValueObject, ABC):
    """An immutable object without identity; two of the same class are equal if all their fields are.

    Fields are given by position or keyword. Lists, dictionaries and sets may be fields: the object still has a hash,
    but their content must not be changed. Define `__post_init__` to reject values that make no sense.

    Raises:
        TypeError: A required field is missing or an argument is unknown.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declare_fields(cls, frozen=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        construct(self, args, kwargs)

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values for the fields in `update`, checked like new ones; values in it stay such.

        Raises:
            TypeError: `update` names what is no field.
        """
        copy: Self = copied(self, None, deep)
        return dc.replace(copy, **update) if update else copy

    def __setattr__(self, name: str, value: Any) -> None:
        raise dc.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dc.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:  # type: ignore[override]
        return hash((type(self), *(_hashable(getattr(self, f.name)) for f in dc.fields(self) if f.compare)))

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dc.fields(self) if f.repr)
        return f"{type(self).__name__}({shown})"


class SingleValueObject(ValueObject, Generic[TValue]):
    """A value object around one `value`, such as an e-mail address; `str()` shows the value."""

    value: TValue

    def __str__(self) -> str:
        return str(self.value)


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return frozenset((key, _hashable(item)) for key, item in value.items())
    if isinstance(value, set):
        return frozenset(value)
    return value
