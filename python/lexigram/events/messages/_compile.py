"""Turns the declaration of a message class into the plan its Rust constructor follows.

A class is declared when it is defined and compiled at its first construction, when its decorators have run. Compiling
drops what `@dataclass` generated, moves defaults from class attributes into the plan and puts descriptors in their place.
"""

from __future__ import annotations

import copy
import dataclasses as dc
import inspect
import sys
import threading
from collections.abc import Iterator
from dataclasses import KW_ONLY as KW_ONLY
from dataclasses import InitVar as InitVar
from types import FunctionType, MemberDescriptorType
from typing import Any
from typing import ClassVar as ClassVar

from lexigram.events import _core
from lexigram.events.messages._pydantic import adopt_pydantic_fields
from lexigram.events.messages.annotations import own_annotations

EVENT_NAMES = (
    "event_id", "occurred_at", "event_type", "aggregate_id", "aggregate_type", "sequence_number", "actor_id",
    "schema_version", "version", "correlation_id", "causation_id", "tags", "metadata",
)  # fmt: skip
"""Metadata names of events."""

MESSAGE_NAMES = ("id", "timestamp", "metadata")
"""Metadata names of commands and queries."""

_COUNTERS = frozenset({"version", "sequence_number", "schema_version"})
_GENERATED = ("__init__", "__eq__", "__hash__", "__repr__", "__setattr__", "__delattr__")
_MAX_INLINE_SCHEMA = 0xFFFF

_lock = threading.RLock()


def metadata_names(cls: Any) -> tuple[str, ...]:
    """Return the metadata names of a message class."""
    return EVENT_NAMES if issubclass(cls, _core.EventBase) else MESSAGE_NAMES


class ClassDefault:
    """A metadata default written as class attribute: readable on the class, metadata on instances."""

    def __init__(self, name: str, value: Any, metadata: Any) -> None:
        self.name, self.value, self.metadata = name, value, metadata

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self.value if instance is None else self.metadata.__get__(instance, owner)

    def __set__(self, instance: Any, value: Any) -> None:
        self.metadata.__set__(instance, value)


class MessageFields(dict[str, "dc.Field[Any]"]):
    """Dataclass fields of a message class; an instance has more of them than its class shows.

    `tags` and `metadata` are left to instances: otherwise a decorated subclass with a field of that name would get it
    at their place in the order of positional arguments. So are the ad-hoc attributes of `Event(...)`.
    """

    def __get__(self, instance: Any, owner: type | None = None) -> dict[str, dc.Field[Any]]:
        if instance is None or not isinstance(instance, _core.EventBase):
            return self
        extra = _core.message_state(instance)[1] or ()
        return {**_hidden_fields(type(instance)), **self, **{name: _ad_hoc_field(name) for name in extra}}


@dc.dataclass(kw_only=True)
class _AdHoc:
    value: Any


def _ad_hoc_field(name: str) -> dc.Field[Any]:
    """Return the field of an ad-hoc attribute; its name may be any text, which `make_dataclass` would refuse."""
    made = copy.copy(_AdHoc.__dataclass_fields__["value"])
    made.name = name
    return made


_HIDDEN = ("tags", "metadata")


def _hidden_fields(cls: Any) -> dict[str, dc.Field[Any]]:
    metadata = _root(cls).__dict__["__metadata_fields__"]
    return {name: metadata[name] for name in _HIDDEN if issubclass(cls, _core.EventBase)}


def declare(cls: Any) -> None:
    """Give a new class its dataclass fields and route its first construction through `compile_class`."""
    for base in cls.__mro__[1:]:
        if _is_message_class(base):
            compile_class(base)
    adopt_pydantic_fields(cls)
    # Slots make `@dataclass` create the class a second time, from a dictionary that has this entry already.
    if "__message_methods__" not in cls.__dict__:
        cls.__message_methods__ = frozenset(name for name in _GENERATED if name in cls.__dict__)
    if "__metadata_fields__" in cls.__dict__:
        cls.__dataclass_fields__ = _root_fields(cls)
    elif "__dataclass_params__" not in cls.__dict__:
        cls.__dataclass_fields__ = _fields_of(cls)
        if "__match_args__" not in cls.__dict__:
            names = metadata_names(cls)
            own = tuple(f.name for f in dc.fields(cls) if f.name not in names and f.init)
            setattr(cls, "__match_args__", own)  # noqa: B010 - mypy knows the name as constant
    _core.arm(cls)


def compile_class(cls: Any) -> None:
    """Make the plan of a class and of every message class above it, once."""
    with _lock:
        for base in reversed(cls.__mro__):
            if _is_message_class(base) and not _core.is_compiled(base):
                _compile(base)


def _is_message_class(cls: type) -> bool:
    bases = (_core.EventBase, _core.MessageBase)
    return cls not in bases and issubclass(cls, bases)


def _fields_of(cls: Any) -> dict[str, dc.Field[Any]]:
    """Return what `@dataclass(kw_only=True)` would make of the class, without touching it."""
    fields = MessageFields()
    for base in cls.__mro__[:0:-1]:
        fields.update(base.__dict__.get("__dataclass_fields__", {}))
    annotations = own_annotations(cls)
    if not annotations:
        return fields
    # `@dataclass` looks up quoted annotations in the module of the class; code run by `exec` may have none.
    module = cls.__module__ if cls.__module__ in sys.modules else __name__
    body: dict[str, Any] = {"__annotations__": annotations, "__module__": module, "__doc__": ""}
    for name in annotations:
        value = cls.__dict__.get(name, dc.MISSING)
        if isinstance(value, dc.Field):
            body[name] = _keyword_only(value)
        elif value is not dc.MISSING and not isinstance(value, MemberDescriptorType):
            body[name] = value
    shadow: Any = dc.dataclass(init=False, repr=False, eq=False, match_args=False, kw_only=True)(
        type(cls.__name__, (), body)
    )
    fields.update(shadow.__dataclass_fields__)
    return fields


def _root_fields(cls: Any) -> dict[str, dc.Field[Any]]:
    """Return the fields of `DomainEvent`, `Command` or `Query`: ours for the metadata, the contract's other ones."""
    metadata = cls.__dict__["__metadata_fields__"]
    others = [(f.name, f.type, _keyword_only(f)) for f in _fields_of(cls).values() if f.name not in metadata]
    shadow: Any = dc.make_dataclass("Fields", others, kw_only=True)
    fields = {**metadata, **shadow.__dataclass_fields__}
    if issubclass(cls, _core.EventBase):
        fields = {name: f for name, f in fields.items() if name not in _HIDDEN}
    return MessageFields(fields)


def _keyword_only(given: dc.Field[Any]) -> dc.Field[Any]:
    """Return a copy of a field; the original stays untouched for a decorator that may still come."""
    options: dict[str, Any] = {name: getattr(given, name) for name in ("init", "repr", "hash", "compare", "metadata")}
    if given.default is not dc.MISSING:
        options["default"] = given.default
    if given.default_factory is not dc.MISSING:
        options["default_factory"] = given.default_factory
    return dc.field(kw_only=True, **options)  # type: ignore[no-any-return]


def _kind(field: Any) -> str:
    """Return "_FIELD", "_FIELD_CLASSVAR" or "_FIELD_INITVAR"."""
    return str(field._field_type.name)


def init_variables(cls: Any) -> list[dc.Field[Any]]:
    """Return the `InitVar` pseudo-fields of a class."""
    return [f for f in cls.__dataclass_fields__.values() if _kind(f) == "_FIELD_INITVAR"]


def _compile(cls: Any) -> None:
    if "__dataclass_fields__" not in cls.__dict__:
        cls.__dataclass_fields__ = _fields_of(cls)
    fields = MessageFields(cls.__dict__["__dataclass_fields__"])
    cls.__dataclass_fields__ = fields
    _drop_generated_methods(cls)
    if "__slots__" in cls.__dict__:
        # With it, orjson reads the attributes of an instance and lets go of them before it writes them: a crash.
        del cls.__slots__
    names = metadata_names(cls)
    overrides = _metadata_overrides(cls, fields, names)
    own = [f for f in dc.fields(cls) if f.name not in names or _is_users(f, cls)]
    own_names = {f.name for f in own}
    variables = init_variables(cls)
    event_type: Any = cls.__name__
    schema_version: Any = 1
    metadata: list[tuple[str, tuple[Any, ...] | None]] = []
    for name in names:
        if name in own_names:
            continue
        given = overrides.get(name)
        if given is not None and name == "event_type" and isinstance(given.default, str) and given.default:
            event_type, given = given.default, None
        elif given is not None and name == "schema_version" and _is_inline_schema(given.default):
            schema_version, given = given.default, None
        metadata.append((name, None if given is None else _fallback(given)))
    positional = [index for index, f in enumerate(own) if f.init and not f.kw_only]
    _core.compile(
        cls,
        [(f.name, (_fallback(f), f.init, f.compare, _is_visible(cls, f))) for f in own],
        metadata,
        positional=positional,
        accepts_extra=bool(cls.__dict__.get("__accepts_extra__")),
        post_init=not variables and _has_post_init(cls),
        event_type=event_type,
        schema_version=schema_version,
        always_tracked=hasattr(cls, "__del__"),
        abstract=", ".join(sorted(getattr(cls, "__abstractmethods__", ()))),
    )
    if variables and "__init__" not in cls.__dict__.get("__message_methods__", ()):
        cls.__init__ = _init_with_variables(cls, own, variables)


def _is_inline_schema(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_INLINE_SCHEMA


def _fallback(field: dc.Field[Any]) -> tuple[Any, ...]:
    """Return () for required, (value,) for a default, (None, factory) for a factory."""
    if field.default_factory is not dc.MISSING:
        return (None, field.default_factory)
    return () if field.default is dc.MISSING else (field.default,)


def _is_visible(cls: type, field: dc.Field[Any]) -> bool:
    """Whether the attribute is the field: a property or method of the same name in its class or below it wins."""
    for base in cls.__mro__:
        found = base.__dict__.get(field.name)
        if isinstance(found, property | FunctionType | classmethod | staticmethod):
            return found is field.default
        if field.name in own_annotations(base):
            return True
    return True


def _is_users(field: dc.Field[Any], cls: type) -> bool:
    """Whether a redeclared metadata name is a field of the user's own rather than a new default for the metadata.

    `tags` and `metadata` of events always are; a counter is one if it is declared as something else than a number,
    because stores overwrite counters.
    """
    if any(field is base.__dict__.get("__metadata_fields__", {}).get(field.name) for base in cls.__mro__):
        return False
    if issubclass(cls, _core.MessageBase):
        return False
    if field.name in ("tags", "metadata"):
        return True
    return field.name in _COUNTERS and "int" not in str(field.type).lower()


def _metadata_overrides(cls: Any, fields: dict[str, dc.Field[Any]], names: tuple[str, ...]) -> dict[str, dc.Field[Any]]:
    """Return new defaults for metadata: redeclared fields and plain class attributes, inherited ones included."""
    overrides: dict[str, dc.Field[Any]] = {}
    for base in cls.__mro__[:0:-1]:
        overrides.update(base.__dict__.get("__metadata_overrides__", {}))
    native = _core.EventBase if issubclass(cls, _core.EventBase) else _core.MessageBase
    is_root = "__metadata_fields__" in cls.__dict__
    for name in names:
        if is_root:
            continue
        annotated = name in own_annotations(cls) and name in fields
        if annotated and _is_users(fields[name], cls):
            overrides.pop(name, None)
            continue
        value = cls.__dict__.get(name, dc.MISSING)
        if annotated:
            overrides[name] = fields[name]
        elif value is not dc.MISSING and not _is_descriptor(value):
            overrides[name] = dc.field(default=value)
        else:
            continue
        if name in cls.__dict__:
            delattr(cls, name)
        if overrides[name].default is not dc.MISSING:
            setattr(cls, name, ClassDefault(name, overrides[name].default, native.__dict__[name]))
    cls.__metadata_overrides__ = overrides
    return overrides


def _is_descriptor(value: object) -> bool:
    return hasattr(type(value), "__get__") and not isinstance(value, MemberDescriptorType)


def _has_post_init(cls: type) -> bool:
    found = getattr(cls, "__post_init__", None)
    return found is not None and not found.__module__.startswith("lexigram.contracts.")


def _is_generated(value: object) -> bool:
    """Whether `@dataclass` made this function; it compiles its methods from strings."""
    function = getattr(value, "__wrapped__", value)
    return isinstance(function, FunctionType) and function.__code__.co_filename == "<string>"


def _is_generated_by(base: type, name: str) -> bool:
    """Whether `@dataclass` put this method into this class."""
    own: frozenset[str] = base.__dict__.get("__message_methods__", frozenset())
    return "__dataclass_params__" in base.__dict__ and name not in own and _is_generated(base.__dict__[name])


def _drop_generated_methods(cls: type) -> None:
    """Let our own constructor, comparison and immutability serve, also where a dataclass mixin comes first."""
    for name in _GENERATED:
        if name in cls.__dict__ and _is_generated_by(cls, name):
            delattr(cls, name)
        first = next(base for base in cls.__mro__ if name in base.__dict__)
        if _is_generated_by(first, name):
            setattr(cls, name, getattr(_root(cls), name))


def _root(cls: Any) -> Any:
    return next(base for base in cls.__mro__ if "__metadata_fields__" in base.__dict__)


def _init_with_variables(cls: Any, own: list[dc.Field[Any]], variables: list[dc.Field[Any]]) -> Any:
    """Return an `__init__` that takes `InitVar` arguments as well and hands them to `__post_init__`."""
    accepted = cls.__dataclass_fields__.values()
    taken = {f.name for f in (*own, *variables)}
    order = [f.name for f in accepted if f.name in taken and f.init and not f.kw_only]
    native = _core.EventBase if issubclass(cls, _core.EventBase) else _core.MessageBase

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(order):
            raise TypeError(f"{cls.__name__}() takes at most {len(order)} positional arguments, {len(args)} given")
        for name, value in zip(order, args, strict=False):
            if name in kwargs:
                raise TypeError(f"{cls.__name__}() got multiple values for argument {name!r}")
            kwargs[name] = value
        values = []
        for variable in variables:
            if variable.name in kwargs:
                values.append(kwargs.pop(variable.name))
            elif variable.default_factory is not dc.MISSING:
                values.append(variable.default_factory())
            elif variable.default is not dc.MISSING:
                values.append(variable.default)
            else:
                raise TypeError(f"{cls.__name__}() missing required keyword argument: {variable.name!r}")
        native.__init__(self, **kwargs)
        if hasattr(self, "__post_init__"):
            self.__post_init__(*values)

    return __init__


class _Factory:
    """Stands for a default that is made per instance, as in the signatures of dataclasses."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


class SignatureOfFields:
    """The `__signature__` of a message class, from its fields; none where the class has its own `__init__`."""

    def __get__(self, instance: Any, owner: Any) -> inspect.Signature:
        if any("__init__" in base.__dict__.get("__message_methods__", ()) for base in owner.__mro__):
            raise AttributeError("__signature__")
        return inspect.Signature(list(self._parameters(owner)))

    def _parameters(self, owner: Any) -> Iterator[inspect.Parameter]:
        fields = {**owner.__dataclass_fields__, **_hidden_fields(owner), **owner.__dataclass_fields__}
        every = [f for f in fields.values() if _kind(f) != "_FIELD_CLASSVAR" and f.init]
        own = {f.name for f in every} - set(metadata_names(owner))
        every.sort(key=lambda f: (f.kw_only, f.name not in own))
        for field in every:
            kind = inspect.Parameter.KEYWORD_ONLY if field.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
            default = field.default
            if field.default_factory is not dc.MISSING:
                default = _FACTORY
            yield inspect.Parameter(
                field.name,
                kind,
                default=inspect.Parameter.empty if default is dc.MISSING else default,
                annotation=field.type,
            )
        if owner.__dict__.get("__accepts_extra__"):
            yield inspect.Parameter("values", inspect.Parameter.VAR_KEYWORD, annotation=Any)


_core.install_finalizer(compile_class)
