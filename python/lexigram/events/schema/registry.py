"""Which versions of which events exist.

Source: spec/reference-surface.md, `lexigram.events.schema.registry`.
"""

from __future__ import annotations

from typing import Any

from lexigram.events.exceptions import EventValidationError
from lexigram.events.schema.json_schema import json_schema_of
from lexigram.events.schema.models import EventSchema, SchemaIncompatibleError, SchemaNotFoundError, check_version
from lexigram.events.schema.store import InMemorySchemaStore, SchemaStore


class SchemaRegistry:
    """Schemas by event type and version.

    Args:
        store: Where schemas are kept; in memory by default. Classes are known to this object only.
        enforce_compatibility: Refuse a schema that cannot read what the version before it has written.
    """

    def __init__(self, store: SchemaStore | None = None, enforce_compatibility: bool = True) -> None:
        self.store = store if store is not None else InMemorySchemaStore()
        self.enforce_compatibility = enforce_compatibility
        self._classes: dict[str, dict[int, EventSchema]] = {}

    def register_event_class(self, event_class: type, event_type: str | None = None, version: int = 1) -> None:
        """Make a class the one of this event type and version; its schema is derived from its annotations.

        Args:
            event_class: The class; registering another one for the same version replaces it.
            event_type: Event type; the class name by default.
            version: Schema version, from 1.

        Raises:
            EventValidationError: (LEX_ERR_EVT_024) not a class, or a bad version.
        """
        if not isinstance(event_class, type):
            raise EventValidationError(f"event_class must be a class, not {event_class!r}", field="event_class")
        check_version(version, "version")
        name = event_type if event_type is not None else event_class.__name__
        schema = EventSchema(name, version, event_class, json_schema_of(event_class))
        self._classes.setdefault(name, {})[version] = schema

    async def register_schema(self, schema: EventSchema, check_compatibility: bool | None = None) -> None:
        """Keep a schema, after comparing it with the version before it.

        Args:
            schema: The schema.
            check_compatibility: True or False overrides `enforce_compatibility`.

        Raises:
            SchemaIncompatibleError: (LEX_ERR_EVT_022) it cannot read what is stored; nothing is kept.
        """
        check = self.enforce_compatibility if check_compatibility is None else check_compatibility
        if check:
            older = [one for one in await self.get_all_versions(schema.event_type) if one.version < schema.version]
            compatible, issues = schema.is_compatible_with(older[-1]) if older else (True, [])
            if not compatible:
                raise SchemaIncompatibleError(
                    f"{schema.event_type} version {schema.version} cannot read version {older[-1].version}: "
                    f"{'; '.join(issues)}. Register with check_compatibility=False if an upcaster converts it",
                    schema.event_type,
                    schema.version,
                    issues,
                )
        await self.store.save(schema)
        if schema.event_class is not None:
            self._classes.setdefault(schema.event_type, {})[schema.version] = schema

    async def get_schema(self, event_type: str, version: int | None = None) -> EventSchema:
        """Return one version, the latest by default.

        Raises:
            SchemaNotFoundError: (LEX_ERR_EVT_023) there is none.
        """
        versions = {schema.version: schema for schema in await self.get_all_versions(event_type)}
        wanted = version if version is not None else max(versions, default=None)
        if wanted is None or wanted not in versions:
            raise SchemaNotFoundError(event_type, version)
        return versions[wanted]

    async def get_all_versions(self, event_type: str) -> list[EventSchema]:
        """Return all versions, lowest first."""
        known = dict(self._classes.get(event_type, {}))
        known.update({schema.version: schema for schema in await self.store.get_all_versions(event_type)})
        return [schema for _, schema in sorted(known.items())]

    async def get_latest_version(self, event_type: str) -> int | None:
        """Return the highest version of an event type, or None."""
        versions = await self.get_all_versions(event_type)
        return versions[-1].version if versions else None

    async def get_event_class(self, event_type: str, version: int | None = None) -> type | None:
        """Return the class of a version (the latest by default), or None if none is registered for it."""
        wanted = version if version is not None else await self.get_latest_version(event_type)
        schema = self._classes.get(event_type, {}).get(wanted or 0)
        return schema.event_class if schema is not None else None

    async def list_event_types(self) -> list[str]:
        """Return the event types that have a schema, sorted."""
        return sorted({*self._classes, *await self.store.list_event_types()})

    async def validate(
        self, event_type: str, data: dict[str, Any], version: int | None = None
    ) -> tuple[bool, list[str]]:
        """Return whether the fields of an event fit a version (the latest by default), and what does not.

        Raises:
            SchemaNotFoundError: (LEX_ERR_EVT_023) there is no such version.
        """
        return (await self.get_schema(event_type, version)).validate(data)
