"""Finds event classes in modules. Source: spec/reference-surface.md, `lexigram.events.handlers.discovery`."""

from __future__ import annotations

import inspect
from typing import Any

from lexigram.contracts.domain.events import DomainEvent
from lexigram.events.handlers._modules import import_modules


def discover_event_types(module_path: str, recursive: bool = True) -> dict[str, type]:
    """Import a module or package and return the event classes defined there, by class name.

    Two classes of one name are both returned: the second under its full name.
    """
    found: dict[str, type] = {}
    for module in import_modules(module_path, recursive):
        for candidate in list(vars(module).values()):
            defined_here = getattr(candidate, "__module__", None) == module.__name__
            if not inspect.isclass(candidate) or not defined_here or not issubclass(candidate, DomainEvent):
                continue
            if found.setdefault(candidate.__name__, candidate) is not candidate:
                found[f"{candidate.__module__}.{candidate.__qualname__}"] = candidate
    return found


def register_discovered_types(
    event_types: dict[str, type], serializer: Any | None = None, schema_registry: Any | None = None
) -> int:
    """Make event classes known to a message serializer and a schema registry; return how many.

    The codec needs none of this: it knows every event class from its definition.

    Args:
        serializer: Gets `register_event_type(cls)`.
        schema_registry: Gets `register_event_class(cls)`.
    """
    for event_type in event_types.values():
        if serializer is not None:
            serializer.register_event_type(event_type)
        if schema_registry is not None:
            schema_registry.register_event_class(event_type)
    return len(event_types)


def discover_and_register(
    module_paths: list[str],
    serializer: Any | None = None,
    schema_registry: Any | None = None,
    recursive: bool = True,
) -> dict[str, type]:
    """Discover the event classes of several modules, register them, and return them by name."""
    found: dict[str, type] = {}
    for module_path in module_paths:
        found.update(discover_event_types(module_path, recursive))
    register_discovered_types(found, serializer, schema_registry)
    return found
