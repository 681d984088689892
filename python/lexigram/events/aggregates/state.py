"""The state of an aggregate as plain data for snapshots, and back with the types that its annotations name.

The data is what the codec writes as JSON, so it survives every snapshot store and reads well in a database.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, TypedDict, get_origin

from lexigram.events.exceptions import SerializationError
from lexigram.events.messages.annotations import annotations_of, resolve_text
from lexigram.events.messages.codec import EventCodec

NOT_STATE = frozenset(
    {
        "id",
        "_pending_events",
        "_committed_version",
        "_asked_version",
        "_handling",
        "_correlation_id",
        "_causation_id",
        "_snapshot_version",
        "_snapshot_time",
    }
)

_FAMILIES: dict[str, tuple[type[Any], ...]] = {
    "number": (int, float, bool, Decimal),
    "text": (str,),
    "collection": (list, tuple, set, frozenset),
    "mapping": (dict,),
}
"""An annotation and a value of different families mean that the class has changed since; None fits everywhere."""

_codec = EventCodec()
_shapes: dict[tuple[type[Any], frozenset[str]], Any] = {}


def read_state(aggregate: Any) -> dict[str, Any]:
    """Return all attributes except the id and the bookkeeping; linear in their size, independent of the aggregate.

    Raises:
        SerializationError: LEX_ERR_EVT_025, names the attribute that cannot be encoded.
    """
    values = {name: value for name, value in aggregate.__dict__.items() if name not in NOT_STATE}
    data: dict[str, Any] = json.loads(_codec.encode_value(values, _shape(type(aggregate), frozenset(values))))
    return data


def write_state(aggregate: Any, state: dict[str, Any]) -> None:
    """Set the attributes that a state names; others keep their values.

    Raises:
        SerializationError: LEX_ERR_EVT_025, the state does not fit the annotations; nothing was changed.
    """
    values = {name: value for name, value in state.items() if name not in NOT_STATE}
    shape = _shape(type(aggregate), frozenset(values))
    decoded = _codec.decode_value(json.dumps(values).encode(), shape)
    for name, annotation in shape.__annotations__.items():
        wanted, found = _family(get_origin(annotation) or annotation), _family(type(decoded[name]))
        if wanted is not None and found is not None and wanted != found:
            raise SerializationError(
                f"{type(aggregate).__name__}.{name} is a {found} in the snapshot and a {wanted} in the class; "
                "increase snapshot_schema_version when a field changes its type",
                field=name,
            )
    aggregate.__dict__.update(decoded)


def _family(kind: Any) -> str | None:
    """Return what kinds of values may stand in for each other; None for those that nothing is known about."""
    return next((name for name, kinds in _FAMILIES.items() if kind in kinds), None)


def _shape(cls: type[Any], names: frozenset[str]) -> Any:
    """Return a type for the codec: these attributes with their annotated types, `Any` where there is none."""
    shape = _shapes.get((cls, names))
    if shape is None:
        annotations = annotations_of(cls)
        fields = {name: _annotation(annotations, name) for name in sorted(names)}
        make: Any = TypedDict  # called through a variable: the fields are known at run time only
        shape = _shapes[cls, names] = make(f"{cls.__name__}State", fields)
    return shape


def _annotation(annotations: dict[str, tuple[Any, type]], name: str) -> Any:
    annotation, owner = annotations.get(name, (Any, None))
    return resolve_text(annotation, owner) if isinstance(annotation, str) else annotation
