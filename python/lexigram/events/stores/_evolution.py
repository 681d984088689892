"""Applies schema evolution to events as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lexigram.events.exceptions import EventError, EventLoadError

if TYPE_CHECKING:
    from lexigram.events.messages.codec import EventCodec


class SchemaEvolutionProtocol(Protocol):
    """What a store needs of `schema_evolution`."""

    async def migrate_event(self, event: Any, target_version: int) -> Any:
        """Return the event in the shape of `target_version`."""
        ...

    async def migrate_data(
        self, event_type: str, data: dict[str, Any], from_version: int, to_version: int
    ) -> dict[str, Any]:
        """Return the fields of an event in the shape of `to_version`."""
        ...


async def evolve(evolution: Any, events: list[Any]) -> list[Any]:
    """Return `events` with each one that is older than its latest schema version converted, in the same order.

    Raises:
        EventLoadError: LEX_ERR_EVT_011; an upcaster failed or returned nothing. Nothing is skipped.
        EventError: What the evolution raised itself, for example `SchemaError`.
    """
    latest: dict[str, int | None] = {}
    converted = []
    for event in events:
        name = event.event_type
        if name not in latest:
            latest[name] = await latest_version(evolution, name, type(event))
        target = latest[name]
        if target is None or event.schema_version >= target:
            converted.append(event)
        else:
            converted.append(await _migrate(evolution, event, target))
    return converted


async def latest_version(evolution: Any, event_type: str, event_class: type | None) -> int | None:
    """Return the version to convert to.

    What the schema registry says, else the class's own `schema_version` or where the upcasters lead, if that is later.
    """
    registry = getattr(evolution, "registry", None)
    if registry is not None:
        version: int | None = await registry.get_latest_version(event_type)
        if version is not None:
            return version
    declared = getattr(event_class, "__dataclass_fields__", {}).get("schema_version")
    upcast = getattr(evolution, "latest_upcast", None)
    known = [getattr(declared, "default", None), None if upcast is None else upcast(event_type)]
    return max((version for version in known if isinstance(version, int)), default=None)


async def _migrate(evolution: Any, event: Any, target: int) -> Any:
    where = f"{event.event_type} at position {event.sequence_number} from schema {event.schema_version} to {target}"
    try:
        migrated = await evolution.migrate_event(event, target)
    except EventError:
        raise
    except Exception as error:
        raise EventLoadError(f"cannot convert {where}: {type(error).__name__}: {error}", cause=error) from error
    if migrated is None:
        raise EventLoadError(f"cannot convert {where}: the schema evolution returned nothing")
    return migrated


async def evolve_data(
    evolution: Any, event_type: str, data: dict[str, Any], from_version: int, event_class: type | None
) -> tuple[dict[str, Any], int]:
    """Return the fields of a stored event and their schema version, converted to the latest one if they are older.

    For backends that store bytes: called before the event object is built, so that required new fields can be added.

    Raises:
        EventLoadError: LEX_ERR_EVT_011; an upcaster failed. EventError: What the evolution raised itself.
    """
    target = await latest_version(evolution, event_type, event_class)
    if target is None or from_version >= target:
        return data, from_version
    try:
        return await evolution.migrate_data(event_type, data, from_version, target), target
    except EventError:
        raise
    except Exception as error:
        message = f"cannot convert {event_type} from schema {from_version} to {target}: {type(error).__name__}: {error}"
        raise EventLoadError(message, cause=error) from error


async def decode_rows(evolution: Any | None, codec: EventCodec, rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the events of stored rows (type name, event type, payload, version, position), converted on the way.

    For backends that store bytes: data is converted before the event object is built, so that new required fields can
    be added. A codec that has no `parse` gives finished events, which `evolve` converts afterwards. Raises what `evolve_data` and the codec raise; nothing is skipped.
    """
    if evolution is None or not hasattr(codec, "parse"):
        return list(codec.decode_rows(rows))
    events = []
    for type_name, event_type, payload, version, position in rows:
        data = codec.parse(payload)
        meta = data.get("$meta", {})
        fields = {name: value for name, value in data.items() if name != "$meta"}
        stored_version = meta.get("schema_version", 1)
        event_class = codec.registry.resolve(type_name, event_type)
        fields, current = await evolve_data(evolution, event_type, fields, stored_version, event_class)
        if current == stored_version:
            events.append(codec.decode(type_name, event_type, payload, version, position))
            continue
        target = await evolution.registry.get_event_class(event_type, current)
        name = type_name if target is None else codec.registry.type_name(target)
        data = {**fields, "$meta": {**meta, "schema_version": current}}
        events.append(codec.build(name, event_type, data, version, position))
    return events
