"""Events as dictionaries of JSON values, for `to_dict` and `from_dict`: the codec's own form, metadata unfolded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from lexigram.events import _core
from lexigram.events.messages import shapes
from lexigram.events.messages._interpret import META_NODES, Interpreter
from lexigram.events.messages.registry import default_registry

E = TypeVar("E")

_JSON = (str, int, float, bool, list, dict, type(None))


def _nodes(cls: type) -> dict[str, shapes.Node]:
    """Return how each name of an event class is written: its own fields first, then the metadata."""
    annotations = shapes.annotations_of(cls)
    variables = shapes.type_variables(cls)
    nodes = dict(META_NODES)
    for name in _core.field_names(cls):
        annotation, owner = annotations.get(name, (Any, cls))
        nodes[name] = shapes.node_for(annotation, variables, owner)
    return nodes


def to_plain(event: Any) -> dict[str, Any]:
    """Return the metadata, fields and ad-hoc attributes of an event of ours as JSON values."""
    interpreter = Interpreter(default_registry)
    data: dict[str, Any] = {}
    for name, node in _nodes(type(event)).items():
        value = getattr(event, name)
        data[name] = None if value is None else interpreter.to_json(node, value, name)
    for name, value in (_core.message_state(event)[1] or {}).items():
        data[name] = interpreter.to_json(shapes.ANY, value, name)
    return data


def from_plain(cls: type[E], data: Mapping[str, Any]) -> E:
    """Return an event of class `cls`; values that are not JSON (a `UUID`, a `Decimal`) are taken as they are."""
    interpreter = Interpreter(default_registry)
    nodes = _nodes(cls)
    values: dict[str, Any] = {}
    for name, value in data.items():
        if value is not None and isinstance(value, _JSON):
            value = interpreter.from_json(nodes.get(name, shapes.ANY), value, name)
        values[name] = value
    return cls(**values)
