"""Events as dictionaries of JSON values, for `to_dict` and `from_dict`: the codec's own form, metadata unfolded."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from lexigram.events import _core
from lexigram.events.messages import shapes
from lexigram.events.messages.registry import default_registry

E = TypeVar("E")

_JSON = (str, int, float, bool, list, dict, type(None))
_codec = _core.CodecCore(default_registry, False)


@functools.cache
def _plan(node: shapes.Node) -> Any:
    return _core.compile_node(node)


def _nodes(cls: type) -> dict[str, shapes.Node]:
    """Return how each name of an event class is written: its own fields first, then the metadata."""
    record = shapes.record_for(cls)
    fields = {field.name: field.node for field in record.fields} if record is not None else {}
    return {**shapes.META_NODES, **fields}


def to_plain(event: Any) -> dict[str, Any]:
    """Return the metadata, fields and ad-hoc attributes of an event of ours as JSON values."""
    data: dict[str, Any] = {}
    for name, node in _nodes(type(event)).items():
        value = getattr(event, name)
        data[name] = None if value is None else json.loads(_codec.encode_value(value, _plan(node)))
    for name, value in (_core.message_state(event)[1] or {}).items():
        data[name] = json.loads(_codec.encode_value(value, _plan(shapes.ANY)))
    return data


def from_plain(cls: type[E], data: Mapping[str, Any]) -> E:
    """Return an event of class `cls`; values that are not JSON (a `UUID`, a `Decimal`) are taken as they are."""
    nodes = _nodes(cls)
    values: dict[str, Any] = {}
    for name, value in data.items():
        if value is not None and isinstance(value, _JSON):
            try:
                raw = json.dumps(value).encode()
            except TypeError:  # Python values inside, taken as they are
                values[name] = value
                continue
            value = _codec.decode_value(raw, _plan(nodes.get(name, shapes.ANY)))
        values[name] = value
    return cls(**values)
