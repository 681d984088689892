"""The base of every configuration class: spellings, `${VAR}` substitution, strict values with one clear error.

Source: spec/package-page.md (flat and nested spellings), design/semantics.md section 9.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Union, cast, get_args, get_origin

from lexigram.config.base import BaseConfig
from lexigram.events.config.values import converted, substituted
from lexigram.events.exceptions import EventValidationError
from lexigram.logging import get_logger
from lexigram.serialization.domain import json_serialize
from lexigram.validation import SecretStr

__all__ = ["ConfigSection", "address_aliases", "canonical", "section", "setting"]

T = TypeVar("T")
S = TypeVar("S", bound="ConfigSection")
_ADDRESS_NAMES = ("connection_string", "dsn", "uri", "url")
_ALLOW_UNKNOWN = "LEX_CONFIG_ALLOW_UNKNOWN"  # the framework's own switch


def setting(default: Any, **limits: Any) -> Any:
    """Declare a field with limits: `ge`, `gt`, `le` for numbers; `choices` (in any case) or a `pattern` for texts."""
    return dataclasses.field(default=default, metadata={"limits": limits})


def address_aliases(field_name: str) -> dict[str, str]:
    """Return the aliases of an address field: all its usual names."""
    return {name: field_name for name in _ADDRESS_NAMES if name != field_name}


def section(cls: type[S]) -> type[S]:
    """Make `cls` a configuration dataclass whose other spellings the framework's strict key check knows too."""
    decorated = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    for alias in {name.partition(".")[0] for name in cls.ALIASES} - set(decorated.__dataclass_fields__):
        # An InitVar is no field for dataclasses.fields() and asdict(), so it is neither set nor shown.
        pseudo: Any = dataclasses.field(default=None)
        pseudo.name, pseudo.type = alias, Any
        pseudo._field_type = _INIT_VAR
        decorated.__dataclass_fields__[alias] = pseudo
    return decorated


@dataclasses.dataclass
class _Probe:
    marker: dataclasses.InitVar[Any] = None


_INIT_VAR: Any = _Probe.__dataclass_fields__["marker"]._field_type  # type: ignore[attr-defined]


class ConfigSection(BaseConfig):
    """A part of the configuration; keyword arguments may use any of its spellings.

    Raises:
        EventValidationError: LEX_ERR_EVT_024. A key is unknown or missing, or a value does not fit.
    """

    __slots__ = ("_is_built",)  # beside __dict__, which the framework takes for the fields

    #: Other spellings: alias -> field. "event_store.backend" is a key inside a mapping, a target may be dotted too.
    ALIASES: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **values: Any) -> None:
        root = self.config_section or type(self).__name__
        clean = _coerced(type(self), canonical(type(self), values, root), root)
        super().__init__(**clean)
        for alias in set(self.__dataclass_fields__) - {field.name for field in dataclasses.fields(self)}:
            self.__dict__.pop(alias, None)
        self._is_built = True

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field under any of its spellings, checked as at construction."""
        if name.startswith("_") or not hasattr(self, "_is_built"):
            object.__setattr__(self, name, value)
            return
        root = self.config_section or type(self).__name__
        target = _target(type(self), name)
        if target is None:
            _report_unknown([_with_hint(type(self), root, name)])
            return
        field_name, _, rest = target.partition(".")
        part = getattr(self, field_name) if rest else None
        if part is not None:
            setattr(part, rest, value)
            return
        given = canonical(type(self), {name: value}, root)[field_name]
        field = next(f for f in dataclasses.fields(self) if f.name == field_name)
        checked = _field_value(type(self), field, given, root)
        for _, validator in self._field_validators.get(field_name, ()):
            checked = validator(type(self), checked)
        object.__setattr__(self, field_name, checked)

    def __eq__(self, other: object) -> bool:
        # The framework's own comparison looks at its base class's fields only, of which there are none.
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, f.name) == getattr(other, f.name) for f in dataclasses.fields(self))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return f"{type(self).__name__}({shown})"

    __str__ = __repr__

    def model_dump(
        self, *, mode: str = "python", exclude: set[str] | None = None, include: set[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the fields as a mapping; `mode="json"` gives plain JSON values with secrets masked."""
        data = super().model_dump(mode="python", exclude=exclude, include=include, **kwargs)
        # The framework's JSON mode would unpack a secret into its value.
        return cast("dict[str, Any]", json_serialize(_masked(data))) if mode == "json" else data

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            target = None if name.startswith("_") else _target(type(self), name)
            if target is None or target == name:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value: Any = self
            for part in target.split("."):
                value = getattr(value, part)
            return value


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(part) for key, part in value.items()}
    return str(value) if isinstance(value, SecretStr) else value


def canonical(cls: type[ConfigSection], values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return `values` under the names of the fields of `cls`, sections included.

    Args:
        cls: The section the values are for.
        values: Any mix of spellings.
        path: Where the section is, for messages.

    Raises:
        EventValidationError: A key is unknown, or two spellings of one field disagree.
    """
    found: dict[str, Any] = {}
    unknown: list[str] = []
    for key, value in values.items():
        _place(cls, str(key), value, path, found, unknown)
    if unknown:
        _report_unknown(unknown)
    return found


def _place(
    cls: type[ConfigSection], key: str, value: Any, path: str, found: dict[str, Any], unknown: list[str]
) -> None:
    """Put one key of the input where it belongs in `found`."""
    target = _target(cls, key)
    inner = {alias.partition(".")[2] for alias in cls.ALIASES if alias.startswith(f"{key}.")}
    if target is not None:
        if inner and isinstance(value, Mapping):  # what belongs elsewhere, such as event_bus.redis
            for sub in inner.intersection(value):
                _place(cls, cls.ALIASES[f"{key}.{sub}"], value[sub], path, found, unknown)
            value = {sub: part for sub, part in value.items() if sub not in inner}
        name, _, rest = target.partition(".")
        nested = _section_type(cls, name)
        if rest:
            value = {rest: value}
        if nested is not None and isinstance(value, Mapping):
            value = canonical(nested, value, f"{path}.{name}")
        found[name] = _merged(found[name], value, f"{path}.{name}") if name in found else value
    elif inner and isinstance(value, Mapping):
        for sub, subvalue in value.items():
            dotted = f"{key}.{sub}"
            if dotted in cls.ALIASES:
                _place(cls, cls.ALIASES[dotted], subvalue, path, found, unknown)
            else:
                unknown.append(_with_hint(cls, path, dotted))
    else:
        unknown.append(_with_hint(cls, path, key))


def _target(cls: type[ConfigSection], key: str) -> str | None:
    """Return the (dotted) field that `key` means, or None: a field, an alias, or `<section>_<key of the section>`."""
    names = {field.name for field in dataclasses.fields(cls)}
    if key in names:
        return key
    if key in cls.ALIASES:
        return cls.ALIASES[key]
    for prefix in sorted({*names, *(a for a in cls.ALIASES if "." not in a)}, key=len, reverse=True):
        rest = key.removeprefix(f"{prefix}_")
        name = cls.ALIASES.get(prefix, prefix)
        nested = None if rest == key else _section_type(cls, name)
        if nested is not None and _target(nested, rest) is not None:
            return f"{name}.{rest}"
    return None


def _section_type(cls: type[ConfigSection], name: str) -> type[ConfigSection] | None:
    """Return the section class of a field, or None for a plain field."""
    hint = _plain(_hints(cls).get(name))
    return hint if isinstance(hint, type) and issubclass(hint, ConfigSection) else None


def _hints(cls: type[ConfigSection]) -> dict[str, Any]:
    return cls._cached_type_hints or {}


def _plain(hint: Any) -> Any:
    """Return the type of an optional field without its None."""
    if get_origin(hint) in (Union, UnionType):
        rest = [arg for arg in get_args(hint) if arg is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _merged(old: Any, new: Any, path: str) -> Any:
    """Join two spellings of one field; they may add to each other but not disagree."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{k: _merged(old[k], v, f"{path}.{k}") if k in old else v for k, v in new.items()}}
    if type(old) is not type(new) or old != new:
        raise EventValidationError(f"{path} is given twice, under two spellings that disagree; keep one", field=path)
    return new


def _with_hint(cls: type[ConfigSection], path: str, key: str) -> str:
    known = [field.name for field in dataclasses.fields(cls)] + list(cls.ALIASES)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"{path}.{key}" + (f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(sorted(known))})")


def _report_unknown(unknown: list[str]) -> None:
    """Raise for unknown keys, or only warn where the framework's own switch allows them."""
    if os.environ.get(_ALLOW_UNKNOWN, "").lower() in {"1", "true", "yes"}:
        get_logger(__name__).warning("config.unknown_keys_allowed", section="events", keys=", ".join(unknown))
        return
    plural = "keys" if len(unknown) > 1 else "key"
    raise EventValidationError(
        f"unknown configuration {plural}: {', '.join(unknown)}. Set {_ALLOW_UNKNOWN}=true to ignore unknown keys.",
        field=unknown[0].split(" ", 1)[0],
    )


def _coerced(cls: type[ConfigSection], values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return `values` converted to the types of the fields of `cls`, or raise naming the field."""
    clean: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name not in values:
            if field.default is field.default_factory is dataclasses.MISSING:
                raise EventValidationError(f"{path}.{field.name} is required", field=f"{path}.{field.name}")
            continue
        value = values[field.name]
        if value is None and not _may_be_none(cls, field.name) and _section_type(cls, field.name) is not None:
            continue  # an empty section in YAML
        clean[field.name] = _field_value(cls, field, value, path)
    return clean


def _may_be_none(cls: type[ConfigSection], name: str) -> bool:
    hint = _hints(cls).get(name, Any)
    return _plain(hint) is not hint


def _field_value(cls: type[ConfigSection], field: dataclasses.Field[Any], value: Any, path: str) -> Any:
    """Return a value converted to the type of its field, or raise naming the field."""
    where = f"{path}.{field.name}"
    if isinstance(value, str):
        value = substituted(value, where)
    if value is None and _may_be_none(cls, field.name):
        return None
    return _converted(value, _plain(_hints(cls).get(field.name, Any)), where, field.metadata.get("limits", {}))


def _converted(value: Any, hint: Any, where: str, limits: Mapping[str, Any]) -> Any:
    """Return `value` as a section, or as whatever plain type the field has."""
    if not (isinstance(hint, type) and issubclass(hint, ConfigSection)):
        return converted(value, hint, where, limits)
    if isinstance(value, hint):
        return value
    if isinstance(value, Mapping):
        return hint(**_coerced(hint, canonical(hint, value, where), where))
    raise EventValidationError(
        f"{where}: expected a mapping or {hint.__name__}, got {type(value).__name__}", field=where
    )
