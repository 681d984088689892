"""pydantic's `Field(...)` in a message class, as value or in `Annotated[...]`: default, factory and constraints.

The constraints become metadata of the dataclass field, under the names that the framework's own models use;
`ValidationMiddleware` checks them. Replayed events are not checked again: what happened stays readable.
"""

from __future__ import annotations

import dataclasses as dc
import sys
import typing
from collections.abc import Iterable
from types import MappingProxyType, MemberDescriptorType, NoneType, UnionType
from typing import Any, Final

from lexigram.events.messages.annotations import own_annotations, resolve_text

CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


def adopt_pydantic_fields(cls: type) -> None:
    """Replace each `FieldInfo` of a class body, or of an annotation, by the dataclass field that means the same."""
    pydantic = sys.modules.get("pydantic.fields")  # no body can hold one before somebody imported pydantic
    if pydantic is None:
        return
    for name, value in list(vars(cls).items()):
        if isinstance(value, pydantic.FieldInfo):
            setattr(cls, name, _dataclass_field(value))
    for name, annotation in own_annotations(cls).items():
        parts, value = _parts(annotation, cls), cls.__dict__.get(name, dc.MISSING)
        if parts and not isinstance(value, MemberDescriptorType):
            setattr(cls, name, _annotated_field(parts, value, pydantic.FieldInfo))


def _parts(annotation: Any, owner: type) -> tuple[Any, ...]:
    """Return what stands in `Annotated[...]` behind the type; None may be another choice."""
    if isinstance(annotation, str):
        annotation = resolve_text(annotation, owner) if "Annotated[" in annotation else None
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        annotation = next((member for member in typing.get_args(annotation) if member is not NoneType), None)
    is_annotated = typing.get_origin(annotation) is typing.Annotated
    return typing.get_args(annotation)[1:] if is_annotated else ()


def _annotated_field(parts: tuple[Any, ...], value: Any, info_class: type) -> Any:
    """Return a dataclass field for what an annotation says besides the type, and the value in the class body."""
    infos: list[Any] = [part for part in parts if isinstance(part, info_class)]
    if value is dc.MISSING and infos:
        value = _dataclass_field(infos[-1])
    metadata = _constraints((*parts, *(part for info in infos for part in info.metadata)))
    if not isinstance(value, dc.Field):
        return dc.field(metadata=metadata) if value is dc.MISSING else dc.field(default=value, metadata=metadata)
    value.metadata = MappingProxyType({**metadata, **value.metadata})
    return value


def _constraints(parts: Iterable[Any]) -> dict[str, Any]:
    """Return the constraints that parts of an annotation express, as `Gt(3)` does, by name."""
    return {
        name: getattr(part, name) for part in parts for name in CONSTRAINTS if getattr(part, name, None) is not None
    }


def _dataclass_field(info: Any) -> Any:
    metadata = _constraints(info.metadata)
    if info.description:
        metadata["description"] = info.description
    if info.default_factory is not None:
        return dc.field(default_factory=info.default_factory, metadata=metadata)
    if info.is_required():
        return dc.field(metadata=metadata)
    return dc.field(default=info.default, metadata=metadata)
