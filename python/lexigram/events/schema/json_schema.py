"""JSON Schema of an event class, as its fields appear in stored JSON."""

from __future__ import annotations

from enum import Enum
from typing import Any

from lexigram.events.messages import shapes
from lexigram.events.messages.shapes import Node

_SCALARS: dict[str, dict[str, Any]] = {
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "str": {"type": "string"},
    "none": {"type": "null"},
    "uuid": {"type": "string", "format": "uuid"},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "timedelta": {"type": "string", "format": "duration"},
    "decimal": {"type": "string", "format": "decimal"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}


def json_schema_of(cls: type) -> dict[str, Any]:
    """Return the JSON Schema of the declared fields of a message or value class.

    Fields of nested classes are described one level deep inside each other, recursive classes as plain objects.
    """
    record = shapes.record_for(cls)
    return {"type": "object"} if record is None else _record_schema(record, frozenset())


def _record_schema(record: shapes.Record, seen: frozenset[type]) -> dict[str, Any]:
    if record.cls in seen:
        return {"type": "object"}
    if record.style == "namedtuple":
        return {"type": "array"}
    inner = seen | {record.cls}
    properties = {field.name: _node_schema(field.node, inner) for field in record.fields}
    required = [field.name for field in record.fields if field.required]
    return {"type": "object", "title": record.cls.__name__, "properties": properties, "required": required}


def _node_schema(node: Node, seen: frozenset[type]) -> dict[str, Any]:
    kind = node[0]
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    if kind == "optional":
        return {"anyOf": [_node_schema(node[1], seen), {"type": "null"}]}
    if kind == "union":
        return {"anyOf": [_node_schema(member, seen) for member in node[1]]}
    if kind == "enum":
        values = [member.value for member in node[1] if isinstance(member, Enum)]
        return {"enum": values} if all(isinstance(value, str | int) for value in values) else {}
    if kind in ("list", "set", "frozenset", "vartuple"):
        return {"type": "array", "items": _node_schema(node[1], seen)}
    if kind == "tuple":
        return {"type": "array"}
    if kind == "dict":
        return {"type": "object"}
    return _record_schema(node[1], seen) if kind == "record" else {}
