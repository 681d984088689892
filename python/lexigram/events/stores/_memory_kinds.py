"""Under which names the in-memory log keeps events, so that an `event_type` of their own selects them too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexigram.events.messages.shapes import record_for
from lexigram.events.messages.unknown import UnknownEvent

if TYPE_CHECKING:
    from lexigram.events.messages.registry import EventTypeRegistry
    from lexigram.events.stores.condition import ResolvedItem


class EventKinds:
    """Names the kinds of events of one log: the stored type name, followed by the event type of an event with its own.

    Args:
        registry: Knows the stored type name of each class.
    """

    def __init__(self, registry: EventTypeRegistry) -> None:
        self._registry = registry
        self._kinds: dict[str, frozenset[str]] = {}

    def clear(self) -> None:
        """Forget all kinds."""
        self._kinds.clear()

    def name(self, event: Any) -> str:
        """Return the kind of an event and remember which names select it."""
        cls, own = type(event), event.event_type
        stored = event.type_name if isinstance(event, UnknownEvent) else self._registry.type_name(cls)
        if own == cls.__name__ or own is None or stored.rpartition(".")[2] == own:
            return str(stored)
        kind = stored if own == _default(cls) else f"{stored}\0{own}"
        for selector in {stored, own}:
            self._kinds[selector] = self._kinds.get(selector, frozenset()) | {kind}
        return str(kind)

    def selected(self, names: frozenset[str]) -> list[str]:
        """Return the kinds that a selection of stored type names and event types stands for."""
        return list(names.union(*(self._kinds.get(name, ()) for name in names)) if self._kinds else names)


def is_common(kind: str) -> bool:
    """Tell whether all events of a class that have no event type of their own are of this kind."""
    return "\0" not in kind


def may_hold_anything(cls: type) -> bool:
    """Tell whether the annotation of a field, such as `Any`, allows values that no durable backend can store."""
    record = record_for(cls)
    nodes = [] if record is None else [field.node for field in record.fields]
    return any((node[1] if node[0] == "optional" else node)[0] == "any" for node in nodes)


def matches(item: ResolvedItem, kind: str, event: Any) -> bool:
    """Tell whether a query selects an event of this kind."""
    names = {kind.partition("\0")[0], event.event_type}
    return item.selects(names, getattr(event, "tags", ()))


def _default(cls: type) -> str:
    field = getattr(cls, "__dataclass_fields__", {}).get("event_type")
    default = getattr(field, "default", None)
    return default if isinstance(default, str) else cls.__name__
