"""Looking back: what an aggregate or a read model was, what caused what, and what other handlers would have made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events.aggregates.aggregate import AggregateRoot
from lexigram.events.aggregates.state import read_state
from lexigram.events.exceptions import EventLoadError, EventValidationError
from lexigram.events.messages.event import DomainEvent
from lexigram.events.projections.adapter import as_projection
from lexigram.events.projections.base import settled
from lexigram.events.repository.causation import CausationGraph, causation_graph
from lexigram.events.repository.loading import AggregateLoader
from lexigram.events.stores._validation import check_number

if TYPE_CHECKING:
    from lexigram.events.stores.base import AbstractEventStore

TAggregate = TypeVar("TAggregate", bound=AggregateRoot)
TProjection = TypeVar("TProjection")

_PAGE: Final = 1000
_ABSENT: Final = "(absent)"


@dataclass(frozen=True)
class WhatIf:
    """How the same events end under today's and under changed handlers.

    Args:
        version: The version up to which events were replayed.
        before: State under today's handlers.
        after: State under the changed ones, up to the event that failed.
        differences: By path (`lines.0.price`): the value before and after; `(absent)` where there is none.
        error: Why the changed handlers could not replay the stream; None if they could.
    """

    version: int
    before: dict[str, Any]
    after: dict[str, Any]
    differences: dict[str, tuple[Any, Any]]
    error: EventLoadError | None = None


class TimeTravel:
    """Reads the past of one event store; it writes nothing.

    Args:
        event_store: The log. Events that were removed by compaction cannot be looked back at.
    """

    def __init__(self, event_store: AbstractEventStore) -> None:
        self._store = event_store

    async def aggregate_at(
        self,
        aggregate_type: type[TAggregate],
        aggregate_id: UUID | str,
        *,
        version: int | None = None,
        position: int | None = None,
        at: datetime | None = None,
        factory: Callable[[UUID | str], TAggregate] | None = None,
    ) -> TAggregate | None:
        """Return an aggregate as it was, or None if it did not exist then.

        It cannot be saved where the stream has gone on since. Cost: linear in the events replayed.

        Args:
            aggregate_type: The class.
            aggregate_id: The aggregate's id.
            version: As of this version, from 0.
            position: As of this global position, from 0.
            at: As of this time, with a time zone: before the first event that occurred later.
            factory: Makes an empty aggregate.

        Raises:
            EventValidationError: LEX_ERR_EVT_024, not exactly one of version, position and time.
            EventLoadError: LEX_ERR_EVT_011, events are gone or cannot be replayed.
        """
        events = await self._events(str(aggregate_id), version, position, at)
        if not events:
            return None
        return AggregateLoader(aggregate_type, self._store, None, factory).replayed(aggregate_id, events)

    async def projection_at(self, projection: TProjection, position: int) -> TProjection:
        """Apply the log up to and including a position to a fresh projection object and return it.

        Give an object whose read model is its own (in memory or in a scratch table), never the one that is live: its
        checkpoint and its rows are not touched. Events whose application has effects elsewhere have them again.
        Cost: linear in the log up to the position; a projection that names its events reads only those.
        """
        check_number(position, "position")
        target = as_projection(projection)
        async for event in self._log(position, target.handles):
            if target.can_handle(event):
                await settled(target.apply(event))
        target.advance(position)
        return projection

    async def causation_graph(
        self, correlation_id: UUID | str, *, from_position: int = 0, to_position: int | None = None
    ) -> CausationGraph:
        """Return what caused what among the events with this correlation id.

        Cost: one pass over the log between the two positions, since correlation ids are not indexed; give the
        positions around the request where the log is long.

        Args:
            correlation_id: As events carry it; also the id of the event that began it all.
            from_position: Begin after this position.
            to_position: End at this position; None = the head.
        """
        until = await self._store.head() if to_position is None else check_number(to_position, "to_position")
        return await causation_graph(
            self._log(until, None, check_number(from_position, "from_position")), correlation_id
        )

    async def what_if(
        self,
        aggregate_type: type[AggregateRoot],
        changed: type[AggregateRoot],
        aggregate_id: UUID | str,
        *,
        version: int | None = None,
    ) -> WhatIf | None:
        """Replay a stream through today's class and through a changed one, and compare the states.

        Args:
            aggregate_type: Today's class.
            changed: The class with other handlers, usually a subclass of it.
            aggregate_id: The aggregate's id; None is returned if it has no events.
            version: Replay up to this version; None = all events.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, events are gone.
        """
        last = await self._store.get_stream_version(str(aggregate_id)) if version is None else version
        events = await self._events(str(aggregate_id), last, None, None)
        if not events:
            return None
        before = read_state(AggregateLoader(aggregate_type, self._store).replayed(aggregate_id, events))
        error: EventLoadError | None = None
        loader: AggregateLoader[Any] = AggregateLoader(changed, self._store)
        try:
            after = read_state(loader.replayed(aggregate_id, events))
        except EventLoadError as failure:
            error = failure
            good = int(failure.details["version"]) - events[0].version
            after = read_state(loader.replayed(aggregate_id, events[:good])) if good > 0 else {}
        return WhatIf(events[-1].version, before, after, differences(before, after), error)

    async def _events(
        self, stream_id: str, version: int | None, position: int | None, at: datetime | None
    ) -> list[Any]:
        if (version is not None) + (position is not None) + (at is not None) != 1:
            raise EventValidationError("give one of version, position and at", field="version")
        moments = {"version": version, "position": position}
        if 0 in [check_number(value, name) for name, value in moments.items() if value is not None]:
            return []
        if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
            raise EventValidationError("at must have a time zone", field="at")
        stored = await self._store.get_stream_version(stream_id)
        kept: list[Any] = []
        async for event in self._stream(stream_id):
            if not kept and event.version > 1:
                raise EventLoadError(f"the events of stream {stream_id!r} up to version {event.version - 1} are gone")
            if (
                (version is not None and event.version > version)
                or (position is not None and event.sequence_number > position)
                or (at is not None and event.occurred_at > at)
            ):
                return kept
            kept.append(event)
        if stored and not kept:
            raise EventLoadError(f"all {stored} events of stream {stream_id!r} are gone")
        return kept

    async def _stream(self, stream_id: str) -> AsyncIterator[Any]:
        """Yield the events of a stream, a page at a time."""
        after = 0
        while page := await self._store.read(stream_id, after + 1, limit=_PAGE):
            for event in page:
                yield event
            if len(page) < _PAGE:
                break
            after = page[-1].version

    async def _log(self, until: int, types: Any, after: int = 0) -> AsyncIterator[Any]:
        """Yield the events after one position up to another."""
        wanted = tuple(types or ())
        if ContractEvent in wanted or DomainEvent in wanted:
            wanted = ()
        events = self._store.stream_by_type(list(wanted), after) if wanted else self._store.stream_all(after)
        async for event in events:
            if event.sequence_number > until:
                return
            yield event


def differences(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Return where two states differ, by path; lists are compared item by item."""
    found: dict[str, tuple[Any, Any]] = {}
    _compare("", before, after, found)
    return found


def _compare(path: str, before: Any, after: Any, found: dict[str, tuple[Any, Any]]) -> None:
    if isinstance(before, list) and isinstance(after, list):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{path}.{key}" if path else str(key)
            _compare(inner, before.get(key, _ABSENT), after.get(key, _ABSENT), found)
    elif before != after:
        found[path] = (before, after)
