"""Values that the codec's core does not take apart itself. Called by the core only.

Each is written as the name of its type and a simpler value.
"""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict, deque
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from lexigram.events.messages.registry import EventTypeRegistry, default_registry, is_value_class
from lexigram.events.messages.shapes import CONTAINERS, SCALARS

EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[InvalidOperation])
"""Makes decimals of their text without rounding."""

_BASES: tuple[type, ...] = (int, float, str, bytes, Decimal, UUID)


def find_class(registry: EventTypeRegistry, name: str) -> type | None:
    """Return the class of stored values with this name: registered, or plain data of a package that has events."""
    found = registry.resolve_value(name) or default_registry.resolve_value(name)
    return found if found is not None or "." not in name else registry.resolve(name)


def dismantle(value: Any, registry: EventTypeRegistry) -> tuple[str, Any]:
    """Return a type name and a simpler value from which `restore` makes an equal one.

    Raises:
        TypeError: There is no way.
    """
    cls = type(value)
    if cls is OrderedDict:
        return "ordereddict", [list(pair) for pair in value.items()]
    if cls is deque:
        return "deque", [value.maxlen, list(value)]
    for base in _BASES:
        if issubclass(cls, base) and not getattr(value, "__dict__", None):
            plain = UUID(int=value.int) if base is UUID else base(value)
            return registry.type_name(cls), plain
    raise TypeError(
        f"{cls.__module__}.{cls.__qualname__} cannot be stored; "
        "use a dataclass, pydantic model, enum, named tuple or built-in type"
    )


def restore(name: str, data: Any, registry: EventTypeRegistry) -> Any:
    """Return the value that `dismantle` took apart.

    Raises:
        ValueError: The type is not known here, or the data does not fit it.
    """
    if name == "ordereddict" and isinstance(data, list) and all(isinstance(p, list) and len(p) == 2 for p in data):
        return OrderedDict((key, value) for key, value in data)
    if name == "deque" and isinstance(data, list) and len(data) == 2 and isinstance(data[1], list):
        maxlen, items = data
        if maxlen is None or (type(maxlen) is int and maxlen >= 0):
            return deque(items, maxlen)
    cls = find_class(registry, name)
    if cls is None:
        raise ValueError(f"the type {name[:100]!r} is not known; import the module that defines it, or register it")
    for base in _BASES:
        if issubclass(cls, base) and type(data) is base:
            if isinstance(data, UUID):
                made = object.__new__(cls)
                object.__setattr__(made, "int", data.int)
                object.__setattr__(made, "is_safe", data.is_safe)
                return made
            make: Any = base.__new__
            return make(cls, data)
    raise ValueError(f"{cls.__qualname__} cannot be restored from this data")


def dump_foreign(annotation: Any, value: Any) -> tuple[Any] | None:
    """Return pydantic's JSON form of a value in a tuple, None where the value is of a type that the core knows.

    Raises:
        ValueError: Pydantic does not give the same value back (a masked secret, for example).
    """
    cls = type(value)
    if value is None or cls in SCALARS or cls in CONTAINERS or is_value_class(cls):
        return None
    adapter = foreign_adapter(annotation)
    if adapter is None:
        return None
    data = adapter.dump_python(value, mode="json", warnings="error")
    back = adapter.validate_python(data)
    if type(back) is not cls or back != value:
        raise ValueError(f"{cls.__qualname__} cannot be stored: pydantic does not give the same value back")
    return (data,)


def load_foreign(annotation: Any, data: Any) -> Any:
    """Return the value of pydantic's JSON form."""
    adapter = foreign_adapter(annotation)
    if adapter is None:
        raise ValueError(f"{annotation!r} is not known to pydantic")
    return adapter.validate_python(data)


@functools.cache
def foreign_adapter(annotation: Any) -> Any:
    """Return pydantic's adapter for a type that is not ours to know, None where pydantic does not know it either."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None


def finish_model(cls: Any, values: dict[str, Any], rest: dict[str, Any] | None) -> Any:
    """Return a pydantic model with these field values, exactly as it was: no validator runs.

    Args:
        cls: The model class.
        values: All fields.
        rest: `$extra`, `$private` and `$unset` of the stored form, and names the class does not know.
    """
    rest = dict(rest or {})
    extra, private, unset = rest.pop("$extra", None), rest.pop("$private", None), rest.pop("$unset", ())
    if cls.model_config.get("extra") == "allow":
        extra = {**(extra or {}), **rest}
    else:
        for name in rest:
            drop_field(cls, name)
    model = object.__new__(cls)
    object.__setattr__(model, "__dict__", values)
    object.__setattr__(model, "__pydantic_fields_set__", {*values, *(extra or ())} - set(unset))
    object.__setattr__(model, "__pydantic_extra__", extra)
    object.__setattr__(model, "__pydantic_private__", _private(cls, private))
    return model


def _private(cls: Any, private: dict[str, Any] | None) -> dict[str, Any] | None:
    from pydantic_core import PydanticUndefined

    if not cls.__private_attributes__:
        return None
    defaults = {name: attribute.get_default() for name, attribute in cls.__private_attributes__.items()}
    return {**{n: v for n, v in defaults.items() if v is not PydanticUndefined}, **(private or {})}


def drop_field(cls: type, name: str) -> None:
    """Warn that a stored field has no place in its class any more."""
    warnings.warn(
        f"stored field {name!r} has no place in {cls.__qualname__} and was left out", UserWarning, stacklevel=2
    )
