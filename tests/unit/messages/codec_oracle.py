"""The codec's JSON form, node by node: `to_json` and `from_json` turn values into plain JSON data and back."""

from __future__ import annotations

import base64
import functools
import re
import warnings
from collections import OrderedDict, deque
from collections.abc import Collection
from dataclasses import MISSING
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any
from uuid import UUID

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import _core
from lexigram.events.exceptions import SerializationError
from lexigram.events.messages import shapes, timetext
from lexigram.events.messages.registry import EventTypeRegistry, default_registry, is_value_class
from lexigram.events.messages.shapes import ANY, Field, Node, Record

MAX_DEPTH = 128
BIG_FLOAT = 1e16
"""From here on a whole float may be rewritten as an integer by databases, so it is written with its type."""
BIG_INT_BITS = 8192
"""Longest integer written as decimal digits; longer ones are written as tagged hexadecimal."""

TAG, VALUE = "$type", "value"
UUID_TEXT = re.compile(r"\A[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\Z")
_PLAIN = {bool, int, float, str, type(None)}
_SCALAR_BASES = (int, float, str, bytes, Decimal, UUID)
_TEXT_KINDS = {"bytes", "uuid", "datetime", "date", "time", "timedelta", "decimal"}
_KEY_KINDS = {"str", "uuid", "int", "date", "datetime", "enum"}


def fail(path: str, message: str) -> SerializationError:
    return SerializationError(f"{path or 'value'}: {message}", field=path or None)


def tagged(tag: str, value: Any) -> dict[str, Any]:
    return {TAG: tag, VALUE: value}


def token(data: Any) -> str:
    """Return the class of a piece of JSON data: n, b, i, f, s, a, o, or t for a tagged one."""
    if isinstance(data, dict):
        return "t" if TAG in data else "o"
    kinds = {type(None): "n", bool: "b", int: "i", float: "f", str: "s", list: "a"}
    return kinds[type(data)]


def format_scalar(kind: str, value: Any) -> str:
    if kind == "bytes":
        return base64.b64encode(value).decode("ascii")
    if kind in ("datetime", "time"):
        return timetext.format_moment(value)
    if kind == "date":
        return str(value.isoformat())
    if kind == "timedelta":
        return timetext.format_duration(value)
    return str(value)


def parse_scalar(kind: str, text: str) -> Any:
    if kind == "bytes":
        return base64.b64decode(text, validate=True)
    if kind == "uuid":
        if not UUID_TEXT.match(text.lower()):
            raise ValueError(f"not a UUID: {text[:60]!r}")
        return UUID(text)
    if kind == "decimal":
        return Decimal(text)
    parse = {
        "datetime": timetext.parse_datetime,
        "date": timetext.parse_date,
        "time": timetext.parse_time,
        "timedelta": timetext.parse_duration,
    }
    return parse[kind](text)


@functools.cache
def claims(node: Node) -> frozenset[str]:
    """Return the token classes that a node reads in its own way."""
    kind = node[0]
    if kind in _TEXT_KINDS or kind == "str":
        return frozenset("s")
    if kind in ("int", "bool"):
        return frozenset(kind[0])
    if kind == "float":
        return frozenset("if")
    if kind == "enum":
        return frozenset("sifb")
    if kind in ("list", "set", "frozenset", "vartuple", "tuple"):
        return frozenset("a")
    if kind == "dict":
        return frozenset("o")
    if kind == "record":
        return frozenset("a" if node[1].style == "namedtuple" else "o")
    if kind == "optional":
        return claims(node[1])
    if kind == "union":
        return frozenset(owners(node))
    return frozenset()


@functools.cache
def owners(node: Node) -> dict[str, Node]:
    """Return {token class: member of the union that reads it}; str wins, then the first member."""
    found: dict[str, Node] = {}
    for member in node[1]:
        for one in "if" if member[0] == "float" and ("int",) not in node[1] else claims(member):
            found.setdefault(one, member)
    if ("str",) in node[1]:
        found["s"] = ("str",)
    if ("int",) in node[1]:
        found["i"] = ("int",)
    if ("float",) in node[1]:
        found["f"] = ("float",)
    return found


def member_for(node: Node, value: Any) -> Node | None:
    """Return the member of a union that a value belongs to by its exact type."""
    cls = type(value)
    for member in node[1]:
        kind = member[0]
        if kind == "enum" and member[1] is cls:
            return member  # type: ignore[no-any-return]
        if kind == "record" and (member[1].cls is cls or (member[1].style == "typeddict" and cls is dict)):
            return member  # type: ignore[no-any-return]
        if kind == "literal" and any(type(one) is cls and one == value for one in member[1]):
            return ANY
        if shapes.SCALARS.get(cls) == kind or shapes.CONTAINERS.get(cls) == kind:
            return member  # type: ignore[no-any-return]
        if cls is tuple and kind == "tuple" and len(value) == len(member[1]):
            return member  # type: ignore[no-any-return]
    return None


class Interpreter:
    """Encodes and decodes values with the classes that one registry knows."""

    def __init__(self, registry: EventTypeRegistry) -> None:
        self.registry = registry

    # encode

    def to_json(self, node: Node, value: Any, path: str, depth: int = 0) -> Any:
        """Return JSON data from which `from_json` with the same node makes an equal value of the same type."""
        if depth > MAX_DEPTH:
            raise fail(path, f"nested deeper than {MAX_DEPTH} levels, or contains itself")
        data = self._expected(node, value, path, depth)
        if data is not MISSING:
            return data
        data = self.any_json(value, path, depth)
        return tagged("any", data) if token(data) in claims(node) else data

    def _expected(self, node: Node, value: Any, path: str, depth: int) -> Any:
        """Return the data of a value that is of exactly the type the node expects, else MISSING."""
        kind, cls = node[0], type(value)
        if shapes.SCALARS.get(cls) == kind:
            return self._scalar(kind, value, path)
        if kind == "float" and cls is int and abs(value) < BIG_FLOAT:
            return value
        if kind == "enum" and cls is node[1]:
            return self._enum(value, path, depth)
        if kind == "optional":
            return None if value is None else self.to_json(node[1], value, path, depth)
        if kind == "union":
            return self._union(node, value, path, depth)
        if kind == "record":
            record: Record = node[1]
            if record.cls is cls or (record.style == "typeddict" and cls is dict and self._fits(record, value)):
                return self._record(record, value, path, depth)
            return MISSING
        if shapes.CONTAINERS.get(cls) == kind or (kind == "tuple" and cls is tuple and len(value) == len(node[1])):
            return self._container(node, value, path, depth)
        if kind == "foreign" and not self._known(value):
            return self._foreign(node[1], value, path, depth)
        return MISSING

    def _known(self, value: Any) -> bool:
        cls = type(value)
        return cls in _PLAIN or cls in shapes.SCALARS or cls in shapes.CONTAINERS or is_value_class(cls)

    def _scalar(self, kind: str, value: Any, path: str) -> Any:
        if kind == "int" and value.bit_length() > BIG_INT_BITS:
            return tagged("int", hex(value))
        if kind == "float" and (value != value or value in (float("inf"), float("-inf"))):
            return tagged("float", repr(value))
        if kind in _TEXT_KINDS:
            try:
                return format_scalar(kind, value)
            except ValueError as error:
                raise fail(path, str(error)) from error
        return value

    def _enum(self, value: Enum, path: str, depth: int) -> Any:
        raw = value.value
        if type(raw) in (str, int, bool) or (type(raw) is float and abs(raw) < BIG_FLOAT):
            try:
                if type(value)(raw) is value:
                    return self.any_json(raw, path, depth + 1)
            except (ValueError, TypeError):
                pass
        if value.name is None:
            raise fail(path, f"{value!r} has neither a storable value nor a name")
        return tagged("member", value.name)

    def _union(self, node: Node, value: Any, path: str, depth: int) -> Any:
        member = member_for(node, value)
        if member is None:
            return MISSING
        if member == ("float",) and abs(value) >= BIG_FLOAT:
            return self.any_json(value, path, depth)
        if member == ("uuid",) and owners(node).get("s") == ("str",):
            return str(value)
        if member == ("str",) and ("uuid",) in node[1] and UUID_TEXT.match(value):
            return tagged("any", value)
        if member[0] != "enum" and any(owners(node).get(one) != member for one in claims(member) - {"i"}):
            return MISSING
        data = self.to_json(member, value, path, depth)
        if member[0] == "enum" and token(data) == "t":
            return MISSING
        if token(data) == "t" or owners(node).get(token(data), ANY) == member:
            return data
        return MISSING

    def _container(self, node: Node, value: Any, path: str, depth: int) -> Any:
        kind = node[0]
        if kind == "dict":
            return self._dict(node, value, path, depth)
        nodes = node[1] if kind == "tuple" else (node[1],) * len(value)
        items = list(value)
        return [
            self.to_json(n, v, f"{path}[{i}]", depth + 1) for i, (n, v) in enumerate(zip(nodes, items, strict=True))
        ]

    def _dict(self, node: Node, value: dict[Any, Any], path: str, depth: int) -> Any:
        keys = [self._key(node[1], key, path, depth) for key in value]
        if all(key is not None for key in keys) and TAG not in keys and len(set(keys)) == len(keys):
            pairs = zip(keys, value.values(), strict=True)
            return {key: self.to_json(node[2], item, f"{path}[{key!r}]", depth + 1) for key, item in pairs}
        return tagged(
            "dict",
            [
                [
                    self.to_json(node[1], k, f"{path} key {k!r}"[:200], depth + 1),
                    self.to_json(node[2], v, f"{path}[{k!r}]"[:200], depth + 1),
                ]
                for k, v in value.items()
            ],
        )

    def _key(self, node: Node, key: Any, path: str, depth: int) -> str | None:
        """Return a key as text if its node can read it back from there."""
        if node[0] == "any":
            return key if type(key) is str else None
        if node[0] not in _KEY_KINDS:
            return None
        data = self._expected(node, key, path, depth + 1)
        if node[0] == "int" and type(data) is int:
            return str(data)
        return data if type(data) is str else None

    def _fits(self, record: Record, value: dict[Any, Any]) -> bool:
        return all(type(key) is str for key in value) and TAG not in value

    def _record(self, record: Record, value: Any, path: str, depth: int) -> Any:
        if record.style in ("event", "contract"):
            return self.event_json(record, value, path, depth)
        names = [field.name for field in record.fields]
        if record.style == "namedtuple":
            return [self._field(f, getattr(value, f.name), path, depth) for f in record.fields]
        if record.style == "typeddict":
            known = {field.name: field for field in record.fields}
            return {k: self._field(known.get(k, Field(k, ANY)), v, path, depth) for k, v in value.items()}
        data = {}
        for field in record.fields:
            item = self._attribute(value, field.name)
            if item is not MISSING:
                data[field.name] = self._field(field, item, path, depth)
        data.update(self.extras_json(value, names, path, depth))
        if record.style == "pydantic":
            self._pydantic_parts(value, names, data, path, depth)
        return data

    def _attribute(self, value: Any, name: str) -> Any:
        found = getattr(value, "__dict__", {}).get(name, MISSING)
        return getattr(value, name, MISSING) if found is MISSING else found

    def _field(self, field: Field, value: Any, path: str, depth: int) -> Any:
        return self.to_json(field.node, value, f"{path}.{field.name}" if path else field.name, depth + 1)

    def extras_json(self, value: Any, names: Collection[str], path: str, depth: int) -> dict[str, Any]:
        """Return the attributes of an instance that are not declared, with a second "$" where the name has one."""
        found = {}
        own = getattr(value, "__dict__", None)
        for name, item in own.items() if own else ():
            if name in names or name == "__orig_class__":
                continue
            if isinstance(getattr(type(value), name, None), functools.cached_property):
                continue
            key = f"${name}" if name.startswith("$") else name
            found[key] = self.to_json(ANY, item, f"{path}.{name}" if path else name, depth + 1)
        return found

    def _pydantic_parts(self, value: Any, names: list[str], data: dict[str, Any], path: str, depth: int) -> None:
        for key, part in (("$extra", value.__pydantic_extra__), ("$private", value.__pydantic_private__)):
            if part:
                data[key] = self.to_json(("dict", ANY, ANY), part, f"{path}.{key}", depth + 1)
        unset = [name for name in names if name not in value.__pydantic_fields_set__]
        if unset:
            data["$unset"] = unset

    def _foreign(self, annotation: Any, value: Any, path: str, depth: int) -> Any:
        adapter = foreign_adapter(annotation)
        if adapter is not None:
            try:
                data = adapter.dump_python(value, mode="json", warnings="error")
                back = adapter.validate_python(data)
                if type(back) is type(value) and back == value:
                    return tagged("foreign", self.any_json(data, path, depth + 1))
            except Exception as error:
                raise fail(path, f"{type(value).__qualname__} cannot be stored: {error}") from error
        return MISSING

    def any_json(self, value: Any, path: str, depth: int) -> Any:
        """Return JSON data that names the type of everything that JSON does not have."""
        cls = type(value)
        if depth > MAX_DEPTH:
            raise fail(path, f"nested deeper than {MAX_DEPTH} levels, or contains itself")
        if cls in _PLAIN:
            if cls is float and abs(value) >= BIG_FLOAT:
                return tagged("float", repr(value))
            return None if value is None else self._scalar(shapes.SCALARS[cls], value, path)
        if cls in shapes.SCALARS:
            return tagged(shapes.SCALARS[cls], self._scalar(shapes.SCALARS[cls], value, path))
        if cls is list:
            return self._container(("list", ANY), value, path, depth)
        if cls is dict:
            return self._container(("dict", ANY, ANY), value, path, depth)
        if cls in (tuple, set, frozenset):
            return tagged(cls.__name__, self._container(("list", ANY), value, path, depth))
        if cls is OrderedDict:
            return tagged(
                "ordereddict",
                [[self.any_json(k, path, depth + 1), self.any_json(v, path, depth + 1)] for k, v in value.items()],
            )
        if cls is deque:
            return tagged("deque", [value.maxlen, self._container(("list", ANY), value, path, depth)])
        return self._class_json(cls, value, path, depth)

    def _class_json(self, cls: type, value: Any, path: str, depth: int) -> Any:
        if issubclass(cls, Enum):
            return tagged(self.registry.type_name(cls), self._enum(value, path, depth))
        record = shapes.record_for(cls)
        if record is not None:
            return tagged(self.registry.type_name(cls), self._record(record, value, path, depth))
        for base in _SCALAR_BASES:
            if issubclass(cls, base) and not getattr(value, "__dict__", None):
                plain = base(value) if base is not UUID else UUID(int=value.int)
                return tagged(self.registry.type_name(cls), self.any_json(plain, path, depth + 1))
        raise fail(
            path,
            f"{cls.__module__}.{cls.__qualname__} cannot be stored; "
            "use a dataclass, pydantic model, enum or built-in type",
        )

    def event_json(self, record: Record, event: Any, path: str, depth: int) -> dict[str, Any]:
        """Return the data of an event: fields, ad-hoc attributes, and `$meta`."""
        data: dict[str, Any] = {}
        names = {field.name for field in record.fields}
        for field in record.fields:
            value = self._attribute(event, field.name)
            if value is not MISSING:
                data[field.name] = self._field(field, value, path, depth)
        meta_names = shapes.META_NAMES if record.style == "event" else shapes.CONTRACT_META_NAMES
        data.update(self.extras_json(event, names | meta_names, path, depth))
        data["$meta"] = self._meta(event, meta_names, path, depth, nested=depth > 0)
        return data

    def _meta(self, event: Any, names: frozenset[str], path: str, depth: int, nested: bool) -> dict[str, Any]:
        meta: dict[str, Any] = {}
        for name, node in META_NODES.items():
            if name not in names or (not nested and name in ("version", "sequence_number")):
                continue
            value = getattr(event, name, None)
            if name == "metadata" and value is not None:
                value = dict(value)
            default = type(event).__name__ if name == "event_type" else META_DEFAULTS.get(name)
            if type(value) is type(default) and value == default:
                continue
            meta[name] = self.to_json(node, value, f"{path}.{name}" if path else name, depth + 1)
        return meta

    def raw_json(self, data: Any, path: str, depth: int = 0) -> Any:
        """Return data that is JSON except for some Python values, with those written in their tagged form."""
        if depth > MAX_DEPTH:
            raise fail(path, f"nested deeper than {MAX_DEPTH} levels, or contains itself")
        if type(data) is dict and all(type(key) is str for key in data):
            return {key: self.raw_json(item, f"{path}.{key}" if path else key, depth + 1) for key, item in data.items()}
        if type(data) is list:
            return [self.raw_json(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(data)]
        return self.any_json(data, path, depth)

    # decode

    def from_json(self, node: Node, data: Any, path: str, depth: int = 0) -> Any:
        """Return the value of JSON data written by `to_json`, or of what another program wrote in the same form.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) the data does not fit the node; names the field.
        """
        if depth > MAX_DEPTH:
            raise fail(path, f"nested deeper than {MAX_DEPTH} levels")
        kind, one = node[0], token(data)
        if one == "t":
            return self._from_tagged(node, data, path, depth)
        if kind == "optional":
            return None if data is None else self.from_json(node[1], data, path, depth)
        if one not in claims(node):
            return self.from_any(data, path, depth)
        if kind == "union":
            return self._from_union(node, data, one, path, depth)
        if kind in _TEXT_KINDS:
            return self._parse(kind, data, path)
        if kind == "float":
            return data if one == "f" or abs(data) < BIG_FLOAT else float(data)
        if kind == "enum":
            return self._from_enum(node[1], data, path, depth)
        if kind == "record":
            return self._from_record(node[1], data, path, depth)
        if one == "a":
            return self._from_array(node, data, path, depth)
        if one == "o":
            return {
                self._from_key(node[1], key, path, depth): self.from_json(node[2], item, f"{path}[{key!r}]", depth + 1)
                for key, item in data.items()
            }
        return data

    def _parse(self, kind: str, text: str, path: str) -> Any:
        try:
            return parse_scalar(kind, text)
        except (ValueError, InvalidOperation, OverflowError) as error:
            raise fail(path, f"not a {kind}: {error}") from error

    def _from_union(self, node: Node, data: Any, one: str, path: str, depth: int) -> Any:
        if one == "s" and owners(node)["s"] == ("str",) and ("uuid",) in node[1] and UUID_TEXT.match(data):
            return UUID(data)
        return self.from_json(owners(node)[one], data, path, depth)

    def _from_enum(self, cls: type[Enum], data: Any, path: str, depth: int) -> Enum:
        if token(data) == "t" and data[TAG] == "member":
            if data[VALUE] not in cls.__members__:
                raise fail(path, f"{cls.__qualname__} has no member {data[VALUE]!r}")
            return cls.__members__[data[VALUE]]
        value = self.from_any(data, path, depth + 1)
        try:
            return cls(value)
        except (ValueError, TypeError, KeyError) as error:
            raise fail(path, f"{value!r} is not a {cls.__qualname__}") from error

    def _from_array(self, node: Node, data: list[Any], path: str, depth: int) -> Any:
        kind = node[0]
        if kind == "tuple":
            if len(data) != len(node[1]):
                raise fail(path, f"{len(node[1])} items expected, {len(data)} found")
            pairs = zip(node[1], data, strict=True)
            return tuple(self.from_json(n, v, f"{path}[{i}]", depth + 1) for i, (n, v) in enumerate(pairs))
        make: Any = {"list": list, "vartuple": tuple, "set": set, "frozenset": frozenset}[kind]
        items = [self.from_json(node[1], v, f"{path}[{i}]", depth + 1) for i, v in enumerate(data)]
        try:
            return make(items)
        except TypeError as error:
            raise fail(path, str(error)) from error

    def _from_key(self, node: Node, key: str, path: str, depth: int) -> Any:
        if node[0] == "int":
            if not re.match(r"\A-?\d{1,3000}\Z", key, re.ASCII):
                raise fail(path, f"key {key[:60]!r} is not an integer")
            return int(key)
        return self.from_json(node, key, f"{path} key", depth + 1) if node[0] in _KEY_KINDS else key

    def _from_record(self, record: Record, data: Any, path: str, depth: int) -> Any:
        if record.style in ("event", "contract"):
            return self.event_from_json(record, data, path, depth)
        if record.style == "namedtuple":
            return self._from_namedtuple(record, data, path, depth)
        if record.style == "typeddict":
            known = {field.name: field.node for field in record.fields}
            return {k: self.from_json(known.get(k, ANY), v, f"{path}.{k}", depth + 1) for k, v in data.items()}
        values, rest = self.fields_from_json(record, data, path, depth)
        make: Any = object.__new__(record.cls)
        if record.style == "pydantic":
            return self._from_pydantic(make, record, values, rest, path, depth)
        for name, value in values.items():
            object.__setattr__(make, name, value)
        for key, item in rest.items():
            name = key[1:] if key.startswith("$$") else key
            if not hasattr(make, "__dict__"):
                self._dropped(record, name)
                continue
            object.__setattr__(make, name, self.from_any(item, f"{path}.{name}", depth + 1))
        return make

    def _dropped(self, record: Record, name: str) -> None:
        warnings.warn(
            f"stored field {name!r} has no place in {record.cls.__qualname__} and was left out",
            UserWarning,
            stacklevel=2,
        )

    def fields_from_json(
        self, record: Record, data: dict[str, Any], path: str, depth: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return ({field: value}, {other key: raw data}); missing fields take their defaults."""
        if not isinstance(data, dict):
            raise fail(path, f"an object expected for {record.cls.__qualname__}")
        rest, values = dict(data), {}
        for field in record.fields:
            at = f"{path}.{field.name}" if path else field.name
            if field.name in rest:
                values[field.name] = self.from_json(field.node, rest.pop(field.name), at, depth + 1)
            elif field.default is not MISSING:
                values[field.name] = field.default
            elif field.default_factory is not MISSING:
                values[field.name] = field.default_factory()
            else:
                raise fail(at, f"missing in the stored data, and {record.cls.__qualname__} has no default for it")
        return values, rest

    def _from_namedtuple(self, record: Record, data: Any, path: str, depth: int) -> Any:
        if not isinstance(data, list) or len(data) > len(record.fields):
            raise fail(path, f"a list of at most {len(record.fields)} items expected")
        values = []
        for index, field in enumerate(record.fields):
            if index < len(data):
                values.append(self.from_json(field.node, data[index], f"{path}.{field.name}", depth + 1))
            elif field.default is MISSING:
                raise fail(f"{path}.{field.name}", "missing in the stored data")
            else:
                values.append(field.default)
        return tuple.__new__(record.cls, values)

    def _from_pydantic(
        self, make: Any, record: Record, values: dict[str, Any], rest: dict[str, Any], path: str, depth: int
    ) -> Any:
        extra = self.from_any(rest.pop("$extra", None), f"{path}.$extra", depth + 1)
        private = self.from_any(rest.pop("$private", None), f"{path}.$private", depth + 1)
        unset = rest.pop("$unset", [])
        if record.cls.model_config.get("extra") == "allow":  # type: ignore[attr-defined]
            extra = {**(extra or {}), **{k: self.from_any(v, path, depth + 1) for k, v in rest.items()}}
        else:
            for name in rest:
                self._dropped(record, name)
        put = object.__setattr__
        put(make, "__dict__", values)
        put(make, "__pydantic_fields_set__", {*values, *(extra or ())} - set(unset))
        put(make, "__pydantic_extra__", extra)
        attributes = record.cls.__private_attributes__  # type: ignore[attr-defined]
        if attributes:
            defaults = {name: one.get_default() for name, one in attributes.items()}
            private = {**{k: v for k, v in defaults.items() if repr(v) != "PydanticUndefined"}, **(private or {})}
        put(make, "__pydantic_private__", private)
        return make

    def _from_tagged(self, node: Node, data: dict[str, Any], path: str, depth: int) -> Any:
        tag, value = data.get(TAG), data.get(VALUE)
        if not isinstance(tag, str) or set(data) != {TAG, VALUE}:
            raise fail(path, "a tagged value has exactly the keys '$type' and 'value'")
        while node[0] == "optional":
            node = node[1]
        owner = owners(node).get("o", ANY) if node[0] == "union" else node
        if tag == "dict" and owner[0] == "dict":
            return self._from_pairs(owner, value, path, depth)
        if tag == "member" and node[0] == "enum":
            return self._from_enum(node[1], data, path, depth)
        if tag == "foreign" and node[0] == "foreign":
            adapter = foreign_adapter(node[1])
            try:
                return adapter.validate_python(self.from_any(value, path, depth + 1))
            except SerializationError:
                raise
            except Exception as error:
                raise fail(path, f"not a {node[1]!r}: {error}") from error
        return self.from_any(data, path, depth)

    def _from_pairs(self, node: Node, value: Any, path: str, depth: int) -> dict[Any, Any]:
        if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise fail(path, "a list of pairs expected")
        try:
            return {
                self.from_json(node[1], k, f"{path} key", depth + 1): self.from_json(
                    node[2], v, f"{path}[…]", depth + 1
                )
                for k, v in value
            }
        except TypeError as error:
            raise fail(path, str(error)) from error

    def from_any(self, data: Any, path: str, depth: int) -> Any:
        """Return the value of JSON data that names its types."""
        if depth > MAX_DEPTH:
            raise fail(path, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(data, list):
            return [self.from_any(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(data)]
        if not isinstance(data, dict):
            return data
        if TAG not in data:
            return {key: self.from_any(item, f"{path}[{key!r}]", depth + 1) for key, item in data.items()}
        if not isinstance(data[TAG], str) or set(data) != {TAG, VALUE}:
            raise fail(path, "a tagged value has exactly the keys '$type' and 'value'")
        return self._from_tag(data[TAG], data[VALUE], path, depth)

    def _from_tag(self, tag: str, value: Any, path: str, depth: int) -> Any:
        if tag == "any":
            return self.from_any(value, path, depth)
        if tag == "int" and isinstance(value, str) and re.match(r"\A-?0x[0-9a-f]+\Z", value):
            return int(value, 16)
        if tag == "float" and isinstance(value, str):
            return self._parse_float(value, path)
        if tag in _TEXT_KINDS and isinstance(value, str):
            return self._parse(tag, value, path)
        if tag in ("tuple", "set", "frozenset") and isinstance(value, list):
            return self._from_array((f"var{tag}" if tag == "tuple" else tag, ANY), value, path, depth)
        if tag == "dict":
            return self._from_pairs(("dict", ANY, ANY), value, path, depth)
        if tag == "ordereddict":
            return OrderedDict(self._from_pairs(("dict", ANY, ANY), value, path, depth))
        if tag == "deque" and isinstance(value, list) and len(value) == 2 and isinstance(value[1], list):
            if value[0] is not None and (type(value[0]) is not int or value[0] < 0):
                raise fail(path, "bad deque length")
            return deque(self._from_array(("list", ANY), value[1], path, depth), value[0])
        return self._from_class(tag, value, path, depth)

    def _parse_float(self, text: str, path: str) -> float:
        try:
            return float(text)
        except ValueError as error:
            raise fail(path, f"not a float: {text[:60]!r}") from error

    def _from_class(self, tag: str, value: Any, path: str, depth: int) -> Any:
        cls = self.registry.resolve_value(tag) or default_registry.resolve_value(tag)
        if cls is None and "." in tag:
            cls = self.registry.resolve(tag)
        if cls is None:
            raise fail(path, f"the type {tag[:100]!r} is not known; import the module that defines it, or register it")
        if issubclass(cls, Enum):
            return self._from_enum(cls, value, path, depth)
        record = shapes.record_for(cls)
        if record is not None:
            return self._from_record(record, value, path, depth)
        return self._from_scalar_class(cls, value, path)

    def _from_scalar_class(self, cls: type, value: Any, path: str) -> Any:
        plain = self.from_any(value, path, 0)
        for base in _SCALAR_BASES:
            if type(plain) is base and issubclass(cls, base):
                if isinstance(plain, UUID):
                    made = object.__new__(cls)
                    object.__setattr__(made, "int", plain.int)
                    object.__setattr__(made, "is_safe", plain.is_safe)
                    return made
                make: Any = base.__new__
                return make(cls, plain)
        raise fail(path, f"{cls.__qualname__} cannot be restored from this data")

    def event_from_json(self, record: Record, data: Any, path: str, depth: int) -> Any:
        """Return an event made without running its `__init__`; unknown fields are kept as attributes."""
        values, rest = self.fields_from_json(record, data, path, depth)
        meta = rest.pop("$meta", {})
        if not isinstance(meta, dict):
            raise fail("$meta", "an object expected")
        names = shapes.META_NAMES if record.style == "event" else shapes.CONTRACT_META_NAMES
        fields: dict[str, Any] = {}
        for name, node in META_NODES.items():
            if name not in names:
                continue
            at = f"{path}.{name}" if path else name
            if name in meta:
                fields[name] = self.from_json(node, meta[name], at, depth + 1)
            elif name in ("event_id", "occurred_at"):
                raise fail(f"$meta.{name}", "missing in the stored data")
            else:
                fields[name] = record.cls.__name__ if name == "event_type" else META_DEFAULTS.get(name)
        fields.update(values)
        extra = {}
        for key, item in rest.items():
            name = key[1:] if key.startswith("$$") else key
            extra[name] = self.from_any(item, f"{path}.{name}" if path else name, depth + 1)
        return build_event(record.cls, fields, extra)


def build_event(cls: type, fields: dict[str, Any], extra: dict[str, Any]) -> ContractEvent:
    """Return an event of a class with these attributes, without running `__init__`."""
    if issubclass(cls, _core.EventBase):
        return _core.rebuild(cls, fields, extra)  # type: ignore[no-any-return]
    event: Any = object.__new__(cls)
    for name, value in {**fields, **extra}.items():
        object.__setattr__(event, name, value)
    return event  # type: ignore[no-any-return]


@functools.cache
def foreign_adapter(annotation: Any) -> Any:
    """Return pydantic's adapter for a type that is not ours to know, or None where pydantic does not know it either."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


_ID: Node = ("optional", ("union", (("uuid",), ("str",))))
_TEXT: Node = ("optional", ("str",))
META_NODES: dict[str, Node] = {
    "event_id": ("uuid",),
    "occurred_at": ("datetime",),
    "event_type": _TEXT,
    "aggregate_id": _ID,
    "aggregate_type": _TEXT,
    "actor_id": _TEXT,
    "schema_version": ("int",),
    "correlation_id": _ID,
    "causation_id": _ID,
    "tags": ("vartuple", ("str",)),
    "metadata": ("dict", ("str",), ANY),
    "version": ("int",),
    "sequence_number": ("optional", ("int",)),
}
META_DEFAULTS: dict[str, Any] = {"tags": (), "metadata": {}, "version": 0}
