"""Conversion of configuration values: strict, with one clear error that names field, value and what is accepted."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, get_args, get_origin

from lexigram.config.lib.merge import ENV_INTERPOLATION_RE, interpolate_string
from lexigram.events.exceptions import EventValidationError
from lexigram.validation import SecretStr
from lexigram.validation.engine.coercion import BOOL_FALSE, BOOL_TRUE

__all__ = ["converted", "substituted"]


def substituted(value: str, where: str) -> str:
    """Replace `${VAR}` and `${VAR:default}`."""
    for name, default in ENV_INTERPOLATION_RE.findall(value):
        if name not in os.environ and f"${{{name}:{default}}}" not in value:
            raise EventValidationError(
                f"{where} refers to the environment variable {name}, which is not set; "
                f"set it or give a default: ${{{name}:value}}",
                field=where,
            )
    return interpolate_string(value)


def converted(value: Any, hint: Any, where: str, limits: Mapping[str, Any]) -> Any:
    """Return `value` as an instance of `hint`, within `limits`.

    Raises:
        EventValidationError: LEX_ERR_EVT_024. It does not fit; a secret is never shown.
    """
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _one_of(hint, value, where)
    if get_origin(hint) is list:
        return _list(value, get_args(hint)[0], where)
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise _wrong(where, "a mapping", value)
        return {str(k): converted(v, get_args(hint)[1], f"{where}.{k}", {}) for k, v in value.items()}
    convert = _SCALARS.get(hint)
    return value if convert is None else _limited(convert(value, where), where, limits)


def _one_of(enum: type[Enum], value: Any, where: str) -> Enum:
    if isinstance(value, enum):
        return value
    for member in enum:
        if isinstance(value, str) and value.strip().lower() in (str(member.value).lower(), member.name.lower()):
            return member
    raise _wrong(where, "one of " + ", ".join(str(member.value) for member in enum), value)


def _list(value: Any, item: Any, where: str) -> list[Any]:
    if isinstance(value, str):  # an environment variable: a, b, c
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise _wrong(where, "a list", value)
    return [converted(part, item, f"{where}[{i}]", {}) for i, part in enumerate(value)]


def _bool(value: Any, where: str) -> bool:
    text = value.strip().lower() if isinstance(value, str) else value
    if isinstance(text, bool):
        return text
    if isinstance(text, str | int) and str(text) in BOOL_TRUE:
        return True
    if isinstance(text, str | int) and str(text) in BOOL_FALSE:
        return False
    raise _wrong(where, "true or false", value)


def _int(value: Any, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        if isinstance(value, str):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
    except ValueError:
        pass
    raise _wrong(where, "a whole number", value)


def _float(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(where, "a number", value)
    return number


def _str(value: Any, where: str) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong(where, "a text", value)
    return str(value)


def _secret(value: Any, where: str) -> SecretStr:
    if isinstance(value, SecretStr):
        return SecretStr(substituted(value.get_secret_value(), where))
    if not isinstance(value, str):
        raise EventValidationError(f"{where}: expected a text, got {type(value).__name__}", field=where)
    return SecretStr(value)


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    SecretStr: _secret,
}


def _limited(value: Any, where: str, limits: Mapping[str, Any]) -> Any:
    """Return `value` if it is within the limits; texts with choices come back as the choice is spelled."""
    if "choices" in limits:
        for choice in limits["choices"]:
            if str(value).strip().lower() == choice.lower():
                return choice
        raise _wrong(where, "one of " + ", ".join(limits["choices"]), value)
    if "pattern" in limits and re.fullmatch(limits["pattern"], value) is None:
        raise _wrong(where, f"a text that matches {limits['pattern']}", value)
    checks: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
        "ge": ("of at least", lambda a, b: a >= b),
        "gt": ("greater than", lambda a, b: a > b),
        "le": ("of at most", lambda a, b: a <= b),
    }
    for name, (words, holds) in checks.items():
        if name in limits and not holds(value, limits[name]):
            raise _wrong(where, f"a number {words} {limits[name]}", value)
    return value


def _wrong(where: str, expected: str, value: Any) -> EventValidationError:
    return EventValidationError(f"{where}: expected {expected}, got {value!r} ({type(value).__name__})", field=where)
