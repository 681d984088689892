"""What the codec knows about a type: annotations resolved once per class into a tree of nodes.

A node is a tuple whose first item is the kind: `("int",)`, `("list", item)`, `("dict", key, value)`,
`("tuple", (items, …))`, `("optional", node)`, `("union", (nodes, …))`, `("enum", cls)`, `("record", Record)`,
`("literal", values)`, `("foreign", annotation)` or `("any",)`. A node is a promise about the usual case only: a value
of another type is written with its type and comes back as it was.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import functools
import types
import typing
from dataclasses import MISSING
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import _core
from lexigram.events.messages.annotations import annotations_of, resolve_text, type_variables

Node = tuple[Any, ...]
ANY: Node = ("any",)
NONE: Node = ("none",)

SCALARS: dict[type, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    UUID: "uuid",
    datetime: "datetime",
    date: "date",
    time: "time",
    timedelta: "timedelta",
    Decimal: "decimal",
}
CONTAINERS: dict[type, str] = {
    list: "list",
    tuple: "vartuple",
    set: "set",
    frozenset: "frozenset",
    dict: "dict",
}
SEQUENCES: dict[Any, str] = {
    list: "list",
    set: "set",
    frozenset: "frozenset",
    abc.Sequence: "list",
    abc.MutableSequence: "list",
    abc.Iterable: "list",
    abc.Collection: "list",
    abc.Set: "set",
    abc.MutableSet: "set",
}
MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)

_ID: Node = ("optional", ("union", (("uuid",), ("str",))))
_TEXT: Node = ("optional", ("str",))
META_NODES: dict[str, Node] = {
    "event_id": ("uuid",),
    "occurred_at": ("datetime",),
    "event_type": _TEXT,
    "aggregate_id": _ID,
    "aggregate_type": _TEXT,
    "sequence_number": ("optional", ("int",)),
    "actor_id": _TEXT,
    "schema_version": ("int",),
    "version": ("int",),
    "correlation_id": _ID,
    "causation_id": _ID,
    "tags": ("vartuple", ("str",)),
    "metadata": ("dict", ("str",), ANY),
}
"""Attributes of every event of ours that are not payload fields, and how they are written."""
META_NAMES = frozenset(META_NODES)
CONTRACT_META_NAMES = META_NAMES - {"correlation_id", "causation_id", "tags", "metadata"}
"""The names for instances of the framework's own event class, which may declare the others as fields."""


class Field(NamedTuple):
    """One field of a record."""

    name: str
    node: Node
    default: Any = MISSING
    default_factory: Any = MISSING

    @property
    def required(self) -> bool:
        return self.default is MISSING and self.default_factory is MISSING


class Record:
    """The fields of one class (with its type arguments), resolved on first use so that classes may be recursive.

    `style` is one of "event", "message", "contract", "dataclass", "pydantic", "namedtuple", "typeddict".
    """

    __slots__ = ("_fields", "arguments", "cls", "plan", "style")

    def __init__(self, cls: type, style: str, arguments: tuple[Any, ...] = ()) -> None:
        self.cls = cls
        self.style = style
        self.arguments = arguments
        self._fields: tuple[Field, ...] | None = None
        self.plan: Any = None
        """What the codec's core has compiled of it."""

    @property
    def hidden(self) -> list[str]:
        """Names that are computed on demand and kept in the instance (`functools.cached_property`)."""
        bases = self.cls.__mro__
        return [n for base in bases for n, v in vars(base).items() if isinstance(v, functools.cached_property)]

    @property
    def fields(self) -> tuple[Field, ...]:
        if self._fields is None:
            self._fields = tuple(_FIELDS[self.style](self))
        return self._fields


_records: dict[tuple[type, tuple[Any, ...]], Record] = {}


def record_for(cls: type, arguments: tuple[Any, ...] = ()) -> Record | None:
    """Return the record of a class, or None if its instances are not plain data."""
    try:
        found = _records.get((cls, arguments))
    except TypeError:  # unhashable type argument, e.g. Annotated[int, []]
        arguments = ()
        found = _records.get((cls, ()))
    if found is None:
        style = style_of(cls)
        if style is None:
            return None
        found = _records.setdefault((cls, arguments), Record(cls, style, arguments))
    return found


def style_of(cls: type) -> str | None:
    """Return how instances of a class hold their fields, or None."""
    if issubclass(cls, _core.EventBase):
        return "event"
    if issubclass(cls, _core.MessageBase):
        return "message"
    if issubclass(cls, ContractEvent):
        return "contract"
    if hasattr(cls, "__pydantic_fields__"):
        return "pydantic" if not dataclasses.is_dataclass(cls) else "dataclass"
    if dataclasses.is_dataclass(cls):
        return "dataclass"
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return "namedtuple"
    return "typeddict" if typing.is_typeddict(cls) else None


def node_for(annotation: Any, variables: dict[Any, Any] | None = None, owner: type | None = None) -> Node:
    """Return the node of a resolved annotation; what cannot be understood becomes `any`, which loses nothing."""
    variables = variables or {}
    if annotation is None or annotation is type(None):
        return NONE
    if annotation is Any:  # a class since Python 3.11
        return ANY
    if isinstance(annotation, str | typing.ForwardRef):
        resolved = resolve_text(annotation, owner)
        return ANY if resolved is Any else _named_node(annotation, resolved, variables, owner)
    if isinstance(annotation, typing.TypeVar):
        return _variable_node(annotation, variables, owner)
    if isinstance(annotation, typing.NewType):
        return node_for(annotation.__supertype__, variables, owner)
    if type(annotation).__name__ == "TypeAliasType":
        return _named_node(annotation, annotation.__value__, variables, owner)
    origin = typing.get_origin(annotation)
    if origin is not None:
        return _generic_node(annotation, origin, variables, owner)
    if isinstance(annotation, type):
        return _class_node(annotation)
    return ANY


def _named_node(name: Any, meaning: Any, variables: dict[Any, Any], owner: type | None) -> Node:
    """Return the node of what a name stands for; `any` within its own meaning, as in `Json = dict[str, "Json"] | str`."""
    key = ("name", str(name))
    return ANY if key in variables else node_for(meaning, {**variables, key: meaning}, owner)


def _variable_node(variable: Any, variables: dict[Any, Any], owner: type | None) -> Node:
    if variable in variables:
        value = variables[variable]
        return ANY if value is variable else node_for(value, variables, owner)
    if variable.__constraints__:
        return _union_node(variable.__constraints__, variables, owner)
    return node_for(variable.__bound__, variables, owner) if variable.__bound__ is not None else ANY


def _class_node(cls: type) -> Node:
    if cls in SCALARS:
        return (SCALARS[cls],)
    if issubclass(cls, Enum):
        return ("enum", cls)
    if cls in SEQUENCES:
        return (SEQUENCES[cls], ANY)
    if cls is tuple:
        return ("vartuple", ANY)
    if cls in MAPPINGS:
        return ("dict", ANY, ANY)
    record = record_for(cls)
    if record is not None:
        return ("record", record)
    if cls is object or cls in (abc.Hashable,) or getattr(cls, "_is_protocol", False):
        return ANY
    return ("foreign", cls)


def _generic_node(annotation: Any, origin: Any, variables: dict[Any, Any], owner: type | None) -> Node:
    arguments = typing.get_args(annotation)

    def inner(item: Any) -> Node:
        return node_for(item, variables, owner)

    if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final, typing.ClassVar):
        return inner(arguments[0])
    if origin is typing.Literal:
        return ("literal", arguments)
    if origin in (typing.Union, types.UnionType):
        return _union_node(arguments, variables, owner)
    if origin in SEQUENCES:
        return (SEQUENCES[origin], inner(arguments[0]))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return ("vartuple", inner(arguments[0]))
        return ("tuple", tuple(inner(item) for item in arguments))
    if origin in MAPPINGS:
        return ("dict", inner(arguments[0]), inner(arguments[1]))
    if isinstance(origin, type):
        record = record_for(origin, tuple(variables.get(item, item) for item in arguments))
        if record is not None:
            return ("record", record)
    return ANY


def _union_node(members: tuple[Any, ...], variables: dict[Any, Any], owner: type | None) -> Node:
    flat: list[Node] = []
    for member in members:
        for node in _members(node_for(member, variables, owner)):
            if node not in flat:
                flat.append(node)
    if ANY in flat:
        return ANY
    optional = NONE in flat
    flat = [item for item in flat if item != NONE]
    if not flat:
        return NONE
    # `A | B` and `B | A` are equal, and `typing` hands out whichever it saw first: the order must not matter.
    node = flat[0] if len(flat) == 1 else ("union", tuple(sorted(flat, key=_rank)))
    return ("optional", node) if optional else node


_KINDS = (*SCALARS.values(), "enum", *CONTAINERS.values(), "tuple", "record", "literal", "foreign", "optional", "union")


def _rank(node: Node) -> tuple[int, str]:
    """Return where a node stands among the members of a union, the same in every process."""
    return _KINDS.index(node[0]), _described(node)


def _described(node: Any) -> str:
    if isinstance(node, Record):
        return f"{node.cls.__module__}.{node.cls.__qualname__}{node.arguments}"
    if isinstance(node, type):
        return f"{node.__module__}.{node.__qualname__}"
    if isinstance(node, tuple):
        return f"({','.join(map(_described, node))})"
    return str(node)


def _members(node: Node) -> tuple[Node, ...]:
    """Return the alternatives that a node already consists of."""
    if node[0] == "optional":
        return (*_members(node[1]), NONE)
    return node[1] if node[0] == "union" else (node,)


def _message_fields(record: Record) -> abc.Iterator[Field]:
    """Fields of a message of ours, in the order in which its instances hold them."""
    known: dict[str, Any] = dict(getattr(record.cls, "__dataclass_fields__", {}))
    annotations = annotations_of(record.cls)
    variables = type_variables(record.cls, record.arguments)
    for name in _core.field_names(record.cls):
        field = known.get(name)
        annotation, owner = annotations.get(name, (getattr(field, "type", Any), record.cls))
        node = node_for(annotation, variables, owner)
        yield Field(name, node, getattr(field, "default", MISSING), getattr(field, "default_factory", MISSING))


def _contract_fields(record: Record) -> abc.Iterator[Field]:
    """Declared fields of the framework's own events: dataclass fields, then annotations of plain subclasses."""
    known: dict[str, Any] = dict(getattr(record.cls, "__dataclass_fields__", {}))
    annotations = annotations_of(record.cls)
    variables = type_variables(record.cls, record.arguments)
    for name in dict.fromkeys((*known, *annotations)):
        if name in CONTRACT_META_NAMES or name.startswith("__"):
            continue
        annotation, owner = annotations.get(name, (getattr(known.get(name), "type", Any), record.cls))
        node = node_for(annotation, variables, owner)
        default: Any = MISSING
        factory: Any = MISSING
        if name in known:
            default, factory = known[name].default, known[name].default_factory
        if default is MISSING and factory is MISSING:
            value = getattr(record.cls, name, MISSING)
            if not hasattr(value, "__get__") and not isinstance(value, dataclasses.Field):
                default = value
        yield Field(name, node, default, factory)


def _dataclass_fields(record: Record) -> abc.Iterator[Field]:
    annotations = annotations_of(record.cls)
    variables = type_variables(record.cls, record.arguments)
    for field in dataclasses.fields(record.cls):
        annotation, owner = annotations.get(field.name, (field.type, record.cls))
        yield Field(field.name, node_for(annotation, variables, owner), field.default, field.default_factory)


def _pydantic_fields(record: Record) -> abc.Iterator[Field]:
    for name, info in record.cls.__pydantic_fields__.items():  # type: ignore[attr-defined]
        default = MISSING if info.is_required() else info.default
        factory = info.default_factory if info.default_factory is not None else MISSING
        if factory is not MISSING:
            default = MISSING
        yield Field(name, node_for(info.annotation, {}, record.cls), default, factory)


def _namedtuple_fields(record: Record) -> abc.Iterator[Field]:
    annotations = annotations_of(record.cls)
    variables = type_variables(record.cls, record.arguments)
    defaults = record.cls._field_defaults  # type: ignore[attr-defined]
    for name in record.cls._fields:  # type: ignore[attr-defined]
        annotation, owner = annotations.get(name, (Any, record.cls))
        yield Field(name, node_for(annotation, variables, owner), defaults.get(name, MISSING))


def _typeddict_fields(record: Record) -> abc.Iterator[Field]:
    variables = dict(zip(getattr(record.cls, "__parameters__", ()), record.arguments, strict=False))
    for name, annotation in record.cls.__annotations__.items():
        yield Field(name, node_for(annotation, variables, record.cls))


_FIELDS: dict[str, abc.Callable[[Record], abc.Iterator[Field]]] = {
    "event": _message_fields,
    "message": _message_fields,
    "contract": _contract_fields,
    "dataclass": _dataclass_fields,
    "pydantic": _pydantic_fields,
    "namedtuple": _namedtuple_fields,
    "typeddict": _typeddict_fields,
}
