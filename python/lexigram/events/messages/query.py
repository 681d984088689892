"""Queries: requests for data, answered by exactly one handler. Source: spec/reference-surface.md."""

from __future__ import annotations

import dataclasses as dc
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic
from uuid import UUID

from lexigram.contracts.events.messages import MessageMetadata
from lexigram.contracts.events.messages import PaginatedQuery as ContractPaginatedQuery
from lexigram.contracts.events.messages import Query as ContractQuery
from lexigram.events import _core
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.message import NativeMessage, metadata_fields

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    TResult = TypeVar("TResult", default=Any)  # so that `class FindOrder(Query)` is complete for type checkers
else:
    from lexigram.contracts.events.messages import TResult


class Query(NativeMessage, ContractQuery[TResult]):
    """A request for data; `TResult` is what its handler returns.

    Attributes:
        include_deleted: Whether deleted things count.
        cache_key: Key under which a caching handler may keep the answer.
        skip_cache: Whether a cached answer will not do.
    """

    if TYPE_CHECKING:
        id: UUID = dc.field(default_factory=_core.new_id, kw_only=True)
        timestamp: datetime = dc.field(default_factory=datetime.now, kw_only=True)
        metadata: MessageMetadata = dc.field(default_factory=MessageMetadata, kw_only=True)
        include_deleted: bool = dc.field(default=False, kw_only=True)
        cache_key: str | None = dc.field(default=None, kw_only=True)
        skip_cache: bool = dc.field(default=False, kw_only=True)
    else:
        __metadata_fields__ = metadata_fields()


class PaginatedQuery(Query[TResult], ContractPaginatedQuery[TResult]):
    """A query answered page by page.

    Attributes:
        page: Number of the page, from 1.
        page_size: Items per page, from 1.
        sort_by: Name of the field to sort by.
        sort_desc: Whether the order is descending.

    Raises:
        EventValidationError: (LEX_ERR_EVT_024) `page` or `page_size` below 1.
    """

    page: int = 1
    page_size: int = 20
    sort_by: str | None = None
    sort_desc: bool = False

    def __post_init__(self) -> None:
        for name in ("page", "page_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise EventValidationError(f"{name} must be an integer of at least 1, not {value!r}", field=name)

    @property
    def limit(self) -> int:
        """Items per page."""
        return self.page_size

    @property
    def offset(self) -> int:
        """Items before this page."""
        return (self.page - 1) * self.page_size


class PagedResult(Generic[TResult]):
    """One page of an answer, with the total.

    Args:
        items: The items of this page.
        total: Number of items on all pages, from 0.
        page: Number of this page, from 1.
        page_size: Items per page, from 1.

    Raises:
        EventValidationError: (LEX_ERR_EVT_024) a number is out of range.
    """

    def __init__(self, items: list[TResult], total: int, page: int, page_size: int) -> None:
        for name, value, minimum in (("total", total, 0), ("page", page, 1), ("page_size", page_size, 1)):
            if not isinstance(value, int) or value < minimum:
                raise EventValidationError(
                    f"{name} must be an integer of at least {minimum}, not {value!r}", field=name
                )
        self.items = items
        self.total = total
        self.page = page
        self.page_size = page_size

    @property
    def total_pages(self) -> int:
        """Number of pages; 0 if there is nothing."""
        return -(-self.total // self.page_size)

    @property
    def has_next(self) -> bool:
        """Whether a page follows."""
        return self.page < self.total_pages

    @property
    def has_prev(self) -> bool:
        """Whether a page precedes."""
        return self.page > 1

    def to_dict(self) -> dict[str, Any]:
        """Return items, numbers and flags as a dictionary."""
        return {
            "items": self.items,
            "total": self.total,
            "page": self.page,
            "page_size": self.page_size,
            "total_pages": self.total_pages,
            "has_next": self.has_next,
            "has_prev": self.has_prev,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PagedResult) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PagedResult(page={self.page}/{self.total_pages}, items={len(self.items)}, total={self.total})"
