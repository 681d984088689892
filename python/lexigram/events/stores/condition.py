"""The dynamic consistency boundary: queries over types and tags, and conditions on an append.

Source: the specification at dcb.events; design of this library, section event stores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lexigram.events.exceptions import EventValidationError
from lexigram.events.stores._validation import check_number, check_text

if TYPE_CHECKING:
    from lexigram.events.messages.registry import EventTypeRegistry


MAX_JOINED_TAGS: Final = 20
"""With more tags than this in one alternative, SQL counts those an event has instead of naming each in a condition."""


class ResolvedItem(NamedTuple):
    """One alternative of a query in stored terms: any of `types` (None: every type) and all of `tags`."""

    types: frozenset[str] | None
    tags: frozenset[str]

    def matches(self, type_name: str, tags: Iterable[str]) -> bool:
        """Tell whether an event of this stored type name with these tags is selected."""
        return (self.types is None or type_name in self.types) and self.tags.issubset(tags)

    def selects(self, names: Iterable[str], tags: Iterable[str]) -> bool:
        """Tell whether an event with these names, as `selectors` gives them, and these tags is selected."""
        return any(self.matches(name, tags) for name in names)


def selectors(type_name: str, event_type: str) -> list[str]:
    """Return the names that select an event: its class's stored name, and an event type of its own where it has one."""
    # Otherwise it is the class name, which the registry has made a full name of.
    return [type_name] if event_type in (type_name, type_name.rpartition(".")[2]) else [type_name, event_type]


ResolvedQuery = tuple[ResolvedItem, ...]
"""Alternatives joined by OR; the empty tuple selects nothing."""


class _Item(NamedTuple):
    types: tuple[type | str, ...] | None
    tags: tuple[str, ...]


class EventQuery:
    """Selects events by type and tag, across streams: any of the types AND all of the tags; `a | b` selects either.

    Args:
        types: Classes (subclasses included), class names, full names, aliases, or the `event_type` that events or their
            classes were given; None selects every type.
        tags: Tags that an event must all carry; None or empty asks for none.

    Raises:
        EventValidationError: LEX_ERR_EVT_024, for anything else.
    """

    __slots__ = ("_items",)

    def __init__(
        self, types: type | str | Iterable[type | str] | None = None, tags: str | Iterable[str] | None = None
    ) -> None:
        self._items: tuple[_Item, ...] = (_Item(_check_types(types), _check_tags(tags)),)

    def __or__(self, other: EventQuery) -> EventQuery:
        if not isinstance(other, EventQuery):
            return NotImplemented
        both = EventQuery()
        both._items = tuple(dict.fromkeys((*self._items, *other._items)))
        return both

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EventQuery) and set(self._items) == set(other._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items))

    def __repr__(self) -> str:
        def show(item: _Item) -> str:
            types = None if item.types is None else [t if isinstance(t, str) else t.__name__ for t in item.types]
            return f"EventQuery(types={types}, tags={list(item.tags)})"

        return " | ".join(map(show, self._items))

    def resolve(self, registry: EventTypeRegistry) -> ResolvedQuery:
        """Return the query in stored type names. Raises what `registry.select` raises for an ambiguous name."""
        items = [
            ResolvedItem(None if types is None else registry.select(types), frozenset(tags))
            for types, tags in self._items
        ]
        return tuple([item for item in items if item.types is None or item.types])


@dataclass(frozen=True, slots=True)
class AppendCondition:
    """Lets an append succeed only if nothing that `query` selects was appended after position `after`.

    Read `after = await store.head()` first, then the events to decide on, then append. Events that compaction,
    deletion or eviction has removed are no longer seen.

    Args:
        query: What the decision was based on.
        after: Last position taken into account; 0 means that no matching event may exist at all.
    """

    query: EventQuery
    after: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.query, EventQuery):
            raise EventValidationError(
                f"condition.query must be an EventQuery, got {type(self.query).__name__}", field="condition.query"
            )
        check_number(self.after, "condition.after")


class ResolvedCondition(NamedTuple):
    """An `AppendCondition` in stored terms, as backends receive it."""

    query: ResolvedQuery
    after: int


def _check_types(types: Any) -> tuple[type | str, ...] | None:
    if types is None:
        return None
    if isinstance(types, type | str):
        types = (types,)
    if not isinstance(types, Iterable):
        raise EventValidationError(f"types must be classes or names, got {types!r}", field="types")
    checked = tuple(types)
    for name in checked:
        if not isinstance(name, type | str) or not name:
            raise EventValidationError(f"types must be classes or names, got {name!r}", field="types")
    return checked


def _check_tags(tags: Any) -> tuple[str, ...]:
    if tags is None:
        return ()
    if not isinstance(tags, Iterable):
        raise EventValidationError(f"tags must be strings, got {tags!r}", field="tags")
    return tuple(check_text(tag, "tags") for tag in ((tags,) if isinstance(tags, str) else tags))
