"""Repositories with the framework's generic methods. Source: spec/api-reference.md, "RepositoryProtocol"."""

from __future__ import annotations

import builtins
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from lexigram.events.aggregates.aggregate import AggregateRoot
from lexigram.events.repository.event_sourcing import EventSourcingRepository
from lexigram.events.repository.read_only import ReadOnlyEventSourcingRepository

if TYPE_CHECKING:
    from lexigram.contracts.domain.specification import SpecificationProtocol
    from lexigram.contracts.events.protocols.store import EventStoreProtocol, SnapshotStoreProtocol

T = TypeVar("T")
TAggregate = TypeVar("TAggregate", bound=AggregateRoot)


class GenericEventSourcingRepository(ReadOnlyEventSourcingRepository[TAggregate]):
    """Event-sourced aggregates behind the framework's `RepositoryProtocol`.

    Args:
        aggregate_type: The aggregate class.
        event_store: Where the events are.
        snapshot_store: Where the snapshots are, if any.
        options: Further keyword arguments of `EventSourcingRepository`: `event_bus`, `snapshot_policy`, ...
    """

    def __init__(
        self,
        aggregate_type: type[TAggregate],
        event_store: EventStoreProtocol,
        snapshot_store: SnapshotStoreProtocol | None = None,
        **options: Any,
    ) -> None:
        super().__init__(aggregate_type, event_store, snapshot_store)
        self._repository = EventSourcingRepository(aggregate_type, event_store, snapshot_store, **options)

    async def get(self, item_id: UUID | str) -> TAggregate | None:
        """Return the aggregate with exactly the id given, or None if there is none or it was deleted.

        Raises:
            EventLoadError: LEX_ERR_EVT_011, its events cannot be replayed.
        """
        return await super().get(item_id) if await self.exists(item_id) else None

    async def save(self, entity: TAggregate) -> TAggregate:
        """Save the pending events of an aggregate and return it.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004, its stream changed since it was loaded; nothing was written.
        """
        await self._repository.save(entity)
        return entity

    async def save_many(self, entities: builtins.list[TAggregate]) -> builtins.list[TAggregate]:
        """Save several aggregates, all or none, and return them.

        Raises:
            ConcurrencyError: LEX_ERR_EVT_004, one of the streams changed; nothing was written, load them again.
        """
        async with self._loader.event_store.unit_of_work():
            for entity in entities:
                await self._repository.save(entity)
        return entities

    async def delete(self, item_id: UUID | str) -> bool:
        """Remove events and snapshots of an aggregate for good; the id cannot be used for a new one.

        Returns:
            Whether there was one.
        """
        existed = await self.exists(item_id)
        if self._loader.snapshot_store is not None:
            await self._loader.snapshot_store.delete(item_id)
        await self._loader.event_store.delete_stream(str(item_id))
        return existed

    async def delete_many(self, item_ids: builtins.list[UUID | str]) -> int:
        """Delete several aggregates one by one and return how many there were."""
        return sum([await self.delete(item_id) for item_id in item_ids])


class InMemoryRepository(Generic[T]):
    """Objects with an `id` in a dictionary, behind the framework's `RepositoryProtocol`: for tests and prototypes.

    Objects are copied in and out, as with a database, so a change counts only once it is saved. Filters compare
    attributes for equality.
    """

    def __init__(self) -> None:
        self._items: dict[str, T] = {}

    async def get(self, item_id: UUID | str) -> T | None:
        """Return a copy of the object, or None."""
        return deepcopy(self._items.get(str(item_id)))

    async def list(self, skip: int = 0, limit: int = 100, **filters: Any) -> builtins.list[T]:
        """Return copies of the objects whose attributes equal the filters, in order of insertion."""
        found = [item for item in self._items.values() if _matches(item, filters)]
        return deepcopy(found[skip : skip + limit])

    async def find_by_spec(self, spec: SpecificationProtocol[T]) -> builtins.list[T]:
        """Return copies of the objects that satisfy a specification."""
        return deepcopy([item for item in self._items.values() if spec.is_satisfied_by(item)])

    async def count(self, **filters: Any) -> int:
        """Return the number of objects whose attributes equal the filters."""
        return sum(_matches(item, filters) for item in self._items.values())

    async def save(self, entity: T) -> T:
        """Keep a copy of the object under its `id`, replacing an earlier one, and return the object."""
        self._items[str(entity.id)] = deepcopy(entity)  # type: ignore[attr-defined]
        return entity

    async def save_many(self, entities: builtins.list[T]) -> builtins.list[T]:
        """Save several objects and return them."""
        for entity in entities:
            await self.save(entity)
        return entities

    async def delete(self, item_id: UUID | str) -> bool:
        """Remove the object and return whether there was one."""
        return self._items.pop(str(item_id), None) is not None

    async def delete_many(self, item_ids: builtins.list[UUID | str]) -> int:
        """Remove several objects and return how many there were."""
        return sum([await self.delete(item_id) for item_id in item_ids])


def _matches(item: Any, filters: dict[str, Any]) -> bool:
    return all(getattr(item, name) == value for name, value in filters.items())
