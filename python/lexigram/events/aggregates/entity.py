"""Entities: objects with an identity that live inside an aggregate. Source: spec/api-reference.md."""

from __future__ import annotations

import dataclasses as dc
from abc import ABC
from datetime import datetime
from typing import Any, Self, dataclass_transform

import pydantic

from lexigram.domain import Entity as FrameworkEntity
from lexigram.events.aggregates.fields import construct, copied, declare_fields
from lexigram.events.messages.clock import now
from lexigram.events.messages.event import new_id


@dataclass_transform(kw_only_default=True, field_specifiers=(dc.field, dc.Field, pydantic.Field))
@dc.dataclass(init=False, eq=False, repr=False)
class Entity(FrameworkEntity[Any], ABC):
    """A mutable object with an identity, owned by an aggregate; two entities are equal if class and id are.

    Args:
        id: Identity; a new UUID (version 7) if none is given.
        updated_at: Time of the last `touch`, timezone-aware.

    Raises:
        TypeError: A required field is missing or an argument is unknown.
    """

    updated_at: datetime | None = dc.field(default=None, kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declare_fields(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        construct(self, args, kwargs)

    def __post_init__(self) -> None:
        if self.id is None:
            self.id = new_id()

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values for the fields in `update`; entities and value objects in it stay such.

        Raises:
            TypeError: `update` names what is no field.
        """
        copy: Self = copied(self, update, deep)
        return copy

    def touch(self) -> None:
        """Note that the entity changed just now."""
        self.updated_at = now()


class VersionedEntity(Entity):
    """An entity that counts its changes."""

    version: int = dc.field(default=0, kw_only=True)

    def increment_version(self) -> None:
        """Count one change and note its time."""
        self.version += 1
        self.touch()
