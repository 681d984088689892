"""What events, commands and queries have in common: typed, keyword-only, immutable, equal by value, copyable.

The state and the constructor are native (`_core.EventBase`, `_core.MessageBase`); this class adds what Python calls
rarely. Source: design of messages, semantics section 1.
"""

from __future__ import annotations

import copy
import dataclasses as dc
import reprlib
from typing import Any, Self, dataclass_transform

from lexigram.events import _core
from lexigram.events.messages._compile import EVENT_NAMES, MESSAGE_NAMES, SignatureOfFields, declare


def rebuild_message(cls: type[Any], fields: dict[str, Any], extra: dict[str, Any] | None) -> Any:
    """Return a message of `cls` from its pickled state; runs neither `__init__` nor `__post_init__`."""
    return _core.rebuild(cls, fields, extra)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dc.field, dc.Field))
class TypedMessage:
    """Base of all message classes; annotations of a subclass are its fields."""

    __slots__ = ()
    __signature__ = SignatureOfFields()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        declare(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        raise dc.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dc.FrozenInstanceError(f"cannot delete field {name!r}")

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return rebuild_message, (type(self), *_core.message_state(self))

    def __copy__(self) -> Self:
        return self._with()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        fields, extra = _core.message_state(self)
        new: Self = _core.rebuild(type(self), copy.deepcopy(fields, memo), copy.deepcopy(extra, memo))
        memo[id(self)] = new
        return new

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        fields, extra = _core.message_state(self)
        hidden = {f.name for f in self.__dataclass_fields__.values() if not f.repr}  # type: ignore[attr-defined]
        unsaid = {"schema_version": 1, "version": 0, "sequence_number": None}
        shown = {n: v for n, v in fields.items() if n not in hidden and not (n in unsaid and v == unsaid[n])}
        parts = [f"{name}={value!r}" for name, value in {**shown, **(extra or {})}.items()]
        return f"{type(self).__qualname__}({', '.join(parts)})"

    def _with(self, **changes: Any) -> Self:
        """Return a copy of the same class, every field kept, with some changed."""
        new: Self = _core.copy_message(self, changes)
        return new


# Keeps `@dataclass(slots=True)` on a message class from making slots for metadata: it skips what a base lists.
setattr(TypedMessage, "__slots__", (*EVENT_NAMES, *MESSAGE_NAMES))  # noqa: B010 - mypy knows it as empty
