"""Queries. Temporary pure-Python base until the Rust message object lands."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from lexigram.contracts.events.messages import PaginatedQuery as ContractPaginatedQuery
from lexigram.contracts.events.messages import Query as ContractQuery
from lexigram.contracts.events.messages import TResult
from lexigram.events.messages.command import _Typed, construct


class Query(_Typed, ContractQuery[TResult]):
    def __init__(self, **kw: Any) -> None:
        construct(self, set(), kw)


class PaginatedQuery(Query[TResult], ContractPaginatedQuery[TResult]):
    @property
    def limit(self) -> int:
        return self.page_size

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.page_size


class PagedResult(Generic[TResult]):
    def __init__(self, items: list[TResult], total: int, page: int, page_size: int) -> None:
        self.items, self.total, self.page, self.page_size = items, total, page, page_size
