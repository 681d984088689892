"""Finds out what a handler class handles: from its type argument, else from the annotation of `handle`."""

from __future__ import annotations

import inspect
import sys
from types import UnionType
from typing import Any, ForwardRef, TypeVar, Union, get_args, get_origin, get_type_hints

from lexigram.contracts.domain.events import DomainEvent
from lexigram.contracts.events.messages import Command, Query
from lexigram.events.constants import HandlerType
from lexigram.events.exceptions import EventValidationError
from lexigram.events.handlers.base import (
    CommandHandlerProtocol,
    EventHandlerProtocol,
    MultiEventHandlerProtocol,
    QueryHandlerProtocol,
)

_BASES: tuple[tuple[type, HandlerType], ...] = (
    (CommandHandlerProtocol, HandlerType.COMMAND),
    (QueryHandlerProtocol, HandlerType.QUERY),
    (EventHandlerProtocol, HandlerType.EVENT),
    (MultiEventHandlerProtocol, HandlerType.EVENT),
)
_MESSAGES: tuple[tuple[type, HandlerType], ...] = (
    (Command, HandlerType.COMMAND),
    (Query, HandlerType.QUERY),
    (DomainEvent, HandlerType.EVENT),
)


def is_handler_class(candidate: Any) -> bool:
    """Return whether `candidate` is a concrete subclass of one of the handler base classes."""
    return (
        inspect.isclass(candidate)
        and not inspect.isabstract(candidate)
        and issubclass(candidate, tuple(base for base, _ in _BASES))
    )


def routes_of(handler: type) -> tuple[HandlerType, list[type]]:
    """Return what kind of handler a class is, and the message classes it handles.

    Raises:
        EventValidationError: Neither a type argument nor the annotation of `handle` names a message class.
    """
    base, kind = next(((base, kind) for base, kind in _BASES if issubclass(handler, base)), (None, None))
    if base is MultiEventHandlerProtocol or (base is None and callable(getattr(handler, "handles", None))):
        return HandlerType.EVENT, _declared(handler)
    messages = _classes(_type_argument(handler, base), handler) if base is not None else []
    messages = messages or _annotated(handler)
    if messages and kind is None:
        kind = next((kind for known, kind in _MESSAGES if issubclass(messages[0], known)), None)
    if not messages or kind is None:
        raise EventValidationError(
            f"{handler.__module__}.{handler.__qualname__} does not say what it handles; annotate the message of "
            "handle(self, message: MyMessage) or inherit from CommandHandlerProtocol[MyCommand, MyResult]",
            field="handler",
        )
    return kind, messages


def _declared(handler: Any) -> list[type]:
    """Ask a multi-event handler class for its event classes, without building it."""
    try:
        bound = isinstance(inspect.getattr_static(handler, "handles"), (staticmethod, classmethod))
        return list(handler.handles() if bound else handler.handles(object.__new__(handler)))
    except Exception as error:
        raise EventValidationError(
            f"{handler.__qualname__}.handles() cannot be asked before the handler is built ({error!r}); "
            "let it return a constant list",
            field="handler",
        ) from error


def _type_argument(handler: type, base: type) -> Any:
    """Return the first type argument that `handler` or a class between gives to `base`; None if nobody does."""
    for generic in handler.__dict__.get("__orig_bases__", handler.__bases__):
        origin, arguments = get_origin(generic) or generic, get_args(generic)
        if origin is base:
            found = arguments[0] if arguments else None
        elif inspect.isclass(origin) and issubclass(origin, base):
            found = _type_argument(origin, base)
            parameters = getattr(origin, "__parameters__", ())
            if isinstance(found, TypeVar) and arguments and found in parameters:
                found = arguments[parameters.index(found)]
        else:
            continue
        if found is not None:
            return found
    return None


def _annotated(handler: type) -> list[type]:
    """Return the classes in the annotation of the parameter of `handle`."""
    method = getattr(handler, "handle", None)
    if not inspect.isroutine(method):
        return []
    names = [name for name in inspect.signature(method).parameters if name not in ("self", "cls")]
    try:
        hints = get_type_hints(method)
    except NameError:  # another annotation exists for type checkers only
        hints = dict(getattr(method, "__annotations__", {}))
    return _classes(hints.get(names[0]), handler) if names else []


def _classes(annotation: Any, handler: type) -> list[type]:
    """Return the message classes an annotation stands for: itself, the parts of a union, or what a name refers to."""
    if isinstance(annotation, (str, ForwardRef)):
        name = annotation if isinstance(annotation, str) else annotation.__forward_arg__
        annotation = vars(sys.modules[handler.__module__]).get(name)
    if get_origin(annotation) in (Union, UnionType):
        return [found for part in get_args(annotation) for found in _classes(part, handler)]
    annotation = get_origin(annotation) or annotation
    return [annotation] if inspect.isclass(annotation) and annotation not in (object, type(None)) else []
