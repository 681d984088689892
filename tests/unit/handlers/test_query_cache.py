"""Which queries share a kept result, and which never do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, SecretStr

from lexigram.contracts.events.messages import Query as ContractQuery
from lexigram.events import MessageMetadata, PaginatedQuery, Query
from lexigram.events.handlers.query_cache import CachedQueryHandler


class ById(Query[Any]):
    id: Any


class At(Query[Any]):
    timestamp: datetime


class By(Query[Any]):
    value: Any = None


class Keyed(Query[Any]):
    cache_key: Any


class Loose(BaseModel, extra="allow"):
    words: list[str]


itself: list[Any] = []
itself.append(itself)


@dataclass(frozen=True)
class ContractById(ContractQuery[Any]):
    id: Any = None
    name: str = ""


@dataclass(frozen=True)
class Decorated(Query[Any]):
    value: Any = None


class Page(PaginatedQuery[Any]):
    pass


@dataclass
class Login:
    user: str
    password: str = field(repr=False)


class Filter(BaseModel):
    words: list[str]


class Open:
    """Can be changed, and is compared by what is in it."""

    __hash__ = None  # type: ignore[assignment]


def asked_by(user: str, tenant: str) -> By:
    return By(metadata=MessageMetadata(user_id=user, tenant_id=tenant))


async def counted(first: Any, second: Any) -> int:
    """Ask a cacheable handler two queries; return how often it ran."""
    calls: list[Any] = []

    async def call(query: Any) -> int:
        calls.append(query)
        return len(calls)

    handler = CachedQueryHandler(call, call)
    await handler(first)
    assert await handler(second) == len(calls)
    return len(calls)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ById(id=uuid4()), ById(id=uuid4())),
        (ContractById(id=1), ContractById(id=2)),
        (At(timestamp=NOW), At(timestamp=NOW.replace(year=2027))),
        (By(value=SecretStr("a")), By(value=SecretStr("b"))),
        (By(value=Login("ada", "a")), By(value=Login("ada", "b"))),
        (By(value=1), By(value=True)),
        (By(value=[1]), By(value=(1,))),
        (By(value={"a": [1]}), By(value={"a": [2]})),
        (By(value=Filter(words=["a"])), By(value=Filter(words=["b"]))),
        (By(value={"a": 1, "b": 1}), By(value={"b": 1, "a": 1})),
        (By(value=Loose(words=["a"], tone="low")), By(value=Loose(words=["a"], tone="high"))),
        (By(value=NOW), By(value=NOW.astimezone(timezone(timedelta(hours=1))))),
        (By(value=Decimal("1.0")), By(value=Decimal("1.00"))),
        (By(value=object()), By(value=object())),
        (By(value=itself), By(value=itself)),
        (By(value=Open()), By(value=Open())),
        (asked_by("ada", "a"), asked_by("bob", "a")),
        (asked_by("ada", "a"), asked_by("ada", "b")),
        (Page(page=1), Page(page=2)),
        (By(), Decorated()),
        (By(), By(include_deleted=True)),
    ],
)
async def test_different_queries_never_share_a_result(first: Any, second: Any) -> None:
    """An id of its own, a hidden secret, a time zone, an order, a user or a tenant make a difference."""
    assert await counted(first, second) == 2


@pytest.mark.parametrize(
    "make",
    [
        By,
        lambda: By(value={"a": [1, {2, 3}], "b": Filter(words=["a"])}),
        lambda: By(value=Login("ada", "a")),
        lambda: Decorated(value=NOW),
        lambda: ContractById(id=5, name="a"),
        lambda: asked_by("ada", "a"),
        lambda: Page(page=2),
        lambda: Keyed(cache_key="a"),
        lambda: Keyed(cache_key=["a", 1]),
        lambda: At(timestamp=NOW),
    ],
)
async def test_equal_queries_share_a_result(make: Callable[[], Any]) -> None:
    """Though each has an id, a time and a correlation of its own."""
    assert await counted(make(), make()) == 1
