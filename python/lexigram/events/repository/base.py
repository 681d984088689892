"""What every repository of aggregates offers. Source: spec/api-reference.md, "AbstractRepository"."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar
from uuid import UUID

TAggregate = TypeVar("TAggregate")


class AbstractRepository(ABC, Generic[TAggregate]):
    """Collection-like access to the aggregates of one class."""

    @abstractmethod
    async def get(self, aggregate_id: UUID | str) -> TAggregate | None:
        """Return the aggregate, or None if there is none with this id."""

    @abstractmethod
    async def save(self, aggregate: TAggregate) -> None:
        """Persist the pending changes of an aggregate and clear them."""

    @abstractmethod
    async def exists(self, aggregate_id: UUID | str) -> bool:
        """Return whether there is an aggregate with this id."""


class AbstractReadOnlyRepository(ABC, Generic[TAggregate]):
    """The reading half, for the query side."""

    @abstractmethod
    async def get(self, aggregate_id: UUID | str) -> TAggregate | None:
        """Return the aggregate, or None if there is none with this id."""

    @abstractmethod
    async def exists(self, aggregate_id: UUID | str) -> bool:
        """Return whether there is an aggregate with this id."""

    @abstractmethod
    async def get_all(self, limit: int | None = None, offset: int | None = None) -> list[TAggregate]:
        """Return the aggregates in order of their ids, at most `limit` of them after leaving out `offset`."""
