"""Reading aggregates without being able to change them. Source: spec/api-reference.md, "ReadOnlyRepositoryProtocol"."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from lexigram.events.aggregates.aggregate import AggregateRoot
from lexigram.events.repository.base import AbstractReadOnlyRepository
from lexigram.events.repository.listing import count_aggregates, list_aggregates
from lexigram.events.repository.loading import AggregateLoader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lexigram.contracts.domain.specification import SpecificationProtocol
    from lexigram.contracts.events.protocols.store import EventStoreProtocol, SnapshotStoreProtocol

TAggregate = TypeVar("TAggregate", bound=AggregateRoot)


class ReadOnlyEventSourcingRepository(AbstractReadOnlyRepository[TAggregate]):
    """Aggregates of one class, rebuilt from their events; has both the event-sourcing and the generic reading methods.

    Filters compare attributes for equality. `list`, `count` with filters and `find_by_spec` load every aggregate of
    the class in turn: for more than a few thousand use a projection.

    Args:
        aggregate_type: The aggregate class.
        event_store: Where the events are.
        snapshot_store: Where the snapshots are, if any.
    """

    def __init__(
        self,
        aggregate_type: type[TAggregate],
        event_store: EventStoreProtocol,
        snapshot_store: SnapshotStoreProtocol | None = None,
    ) -> None:
        self._loader: AggregateLoader[TAggregate] = AggregateLoader(aggregate_type, event_store, snapshot_store)

    async def get(self, item_id: UUID | str) -> TAggregate | None:
        """Return the aggregate with exactly the id given, or None.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, its events cannot be replayed.
        """
        return await self._loader.load(item_id)

    async def exists(self, aggregate_id: UUID | str) -> bool:
        """Return whether there is an aggregate with this id. Reads no events."""
        return await self._loader.exists(aggregate_id)

    async def get_all(self, limit: int | None = None, offset: int | None = None) -> builtins.list[TAggregate]:
        """Return the aggregates in order of their ids, at most `limit` after leaving out `offset`."""
        return [aggregate async for aggregate in list_aggregates(self._loader, limit, offset)]

    async def list(self, skip: int = 0, limit: int = 100, **filters: Any) -> builtins.list[TAggregate]:
        """Return the aggregates whose attributes equal the filters, in order of their ids."""
        if not filters:
            return await self.get_all(limit, skip)
        found: builtins.list[TAggregate] = []
        if limit <= 0:
            return found
        async for aggregate in self._matching(filters):
            if skip > 0:
                skip -= 1
                continue
            found.append(aggregate)
            if len(found) == limit:
                break
        return found

    async def find_by_spec(self, spec: SpecificationProtocol[TAggregate]) -> builtins.list[TAggregate]:
        """Return the aggregates that satisfy a specification, in order of their ids."""
        return [aggregate async for aggregate in list_aggregates(self._loader) if spec.is_satisfied_by(aggregate)]

    async def count(self, **filters: Any) -> int:
        """Return the number of aggregates whose attributes equal the filters."""
        if not filters:
            return await count_aggregates(self._loader)
        return len([aggregate async for aggregate in self._matching(filters)])

    async def _matching(self, filters: dict[str, Any]) -> AsyncIterator[TAggregate]:
        async for aggregate in list_aggregates(self._loader):
            if all(getattr(aggregate, name) == value for name, value in filters.items()):
                yield aggregate
