"""Validates messages before they are handled. Source: spec/reference-surface.md."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages._pydantic import CONSTRAINTS
from lexigram.events.messages.callables import check_runs
from lexigram.events.middleware.base import AbstractMiddleware, NextHandler

Validator = Callable[[Any], Any]
"""Raises ValueError or TypeError, or returns False, for a message that is not acceptable; may be asynchronous."""


class ValidationMiddleware(AbstractMiddleware[Any, Any]):
    """Refuses messages that a validator, their pydantic model or the `Field(...)` constraints do not accept.

    A message of ours may have a method `validate()` without arguments, asynchronous or not: it is a validator too.

    Args:
        validate_pydantic: Validate messages that are pydantic models again (fields may have been changed since).
        strict_mode: Let pydantic refuse values that it would otherwise convert.
    """

    def __init__(self, validate_pydantic: bool = True, strict_mode: bool = False) -> None:
        self._validate_pydantic = validate_pydantic
        self._strict = strict_mode
        self._validators: list[tuple[type, Validator]] = []
        self._by_type: dict[type, tuple[Validator, ...]] = {}

    async def __call__(self, message: Any, next_handler: NextHandler) -> Any:
        """Hand the message on if it is valid.

        Raises:
            EventValidationError: It is not; the handler was not called (LEX_ERR_EVT_024).
        """
        validators = self._by_type.get(type(message))
        if validators is None:
            validators = self._collect(type(message))
        for validator in validators:
            await ask(validator, message)
        return await next_handler(message)

    def add_validator(self, message_type: type | None = None) -> Callable[[Validator], Validator]:
        """Decorator: register a validator for `message_type` and its subclasses, or for every message."""

        def decorate(validator: Validator) -> Validator:
            self.register_validator(message_type or object, validator)
            return validator

        return decorate

    def register_validator(self, message_type: type, validator: Validator) -> None:
        """Call `validator(message)` for messages of `message_type` and its subclasses, in order of registration."""
        if not callable(validator):
            raise EventValidationError(f"{validator!r} is not callable", field="validator")
        check_runs(validator, getattr(validator, "__qualname__", repr(validator)), "validator")
        self._validators.append((message_type, validator))
        self._by_type.clear()

    def _collect(self, message_type: type) -> tuple[Validator, ...]:
        """Return what applies to a type, once."""
        found = [validator for known, validator in self._validators if issubclass(message_type, known)]
        pydantic = sys.modules.get("pydantic")  # a pydantic message cannot exist before somebody imported pydantic
        if self._validate_pydantic and pydantic is not None and issubclass(message_type, pydantic.BaseModel):
            found.insert(0, self._validate_model)
        elif _validates_itself(message_type):
            found.insert(0, _own_validate)
        if constrained := _constrained_fields(message_type):
            found.insert(0, partial(_check_constraints, constrained))
        self._by_type[message_type] = tuple(found)
        return self._by_type[message_type]

    def _validate_model(self, message: Any) -> None:
        type(message).model_validate(dict(message), strict=self._strict)


async def ask(validator: Validator, message: Any) -> None:
    """Run a validator, asynchronous or not; every way of saying no becomes an EventValidationError without values."""
    name = type(message).__name__
    try:
        verdict = validator(message)
        if inspect.isawaitable(verdict):
            verdict = await verdict
    except EventValidationError:
        raise
    except (ValueError, TypeError) as error:
        pydantic = sys.modules.get("pydantic")
        if pydantic is None or not isinstance(error, pydantic.ValidationError):
            raise EventValidationError(f"{name} is not valid: {error}") from error
        listed = error.errors(include_input=False, include_url=False, include_context=False)
        fields = [".".join(map(str, problem["loc"])) for problem in listed]
        told = "; ".join(f"{field}: {problem['msg']}" for field, problem in zip(fields, listed, strict=True))
        raise EventValidationError(f"{name} is not valid: {told}", field=fields[0] or None) from None
    if verdict is False:
        raise EventValidationError(f"{name} was refused by {getattr(validator, '__name__', validator)}")


def _own_validate(message: Any) -> Any:
    return message.validate()


_own_validate.__name__ = "its validate()"


def _validates_itself(message_type: type) -> bool:
    """Whether instances have a method `validate` that needs no arguments."""
    method = inspect.getattr_static(message_type, "validate", None)
    if not inspect.isfunction(method):
        return False
    given = list(inspect.signature(method).parameters.values())[1:]
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in given)


_CHECKS: Final[dict[str, tuple[str, Callable[[Any, Any], Any]]]] = {
    "gt": ("be greater than", operator.gt),
    "ge": ("be at least", operator.ge),
    "lt": ("be less than", operator.lt),
    "le": ("be at most", operator.le),
    "multiple_of": ("be a multiple of", lambda value, unit: value % unit == 0),
    "min_length": ("have a length of at least", lambda value, length: len(value) >= length),
    "max_length": ("have a length of at most", lambda value, length: len(value) <= length),
    "pattern": ("match", lambda value, pattern: re.search(pattern, value)),
}


def _constrained_fields(message_type: type) -> dict[str, Mapping[str, Any]]:
    """Return the constraints of the fields of a message class, by field."""
    fields = dataclasses.fields(message_type) if dataclasses.is_dataclass(message_type) else ()
    found = {f.name: {name: f.metadata[name] for name in CONSTRAINTS if name in f.metadata} for f in fields}
    return {name: constraints for name, constraints in found.items() if constraints}


def _check_constraints(fields: Mapping[str, Mapping[str, Any]], message: Any) -> None:
    for field, constraints in fields.items():
        value = getattr(message, field)
        for name, limit in constraints.items():
            words, holds = _CHECKS[name]
            if value is not None and not holds(value, limit):
                raise EventValidationError(
                    f"{type(message).__name__} is not valid: {field} must {words} {limit}", field=field
                )
