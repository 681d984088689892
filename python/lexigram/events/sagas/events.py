"""What a saga takes from the event that starts it."""

from __future__ import annotations

import dataclasses
from typing import Any

from lexigram.events.messages.event import DomainEvent

_METADATA = frozenset(field.name for field in dataclasses.fields(DomainEvent)) | {
    "causation_id",
    "correlation_id",
    "metadata",
    "tags",
    "version",
}


def own_fields(event: Any) -> dict[str, Any]:
    """Return the fields that the event's class declares, without metadata."""
    names = [field.name for field in dataclasses.fields(event) if field.name not in _METADATA]
    return {name: getattr(event, name) for name in names}
