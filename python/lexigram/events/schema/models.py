"""What a version of an event looks like.

Source: spec/reference-surface.md, `lexigram.events.schema.models`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lexigram.events.exceptions import EventError, EventValidationError, Picklable

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
}


class SchemaIncompatibleError(Picklable, EventError):
    """A schema version cannot read what the version before it has written."""

    _code = "LEX_ERR_EVT_022"

    def __init__(self, message: str, event_type: str, version: int, issues: list[str] | None = None) -> None:
        self.event_type = event_type
        self.version = version
        self.issues = issues or []
        super().__init__(message, details={"event_type": event_type, "version": version, "issues": self.issues})


class SchemaNotFoundError(Picklable, EventError):
    """No schema is registered for this event type and version."""

    _code = "LEX_ERR_EVT_023"

    def __init__(self, event_type: str, version: int | None = None) -> None:
        self.event_type = event_type
        self.version = version
        which = "" if version is None else f" version {version}"
        super().__init__(
            f"no schema is registered for {event_type}{which}", details={"event_type": event_type, "version": version}
        )


@dataclass
class EventSchema:
    """One version of an event type.

    Attributes:
        event_type: Event type, 1 or more characters.
        version: Schema version, from 1.
        event_class: The class of this version, if there is one.
        json_schema: JSON Schema of the fields; `type`, `enum`, `properties`, `required`, `items`, `anyOf` and
            `additionalProperties: false` are checked by `validate`.
    """

    event_type: str
    version: int
    event_class: type | None = None
    json_schema: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    deprecated: bool = False
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.event_type, str) or not self.event_type:
            raise EventValidationError("event_type must be a non-empty string", field="event_type")
        check_version(self.version, "version")

    def validate(self, data: dict[str, Any]) -> tuple[bool, list[str]]:
        """Return whether the fields of an event fit this schema, and what does not."""
        issues = list(_issues(self.json_schema, data, ""))
        return not issues, issues

    def is_compatible_with(self, other: EventSchema) -> tuple[bool, list[str]]:
        """Return whether this version reads what `other` (the older one) has written, and what stands against it."""
        if self.event_type != other.event_type:
            return False, [f"event types differ: {self.event_type} and {other.event_type}"]
        mine, theirs = self.json_schema.get("properties", {}), other.json_schema.get("properties", {})
        issues = [
            f"{name}: required here, but not always written by version {other.version}"
            for name in self.json_schema.get("required", ())
            if name not in other.json_schema.get("required", ()) and "default" not in mine.get(name, {})
        ]
        for name in mine.keys() & theirs.keys():
            missing = _type_names(theirs[name]) - _type_names(mine[name])
            if _type_names(mine[name]) and missing - ({"integer"} if "number" in _type_names(mine[name]) else set()):
                issues.append(f"{name}: was {', '.join(sorted(missing))}, which is no longer accepted")
        return not issues, sorted(issues)


def check_version(version: object, name: str) -> None:
    """Raise unless `version` is an integer from 1.

    Raises:
        EventValidationError: (LEX_ERR_EVT_024) it is not; names the argument.
    """
    if type(version) is not int or version < 1:
        raise EventValidationError(f"{name} must be an integer from 1, not {version!r}", field=name)


def _type_names(schema: dict[str, Any]) -> set[str]:
    found = schema.get("type", [])
    names = {found} if isinstance(found, str) else set(found)
    for part in schema.get("anyOf", ()):
        names |= _type_names(part)
    return names


def _fits(names: set[str], value: Any) -> bool:
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, _TYPES[name]) for name in names if name in _TYPES)


def _issues(schema: dict[str, Any], value: Any, path: str) -> list[str]:
    """Return what a value has against a schema, each with its path."""
    at = path or "data"
    names = _type_names(schema)
    if names and not _fits(names, value):
        return [f"{at}: {' or '.join(sorted(names))} expected, not {type(value).__name__}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is not one of {schema['enum']!r}")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{path + '.' if path else ''}{n}: missing" for n in schema.get("required", ()) if n not in value]
        for name, item in value.items():
            inner = f"{path + '.' if path else ''}{name}"
            if name in properties:
                found += _issues(properties[name], item, inner)
            elif schema.get("additionalProperties") is False:
                found.append(f"{inner}: not in the schema")
    if isinstance(value, list | tuple) and "items" in schema:
        for index, item in enumerate(value):
            found += _issues(schema["items"], item, f"{at}[{index}]")
    return found
