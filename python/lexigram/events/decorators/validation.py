"""Decorators that refuse messages before the handler runs. Source: spec/reference-surface.md."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sized
from dataclasses import fields, is_dataclass
from typing import Any, ParamSpec, get_type_hints

from lexigram.events.decorators._around import before
from lexigram.events.exceptions import EventValidationError
from lexigram.events.middleware.validation import ask

P = ParamSpec("P")


def validate(func: Callable[P, Any]) -> Callable[P, Any]:
    """Check the message against its own declaration: field values against annotations, then its `validate()`.

    Values are not converted: a field annotated `int` has to hold an int. A method `validate()` of the message may
    raise ValueError or return False. A wrong message raises EventValidationError and the handler is not called.
    """
    return before(func, _check_declared)


def validate_command(
    *,
    max_length: dict[str, int] | None = None,
    required_fields: list[str] | None = None,
    custom_validators: list[Callable[[Any], None]] | None = None,
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Check commands before the handler runs.

    Args:
        max_length: Longest length per field, of strings and collections; None values pass.
        required_fields: Fields that must be neither None nor empty.
        custom_validators: Called with the command; they raise ValueError for what they do not accept, or return False. One
            that waits needs a handler that is a coroutine function.
    """

    async def check(command: Any) -> None:
        for name in required_fields or ():
            value = getattr(command, name, None)
            if value is None or (isinstance(value, Sized) and len(value) == 0):
                raise EventValidationError(f"{_name(command)}.{name} is required", field=name)
        for name, limit in (max_length or {}).items():
            value = getattr(command, name, None)
            if isinstance(value, Sized) and len(value) > limit:
                raise EventValidationError(
                    f"{_name(command)}.{name} is longer than {limit} ({len(value)}); shorten it", field=name
                )
        for validator in custom_validators or ():
            await ask(validator, command)

    return lambda func: before(func, check)


def validate_query(
    *, max_results: int | None = None, allowed_sort_fields: list[str] | None = None
) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Check queries before the handler runs.

    Args:
        max_results: Largest `page_size` (or `limit`) of the query.
        allowed_sort_fields: What `sort_by` may name; None always passes.
    """

    async def check(query: Any) -> None:
        for name in ("page_size", "limit"):
            size = getattr(query, name, None)
            if max_results is not None and size is not None and not 1 <= size <= max_results:
                raise EventValidationError(
                    f"{_name(query)}.{name} must be from 1 to {max_results}, not {size}", field=name
                )
        sort_by = getattr(query, "sort_by", None)
        if allowed_sort_fields is not None and sort_by is not None and sort_by not in allowed_sort_fields:
            allowed = ", ".join(allowed_sort_fields)
            raise EventValidationError(f"{_name(query)}.sort_by must be one of {allowed}", field="sort_by")

    return lambda func: before(func, check)


def _name(message: Any) -> str:
    return type(message).__name__


async def _check_declared(message: Any) -> None:
    """Check every field that has an annotation, then the message's own `validate`."""
    from pydantic import ValidationError

    for name, adapter in _adapters(type(message)):  # type: ignore[arg-type]
        try:
            adapter.validate_python(getattr(message, name), strict=True)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
            path = ".".join(map(str, (name, *problem["loc"])))
            raise EventValidationError(f"{_name(message)}.{path}: {problem['msg']}", field=name) from None
    own = getattr(message, "validate", None)
    if callable(own) and not hasattr(type(message), "model_fields"):
        await ask(lambda _: own(), message)


@functools.lru_cache(maxsize=1024)
def _adapters(message_type: type) -> tuple[tuple[str, Any], ...]:
    """Return (field, pydantic adapter) for the fields whose annotation pydantic understands."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    names = [f.name for f in fields(message_type)] if is_dataclass(message_type) else []
    names = names or list(getattr(message_type, "model_fields", ()))
    try:
        hints = get_type_hints(message_type, include_extras=True)
    except NameError:  # annotations that exist for type checkers only
        return ()
    found: list[tuple[str, Any]] = []
    for name in names:
        if name not in hints:
            continue
        try:
            found.append((name, TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))))
        except PydanticUserError:  # models and dataclasses bring their own configuration
            found.append((name, TypeAdapter(hints[name])))
    return tuple(found)
