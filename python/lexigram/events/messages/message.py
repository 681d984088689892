"""Messages of the framework's contracts, and what our commands and queries share. Source: spec/reference-surface.md."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from lexigram.contracts.events.messages import Message as Message
from lexigram.contracts.events.messages import MessageMetadata as MessageMetadata
from lexigram.events import _core
from lexigram.events.messages.base import TypedMessage


def _utc_now() -> datetime:
    return datetime.now(UTC)


def metadata_fields() -> dict[str, dc.Field[Any]]:
    """Return the dataclass fields of `id`, `timestamp` and `metadata`, keyword-only."""

    @dc.dataclass(kw_only=True)
    class Fields:
        id: UUID = dc.field(default_factory=_core.new_id)
        timestamp: datetime = dc.field(default_factory=_utc_now)
        metadata: MessageMetadata = dc.field(default_factory=MessageMetadata)

    return dict(Fields.__dataclass_fields__)


class NativeMessage(_core.MessageBase, TypedMessage, Message):
    """Base of commands and queries: the helpers of the contract's `Message`, keeping class and every field."""

    __metadata_fields__ = metadata_fields()

    def with_metadata(self, metadata: MessageMetadata) -> Self:
        """Return a copy with other metadata."""
        return self._with(metadata=metadata)

    def with_correlation_id(self, correlation_id: UUID) -> Self:
        """Return a copy with this correlation id."""
        return self._with(metadata=self.metadata.with_correlation(correlation_id))

    def with_causation_id(self, causation_id: UUID) -> Self:
        """Return a copy with this causation id."""
        return self._with(metadata=self.metadata.with_causation(causation_id))

    def to_dict(self) -> dict[str, Any]:
        """Return every field as Python values, nested dataclasses as dictionaries."""
        return dc.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return a message from what `to_dict` gave.

        Raises:
            TypeError: A required field is missing or a key is unknown.
        """
        values = dict(data)
        if isinstance(values.get("metadata"), Mapping):
            values["metadata"] = MessageMetadata(**values["metadata"])
        return cls(**values)
