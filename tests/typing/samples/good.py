"""Everything here is right: neither type checker may complain, and it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Generic, TypeVar, assert_type
from uuid import UUID, uuid4

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.contracts.events.messages import MessageMetadata
from lexigram.events import (
    Command,
    DomainEvent,
    Event,
    IdempotentCommand,
    IntegrationEvent,
    PagedResult,
    PaginatedQuery,
    Query,
)

T = TypeVar("T")


class UserRegistered(DomainEvent):
    user_id: str
    email: str = ""
    roles: list[str] = field(default_factory=list)


class Renamed(UserRegistered):
    name: str


@dataclass(frozen=True)
class Decorated(DomainEvent):
    user_id: str
    email: str = ""


@dataclass(frozen=True, kw_only=True)
class KeywordOnly(DomainEvent):
    user_id: str


class Changed(DomainEvent, Generic[T]):
    value: T


class Shipped(IntegrationEvent):
    order_id: UUID


class RegisterUser(Command[UUID]):
    user_id: str


class Plain(Command):
    name: str = ""


@dataclass(frozen=True)
class Rename(Command[None]):
    name: str


class Charge(IdempotentCommand[None]):
    amount: Decimal


class FindUser(Query[str]):
    user_id: str


class ListUsers(PaginatedQuery[str]):
    text: str = ""


event = UserRegistered(user_id="u1")
UserRegistered(user_id="u1", email="e", roles=["r"], aggregate_id=uuid4(), version=3, tags=("t",), metadata={"k": 1})
Renamed(user_id="u", name="n", correlation_id=uuid4())
Decorated(user_id="u")
Decorated(user_id="u", email="e", actor_id="a")
KeywordOnly(user_id="u")
Changed(value=1)
Shipped(order_id=uuid4(), source_service="s", destination_services=["d"])
Event(data=1, kind="x")
RegisterUser(user_id="u", id=uuid4(), metadata=MessageMetadata())
Plain(name="x")
Rename(name="n")
Charge(amount=Decimal(1), idempotency_key="k")
FindUser(user_id="u", include_deleted=True, cache_key="c")
ListUsers(text="t", page=2, page_size=5, sort_by="x", sort_desc=True)

contract: ContractEvent = event
assert_type(event.user_id, str)
assert_type(event.version, int)
assert_type(event.aggregate_id, UUID | str | None)
assert_type(event.tags, tuple[str, ...])
assert_type(event.with_version(1).with_tags("a").with_metadata(k=1), UserRegistered)
assert_type(event.for_aggregate("a-1", "User").with_correlation_id(uuid4()), UserRegistered)
assert_type(UserRegistered.from_dict(event.to_dict()), UserRegistered)
assert_type(RegisterUser(user_id="u").with_correlation_id(uuid4()), RegisterUser)
assert_type(RegisterUser(user_id="u").for_aggregate(uuid4(), 1), RegisterUser)
assert_type(FindUser(user_id="u").metadata.user_id, str | None)
assert_type(ListUsers().offset, int)
assert_type(PagedResult(items=["a"], total=1, page=1, page_size=10).items, list[str])
