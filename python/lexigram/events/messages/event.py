"""Events: facts that happened.

A class with annotations is a complete event:

    class UserRegistered(DomainEvent):
        user_id: str
        email: str = ""

Source: design of messages, semantics section 1; spec/reference-surface.md.
"""

from __future__ import annotations

import dataclasses as dc
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import _core
from lexigram.events.messages.base import TypedMessage
from lexigram.events.messages.registry import default_registry

new_id = _core.new_id
"""Return a new UUIDv7: time-ordered, strictly increasing within a process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.reseed_ids)


def utc_now() -> datetime:
    """Return the present time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def _metadata_fields() -> dict[str, dc.Field[Any]]:
    """Return the dataclass fields of the metadata, as `dataclasses.fields` shows them."""

    @dc.dataclass(kw_only=True)
    class Fields:
        event_id: UUID = dc.field(default_factory=new_id)
        occurred_at: datetime = dc.field(default_factory=utc_now)
        event_type: str | None = None
        aggregate_id: UUID | str | None = None
        aggregate_type: str | None = None
        sequence_number: int | None = None
        actor_id: str | None = None
        schema_version: int = 1
        version: int = 0
        correlation_id: UUID | None = None
        causation_id: UUID | None = None
        tags: tuple[str, ...] = ()
        metadata: Mapping[str, Any] = dc.field(default_factory=dict)

    return dict(Fields.__dataclass_fields__)


class DomainEvent(_core.EventBase, TypedMessage, ContractEvent):
    """Something that happened in the domain: immutable, keyword-only, typed by its annotations.

    Attributes:
        event_id: UUIDv7, made at construction.
        occurred_at: Timezone-aware UTC time with microseconds; a time without zone is taken as UTC.
        event_type: The class name unless the class or the call says otherwise.
        aggregate_id: Id of the aggregate, if the event belongs to one.
        aggregate_type: Class name of that aggregate.
        sequence_number: Global position, from 1; None until a store has accepted the event.
        actor_id: Who caused it.
        schema_version: Version of the event's shape, from 0.
        version: Version of its stream after this event, from 1; 0 until a store has accepted the event.
        correlation_id: Shared by everything that one request caused.
        causation_id: Id of the message whose handling emitted this event.
        tags: Distinct strings for append conditions.
        metadata: Custom keys, and `tenant_id`, `user_id`, `traceparent`. Each access gives a fresh copy.

    Raises:
        TypeError: A required field is missing or a keyword is unknown; the message names all of them.
        EventValidationError: (LEX_ERR_EVT_024) a metadata value is not acceptable.
    """

    if TYPE_CHECKING:
        event_id: UUID = dc.field(default_factory=new_id, kw_only=True)
        occurred_at: datetime = dc.field(default_factory=utc_now, kw_only=True)
        event_type: str | None = dc.field(default=None, kw_only=True)
        aggregate_id: UUID | str | None = dc.field(default=None, kw_only=True)  # type: ignore[assignment]
        aggregate_type: str | None = dc.field(default=None, kw_only=True)
        sequence_number: int | None = dc.field(default=None, kw_only=True)
        actor_id: str | None = dc.field(default=None, kw_only=True)
        schema_version: int = dc.field(default=1, kw_only=True)
        version: int = dc.field(default=0, kw_only=True)
        correlation_id: UUID | None = dc.field(default=None, kw_only=True)
        causation_id: UUID | None = dc.field(default=None, kw_only=True)
        tags: tuple[str, ...] = dc.field(default=(), kw_only=True)
        metadata: Mapping[str, Any] = dc.field(default_factory=dict, kw_only=True)
    else:
        __metadata_fields__ = _metadata_fields()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        default_registry.register(cls)

    def with_version(self, version: int) -> Self:
        """Return a copy with this stream version."""
        return self._with(version=version)

    def for_aggregate(self, aggregate_id: UUID | str, aggregate_type: str) -> Self:
        """Return a copy that belongs to an aggregate."""
        return self._with(aggregate_id=aggregate_id, aggregate_type=aggregate_type)

    def with_correlation_id(self, correlation_id: UUID) -> Self:
        """Return a copy with this correlation id."""
        return self._with(correlation_id=correlation_id)

    def with_causation_id(self, causation_id: UUID) -> Self:
        """Return a copy with this causation id."""
        return self._with(causation_id=causation_id)

    def with_tags(self, *tags: str) -> Self:
        """Return a copy with more tags; a tag it has already is not repeated."""
        return self._with(__tags__=(*_core.event_meta(self, "tags"), *tags))

    def with_metadata(self, **values: Any) -> Self:
        """Return a copy with more custom metadata; values given here win."""
        return self._with(__metadata__={**_core.event_meta(self, "metadata"), **values})

    def to_dict(self) -> dict[str, Any]:
        """Return every field and all metadata as JSON-serialisable values, attributes of `Event(...)` included.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) a value has no JSON form.
        """
        from lexigram.events.messages.plain import to_plain

        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return an event from what `to_dict` gave, field types restored.

        Raises:
            TypeError: A required field is missing or a key is unknown.
            SerializationError: (LEX_ERR_EVT_025) a value does not fit the type of its field.
        """
        from lexigram.events.messages.plain import from_plain

        return from_plain(cls, data)


class Event(DomainEvent):
    """A domain event; used directly, it takes any keyword as an attribute: `Event(event_type="ping", host="a")`."""

    __accepts_extra__ = True

    if TYPE_CHECKING:

        def __init__(self, **values: Any) -> None: ...


class IntegrationEvent(Event):
    """An event for other services.

    Attributes:
        source_service: Name of the service that emits it.
        destination_services: Names of the services it is for; empty means everybody.
    """

    source_service: str = ""
    destination_services: list[str] = dc.field(default_factory=list)
