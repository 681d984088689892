"""Where schemas are kept.

Source: spec/reference-surface.md, `lexigram.events.schema.store`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from lexigram.events.schema.models import EventSchema


class SchemaStore(ABC):
    """Keeps schema versions by event type."""

    @abstractmethod
    async def save(self, schema: EventSchema) -> None:
        """Keep a schema; the same event type and version again replaces it."""

    @abstractmethod
    async def get(self, event_type: str, version: int) -> EventSchema | None:
        """Return one version, or None."""

    @abstractmethod
    async def get_latest(self, event_type: str) -> EventSchema | None:
        """Return the highest version, or None."""

    @abstractmethod
    async def get_all_versions(self, event_type: str) -> list[EventSchema]:
        """Return all versions, lowest first."""

    @abstractmethod
    async def list_event_types(self) -> list[str]:
        """Return the event types that have a schema, sorted."""


class InMemorySchemaStore(SchemaStore):
    """Keeps schemas in this process."""

    def __init__(self) -> None:
        self._schemas: dict[str, dict[int, EventSchema]] = {}

    async def save(self, schema: EventSchema) -> None:
        """Keep a schema; the same event type and version again replaces it."""
        self._schemas.setdefault(schema.event_type, {})[schema.version] = schema

    async def get(self, event_type: str, version: int) -> EventSchema | None:
        """Return one version, or None."""
        return self._schemas.get(event_type, {}).get(version)

    async def get_latest(self, event_type: str) -> EventSchema | None:
        """Return the highest version, or None."""
        versions = self._schemas.get(event_type)
        return versions[max(versions)] if versions else None

    async def get_all_versions(self, event_type: str) -> list[EventSchema]:
        """Return all versions, lowest first."""
        return [schema for _, schema in sorted(self._schemas.get(event_type, {}).items())]

    async def list_event_types(self) -> list[str]:
        """Return the event types that have a schema, sorted."""
        return sorted(self._schemas)
