"""Given-when-then tests of aggregates, without a store.

Scenario(Order).given(OrderPlaced(...)).when(lambda order: order.ship()).then(OrderShipped(...))
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Generic, Self, TypeVar, get_origin
from uuid import UUID

from lexigram.contracts.domain.events import DomainEvent
from lexigram.events.aggregates.aggregate import AggregateRoot
from lexigram.events.aggregates.factory import empty_aggregate
from lexigram.events.messages import shapes
from lexigram.events.messages.event import new_id

TAggregate = TypeVar("TAggregate", bound=AggregateRoot)

_MISSING = object()


class Scenario(Generic[TAggregate]):
    """One test of one aggregate class: given its history, when something is done, then these events come out.

    Events are compared by class and fields; ids, times, versions and other metadata are ignored. Every step returns
    the scenario, so several `when` … `then` can follow each other.

    Args:
        aggregate_type: The aggregate class.
        aggregate_id: Id of the aggregate; a new UUID if none is given.
    """

    def __init__(self, aggregate_type: type[TAggregate], aggregate_id: UUID | str | None = None) -> None:
        plain = get_origin(aggregate_type) or aggregate_type  # Box[int] is a Box
        if not isinstance(plain, type) or not issubclass(plain, AggregateRoot):
            raise TypeError(f"a scenario is about a subclass of AggregateRoot, not {aggregate_type!r}")
        self.aggregate: TAggregate = empty_aggregate(plain, aggregate_id or new_id())
        self._result: Any = None
        self._error: Exception | None = None
        self._acted = False

    def given(self, *events: Any) -> Self:
        """Replay these events (given one by one or as a list) onto the aggregate.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, the aggregate cannot replay one of them.
        """
        aggregate_id = self.aggregate.id
        self.aggregate.load_from_history(_flat(events))
        self.aggregate.id = aggregate_id
        return self

    def when(self, action: Callable[[TAggregate], Any]) -> Self:
        """Call `action(aggregate)` and keep what it returns or raises for the next step.

        An action that returns an aggregate of the class, such as a factory method, goes on with that one.
        """
        self._raise_unexpected()
        self.aggregate.clear_events()
        self._acted, self._result = True, None
        try:
            result = action(self.aggregate)
        except Exception as error:
            self._error = error
            return self
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("aggregates do not wait: when() takes a plain function")
        if isinstance(result, type(self.aggregate)) and result is not self.aggregate:
            self.aggregate = result
        self._result = result
        return self

    def then(self, *events: Any) -> Self:
        """Check that exactly these events (one by one or as a list; none: no event) came out, in this order.

        Raises:
            AssertionError: Other events came out; the message shows both lists.
            Exception: What the action raised, if it raised.
        """
        self._raise_unexpected()
        self._check_acted()
        expected, actual = _flat(events), self.aggregate.get_pending_events()
        if [_value(event) for event in expected] != [_value(event) for event in actual]:
            raise AssertionError(f"expected events:{_listed(expected)}\nactual events:{_listed(actual)}")
        return self

    def then_raises(self, error_type: type[Exception], match: str | None = None) -> Self:
        """Check that the action raised an error of this type, with a message that matches the pattern, and no events.

        Args:
            error_type: Class of the error.
            match: Regular expression searched for in its text.
        """
        self._check_acted()
        error, self._error = self._error, None
        if error is None:
            raise AssertionError(f"expected {error_type.__name__}, but nothing was raised")
        if not isinstance(error, error_type):
            raise AssertionError(f"expected {error_type.__name__}, got {type(error).__name__}: {error}") from error
        if match is not None and not re.search(match, str(error)):
            raise AssertionError(f"expected a message matching {match!r}, got {str(error)!r}") from error
        emitted = self.aggregate.get_pending_events()
        if emitted:
            raise AssertionError(f"{error_type.__name__} was raised after events:{_listed(emitted)}") from error
        return self

    def then_returns(self, value: Any) -> Self:
        """Check what the action returned."""
        self._raise_unexpected()
        self._check_acted()
        if self._result != value:
            raise AssertionError(f"expected the result {value!r}, got {self._result!r}")
        return self

    def then_state(self, **attributes: Any) -> Self:
        """Check attributes of the aggregate."""
        self._raise_unexpected()
        for name, value in attributes.items():
            actual = getattr(self.aggregate, name, _MISSING)
            if actual is _MISSING or actual != value:
                shown = "is missing" if actual is _MISSING else f"is {actual!r}"
                raise AssertionError(f"{type(self.aggregate).__name__}.{name} {shown}, expected {value!r}")
        return self

    def _raise_unexpected(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _check_acted(self) -> None:
        if not self._acted:
            raise AssertionError("nothing has been done yet: call when() first")


def _flat(events: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for event in events:
        found.extend(event) if isinstance(event, list | tuple) else found.append(event)
    for event in found:
        if not isinstance(event, DomainEvent):
            raise TypeError(f"events are given and expected, not {event!r}")
    return found


def _value(event: Any) -> tuple[Any, ...]:
    """Return class and fields of an event: what `then` compares."""
    cls = type(event)
    record = shapes.record_for(cls)
    names = [field.name for field in record.fields] if record is not None else []
    extra = {name: value for name, value in vars(event).items() if name not in shapes.META_NAMES}
    fields = {**extra, **{name: getattr(event, name, None) for name in names}}
    return cls, None if cls.__name__ == event.event_type else event.event_type, fields


def _listed(events: list[Any]) -> str:
    return (
        "".join(
            f"\n  {type(event).__name__}({', '.join(f'{name}={value!r}' for name, value in _value(event)[2].items())})"
            for event in events
        )
        or "\n  (none)"
    )
