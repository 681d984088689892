"""Names of message and value classes: how stored data finds its class without ever importing anything.

A class is stored under its alias if it has one (`@event_type("order.item_added")`), else under its full name
(`module.Class`). Source: spec/reference-surface.md.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeVar

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.contracts.events.messages import Message
from lexigram.events import _core
from lexigram.events.exceptions import EventValidationError

_log = logging.getLogger(__name__)

C = TypeVar("C", bound=type)

MAX_NAME_LENGTH = 255
"""Longest stored type name in characters."""


def module_name(cls: type) -> str:
    """Return the module a class is stored under: the script's own name where the class lives in `__main__`."""
    return cls.__module__ if cls.__module__ != "__main__" else _script_name()


def _script_name() -> str:
    """Return the name that `__main__` would have as a module, where Python knows it."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name)
    path = getattr(main, "__file__", None)
    return PurePath(path).stem if path else "__main__"


def _loaded(module: str) -> Any:
    """Return the loaded module under whose name classes are stored, or None."""
    return sys.modules.get(module) or (sys.modules.get("__main__") if module == _script_name() else None)


def _may_name_class(name: str) -> bool:
    """Whether a class can have this name, short or full; `order.placed` is none where no module `order` is loaded."""
    return name.isidentifier() or _loaded(name.partition(".")[0]) is not None


def full_name(cls: type) -> str:
    """Return `module.Class`, with the script's name instead of `__main__` where Python knows it."""
    return f"{module_name(cls)}.{cls.__qualname__}"


def is_value_class(cls: object) -> bool:
    """Whether instances are plain data that the codec can rebuild: enum, dataclass, named tuple, pydantic model."""
    if not isinstance(cls, type):
        return False
    if issubclass(cls, Enum) or dataclasses.is_dataclass(cls):
        return True
    return hasattr(cls, "__pydantic_fields__") or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def _subclasses(cls: type) -> Iterator[type]:
    """Yield `cls` and every living subclass, each once."""
    seen: set[type] = set()
    pending = [cls]
    while pending:
        current = pending.pop()
        if current not in seen:
            seen.add(current)
            yield current
            pending.extend(type.__subclasses__(current))


class EventTypeRegistry:
    """Maps stored names to classes and back.

    Classes are held weakly, so a class that goes away leaves its name free. Defining a class again under the same
    full name replaces the earlier one. Safe to use from several threads: every change is one dictionary operation.
    """

    def __init__(self) -> None:
        self._names: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
        self._short: dict[str, dict[str, None]] = {}
        self._aliases: weakref.WeakKeyDictionary[type, tuple[str, ...]] = weakref.WeakKeyDictionary()
        self._stored: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
        self._mentioned: set[str] = set()

    def register(self, cls: type, alias: str | None = None, *former_names: str) -> None:
        """Make a class known under its full name, and under an alias that then becomes its stored name.

        Args:
            cls: The class; registering it again is harmless.
            alias: Stable name, 1 to 255 characters without NUL.
            former_names: Further names under which older data may be stored.

        Raises:
            EventValidationError: (LEX_ERR_EVT_024) not a class, a bad name, or a name that another class has.
        """
        if not isinstance(cls, type):
            raise EventValidationError(f"cls must be a class, not {cls!r}", field="cls")
        names = tuple(name for name in (alias, *former_names) if name is not None)
        for name in names:
            self._check_name(name, cls)
        full = full_name(cls)
        self._names[full] = cls
        self._short.setdefault(cls.__name__, {})[full] = None
        if names:
            for name in names:
                self._names[name] = cls
            self._aliases[cls] = tuple(dict.fromkeys((*names, *self._aliases.get(cls, ()))))
            self._stored.pop(cls, None)
        if alias is not None:
            self._stored[cls] = alias
        else:
            self._stored.setdefault(cls, full)
        _core.registry_changed()

    def knows(self, name: str) -> bool:
        """Whether a class has exactly this stored name."""
        return self._names.get(name) is not None

    def _check_name(self, name: object, cls: type) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH or "\0" in name:
            raise EventValidationError(
                f"alias must be a string of 1 to {MAX_NAME_LENGTH} characters without NUL, not {name!r}", field="alias"
            )
        other = self._names.get(name)
        if other is not None and other is not cls and full_name(other) != full_name(cls):
            raise EventValidationError(
                f"alias {name!r} already belongs to {full_name(other)}; choose another one", field="alias"
            )

    def type_name(self, cls: type) -> str:
        """Return the name a class is stored under: its alias, else its full name. Registers an unknown class."""
        stored = self._stored.get(cls)
        if stored is None:
            self.register(cls)
            stored = self._stored[cls]
        return stored

    def names(self, cls: type) -> frozenset[str]:
        """Return every name under which instances of exactly this class may be stored."""
        return frozenset((full_name(cls), *self._aliases.get(cls, ())))

    def resolve(self, type_name: str, event_type: str | None = None) -> type | None:
        """Return the event class stored under a name, or None if it is not known.

        A full name that no longer exists falls back to the only class with that alias or class name, with a
        `UserWarning` that recommends an alias. Never imports anything.

        Args:
            type_name: Stored name (full name or alias).
            event_type: Stored event type, the second thing to look for.
        """
        found = self._names.get(type_name)
        if found is not None:
            return found
        self._register_events()
        found = self._names.get(type_name)
        if found is not None:
            return found
        return self._by_short_name(type_name, event_type)

    def _register_events(self) -> None:
        """Register the event classes of the program that have not been used yet; the contract's do not enter by themselves."""
        for cls in _subclasses(ContractEvent):
            if cls not in self._stored:
                self.register(cls)

    def _by_short_name(self, type_name: str, event_type: str | None) -> type | None:
        for name in dict.fromkeys((event_type, type_name.rpartition(".")[2])):
            if not name:
                continue
            alias = self._names.get(name)
            candidates = [alias] if alias is not None else self._current(name)
            candidates = [cls for cls in candidates if issubclass(cls, ContractEvent)]
            if len(candidates) == 1:
                warnings.warn(
                    f"event type {type_name!r} is not known; taken to be {full_name(candidates[0])}. "
                    f"Give the class a stable name with @event_type(...)",
                    UserWarning,
                    stacklevel=2,
                )
                return candidates[0]
        return None

    def _current(self, short: str) -> list[type]:
        """Return the classes of this class name that are still current under their full name."""
        named = [(full, self._names.get(full)) for full in list(self._short.get(short, ()))]
        return [cls for full, cls in named if cls is not None and cls.__name__ == short and full_name(cls) == full]

    def resolve_value(self, name: str) -> type | None:
        """Return the class of a nested value, command or query, or None.

        Looks at registered classes, then at plain data classes of modules that are already loaded and belong to a
        package that defines events, then at all commands and queries. Never imports anything, and never returns a class
        that is not plain data.
        """
        found = self._names.get(name)
        if found is not None:
            return found
        value = self._plain_data(name)
        if value is not None:
            self.register(value)
            return self._names.get(name)
        for cls in _subclasses(Message):
            if cls not in self._stored:
                self.register(cls)
        found = self._names.get(name)
        return found if is_value_class(found) else None

    def _plain_data(self, name: str) -> type | None:
        if name.partition(".")[0] not in self._packages():
            return None
        module, _, qualname = name.rpartition(".")
        path = [qualname]
        while module and _loaded(module) is None:
            module, _, part = module.rpartition(".")
            path.insert(0, part)
        value: Any = _loaded(module) if module else None
        for part in path:
            value = getattr(value, "__dict__", {}).get(part)
        return value if is_value_class(value) and full_name(value) == name else None

    def _packages(self) -> set[str]:
        roots = {module_name(cls).partition(".")[0] for cls in list(self._stored) if issubclass(cls, ContractEvent)}
        return roots - {"lexigram", "builtins"}

    def select(self, types: type | str | Iterable[type | str]) -> frozenset[str]:
        """Return the stored names that a selection of types stands for.

        A class stands for itself and its subclasses; a string is a full name, an alias or a class name. A string that
        nothing is known about stands for itself, so that events of other programs can be selected.

        Raises:
            EventValidationError: (LEX_ERR_EVT_024) a class name that several classes have, or something else.
        """
        chosen: set[str] = set()
        for item in (types,) if isinstance(types, str | type) else types:
            if isinstance(item, type):
                for cls in _subclasses(item):
                    chosen.add(self.type_name(cls))
                    chosen |= self.names(cls)
            elif isinstance(item, str) and item:
                chosen |= self._select_name(item)
            else:
                raise EventValidationError(f"types must be classes or non-empty names, not {item!r}", field="types")
        return frozenset(chosen)

    def _select_name(self, name: str) -> frozenset[str]:
        if name not in self._names and not self._current(name) and _may_name_class(name):
            self._register_events()
        exact = self._names.get(name)
        if exact is not None:
            return self.names(exact)
        current = self._current(name)
        if len(current) > 1:
            listed = ", ".join(sorted(full_name(cls) for cls in current))
            raise EventValidationError(f"types: {name!r} is ambiguous, use a class or one of {listed}", field="types")
        if not current:
            self._mention(name)
        return self.names(current[0]) if current else frozenset((name,))

    def _mention(self, name: str) -> None:
        """Say once that a name looks like that of a class which the program does not have."""
        if name[:1].isupper() and name.isidentifier() and name not in self._mentioned and len(self._mentioned) < 1000:
            self._mentioned.add(name)
            _log.warning(
                "no event class named %r is known here: it selects only events that were given this name as event_type; "
                "import the module that defines the class, or give its full name",
                name,
            )


default_registry = EventTypeRegistry()
"""The registry that every event class enters when it is defined."""


def event_type(alias: str, *former_names: str, registry: EventTypeRegistry = default_registry) -> Callable[[C], C]:
    """Give a class a stable stored name, independent of where it lives: `@event_type("order.item_added")`.

    Args:
        alias: The stored name, 1 to 255 characters.
        former_names: Names under which older data of this class may be stored.
        registry: Where to register it.

    Raises:
        EventValidationError: (LEX_ERR_EVT_024) `@event_type` without a name, or a name that another class has.
    """
    if not isinstance(alias, str):
        raise EventValidationError(
            f'@event_type needs a name: @event_type("order.item_added"), got {alias!r}', field="alias"
        )

    def decorate(cls: C) -> C:
        registry.register(cls, alias, *former_names)
        return cls

    return decorate
