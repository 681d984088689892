"""pydantic's `Field(...)` in the body of a message class, as in aggregates: default, factory and constraints.

The constraints become metadata of the dataclass field, under the names that the framework's own models use;
`ValidationMiddleware` checks them. Replayed events are not checked again: what happened stays readable.
"""

from __future__ import annotations

import dataclasses as dc
import sys
from typing import Any, Final

CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


def adopt_pydantic_fields(cls: type) -> None:
    """Replace each `FieldInfo` of a class body by the dataclass field that means the same."""
    pydantic = sys.modules.get("pydantic.fields")  # no body can hold one before somebody imported pydantic
    if pydantic is None:
        return
    for name, value in list(vars(cls).items()):
        if isinstance(value, pydantic.FieldInfo):
            setattr(cls, name, _dataclass_field(value))


def _dataclass_field(info: Any) -> Any:
    metadata = {
        name: getattr(part, name)
        for part in info.metadata
        for name in CONSTRAINTS
        if getattr(part, name, None) is not None
    }
    if info.description:
        metadata["description"] = info.description
    if info.default_factory is not None:
        return dc.field(default_factory=info.default_factory, metadata=metadata)
    if info.is_required():
        return dc.field(metadata=metadata)
    return dc.field(default=info.default, metadata=metadata)
