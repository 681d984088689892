"""Converting events between schema versions.

Source: spec/reference-surface.md, `lexigram.events.schema.evolution`.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events.exceptions import EventValidationError, SchemaError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.messages.unknown import UnknownEvent
from lexigram.events.schema.models import check_version
from lexigram.events.schema.registry import SchemaRegistry


class Upcaster(ABC):
    """Converts the fields of one event type from a version to a later one.

    Subclasses set `event_type`, `from_version` and `to_version` as attributes. `upcast` gets the fields as plain JSON
    data (a UUID is text, and so on) and may put Python values in; it never sees id, time and the other metadata.
    """

    event_type: str
    from_version: int
    to_version: int

    @abstractmethod
    async def upcast(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields in the later version; `data` is a copy and may be changed."""


class Downcaster(ABC):
    """Converts the fields of one event type from a version to an earlier one; otherwise like `Upcaster`."""

    event_type: str
    from_version: int
    to_version: int

    @abstractmethod
    async def downcast(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields in the earlier version; `data` is a copy and may be changed."""


@dataclass
class MigrationPath:
    """The conversions that lead from one version of an event type to another, in order."""

    event_type: str
    from_version: int
    to_version: int
    steps: list[Upcaster | Downcaster]


class SchemaEvolution:
    """Converts events with registered upcasters and downcasters; stores apply it on read.

    Args:
        registry: Which versions exist and which class each has.
    """

    def __init__(self, registry: SchemaRegistry) -> None:
        self.registry = registry
        self._steps: dict[str, dict[tuple[int, int], Upcaster | Downcaster]] = {}
        self._codec = EventCodec()

    def register_upcaster(self, upcaster: Upcaster) -> None:
        """Register one conversion to a later version.

        Raises:
            EventValidationError: (LEX_ERR_EVT_024) bad versions, or the same conversion twice.
        """
        self._register(upcaster, "upcast")
        if upcaster.to_version <= upcaster.from_version:
            del self._steps[upcaster.event_type][upcaster.from_version, upcaster.to_version]
            raise EventValidationError("an upcaster's to_version must be higher than from_version", field="to_version")

    def register_downcaster(self, downcaster: Downcaster) -> None:
        """Register one conversion to an earlier version.

        Raises:
            EventValidationError: (LEX_ERR_EVT_024) bad versions, or the same conversion twice.
        """
        self._register(downcaster, "downcast")
        if downcaster.to_version >= downcaster.from_version:
            del self._steps[downcaster.event_type][downcaster.from_version, downcaster.to_version]
            raise EventValidationError("a downcaster's to_version must be lower than from_version", field="to_version")

    def _register(self, step: Upcaster | Downcaster, method: str) -> None:
        if isinstance(step, type) and inspect.isfunction(inspect.getattr_static(step, method, None)):
            raise EventValidationError(f"register an instance of {step.__name__}, not the class", field=method + "er")
        event_type = getattr(step, "event_type", None)
        if not callable(getattr(step, method, None)) or not isinstance(event_type, str) or not event_type:
            raise EventValidationError(f"{step!r} needs event_type and {method}()", field="event_type")
        check_version(getattr(step, "from_version", None), "from_version")
        check_version(getattr(step, "to_version", None), "to_version")
        steps = self._steps.setdefault(event_type, {})
        key = (step.from_version, step.to_version)
        if key in steps:
            raise EventValidationError(
                f"{event_type} from {key[0]} to {key[1]} is registered twice", field="event_type"
            )
        steps[key] = step

    def latest_upcast(self, event_type: str) -> int | None:
        """Return the highest version that an upcaster of this type leads to, or None if there is none."""
        return max((end for start, end in self._steps.get(event_type, {}) if end > start), default=None)

    async def get_migration_path(self, event_type: str, from_version: int, to_version: int) -> MigrationPath | None:
        """Return the shortest way between two versions, or None if there is none."""
        check_version(from_version, "from_version")
        check_version(to_version, "to_version")
        steps = self._steps.get(event_type, {})
        paths: dict[int, list[Upcaster | Downcaster]] = {from_version: []}
        pending = deque([from_version])
        while pending and to_version not in paths:
            at = pending.popleft()
            for (start, end), step in sorted(steps.items(), key=lambda item: item[0]):
                forward = end > start
                if start == at and end not in paths and forward == (to_version > from_version):
                    paths[end] = [*paths[at], step]
                    pending.append(end)
        found = paths.get(to_version)
        return None if found is None else MigrationPath(event_type, from_version, to_version, found)

    async def migrate_data(
        self, event_type: str, data: dict[str, Any], from_version: int, to_version: int
    ) -> dict[str, Any]:
        """Return the fields of an event in another version; `data` stays as it is.

        Raises:
            SchemaError: (LEX_ERR_EVT_019) no way leads there, or a step failed or returned something else than a dict.
        """
        path = await self.get_migration_path(event_type, from_version, to_version)
        if path is None:
            raise SchemaError(
                f"{event_type}: no conversion from schema version {from_version} to {to_version}; register the missing "
                f"step (known: {sorted(self._steps.get(event_type, {}))})",
                details={"event_type": event_type, "from_version": from_version, "to_version": to_version},
            )
        result = copy.deepcopy(data)
        for step in path.steps:
            result = await self._run(step, result)
        return result

    async def _run(self, step: Upcaster | Downcaster, data: dict[str, Any]) -> dict[str, Any]:
        where = f"{step.event_type} from schema version {step.from_version} to {step.to_version}"
        details = {"event_type": step.event_type, "from_version": step.from_version, "to_version": step.to_version}
        try:
            result: Any = step.upcast(data) if isinstance(step, Upcaster) else step.downcast(data)
            result = await result if inspect.isawaitable(result) else result
        except Exception as error:
            message = f"converting {where} failed: {type(error).__name__}: {error}"
            raise SchemaError(message, details=details) from error
        if not isinstance(result, dict) or not all(isinstance(key, str) for key in result):
            raise SchemaError(f"converting {where} returned {type(result).__name__}, not the fields", details=details)
        return result

    async def migrate_event(self, event: ContractEvent, target_version: int) -> ContractEvent:
        """Return an event in another schema version, as the class registered for that version (else its own).

        Id, time, version, position and the other metadata stay.

        Raises:
            SchemaError: (LEX_ERR_EVT_019) no way leads there, or a step failed.
        """
        check_version(target_version, "target_version")
        if event.schema_version == target_version:
            return event
        encoded = self._codec.encode(event)
        data = self._codec.parse(encoded.payload)
        meta = data.pop("$meta")
        event_type = encoded.event_type
        fields = await self.migrate_data(event_type, data, event.schema_version, target_version)
        cls = await self.registry.get_event_class(event_type, target_version)
        name = encoded.type_name if cls is None else self._codec.registry.type_name(cls)
        raw = {**fields, "$meta": {**meta, "schema_version": target_version}}
        return self._codec.build(name, event_type, raw, getattr(event, "version", 0), event.sequence_number)

    async def target_version(self, event: ContractEvent) -> int | None:
        """Return the version that an event is to be read in, or None if nothing is registered for its type.

        It is the registry's latest one; for a type that the registry does not know, where its upcasters lead.
        """
        event_type = event.event_type or type(event).__name__
        latest = await self.registry.get_latest_version(event_type)
        upcast = self.latest_upcast(event_type)
        return max(upcast, event.schema_version) if latest is None and upcast is not None else latest


class EventMigrator:
    """Converts lists of events.

    Args:
        evolution: The conversions.
    """

    def __init__(self, evolution: SchemaEvolution) -> None:
        self.evolution = evolution

    async def migrate_to_latest(self, events: list[Any]) -> list[Any]:
        """Return the events, each in the latest version of its type; types without a schema stay as they are."""
        targets = [await self.evolution.target_version(event) for event in events]
        return [
            event if target is None else await self.evolution.migrate_event(event, target)
            for event, target in zip(events, targets, strict=True)
        ]

    async def migrate_to_versions(self, events: list[Any], version_map: dict[str, int]) -> list[Any]:
        """Return the events, those whose type is in `version_map` in the version given there."""
        return [
            await self.evolution.migrate_event(event, version_map[event.event_type])
            if event.event_type in version_map
            else event
            for event in events
        ]

    async def get_migration_report(self, events: list[Any]) -> dict[str, Any]:
        """Return how many events of each type need a conversion, and for which there is none.

        Returns:
            `total_events`, `needs_migration`, `by_type` ({event type: {version: count}}), and `missing_paths`
            (a list of "type: from -> to").
        """
        by_type: dict[str, Counter[int]] = {}
        missing: set[str] = set()
        needed = 0
        for event in events:
            by_type.setdefault(event.event_type, Counter())[event.schema_version] += 1
            target = await self.evolution.target_version(event)
            if target is None or target == event.schema_version:
                continue
            needed += 1
            path = await self.evolution.get_migration_path(event.event_type, event.schema_version, target)
            if path is None:
                missing.add(f"{event.event_type}: {event.schema_version} -> {target}")
        return {
            "total_events": len(events),
            "needs_migration": needed,
            "unknown_types": sum(isinstance(event, UnknownEvent) for event in events),
            "by_type": {name: dict(versions) for name, versions in by_type.items()},
            "missing_paths": sorted(missing),
        }
