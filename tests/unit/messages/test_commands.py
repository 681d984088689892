"""Commands and queries: the same treatment as events."""

from __future__ import annotations

import copy
import dataclasses as dc
import inspect
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from lexigram.contracts.events.messages import Command as ContractCommand
from lexigram.contracts.events.messages import IdempotentCommand as ContractIdempotentCommand
from lexigram.contracts.events.messages import Message, MessageMetadata
from lexigram.contracts.events.messages import PaginatedQuery as ContractPaginatedQuery
from lexigram.contracts.events.messages import Query as ContractQuery
from lexigram.events import Command, EventValidationError, IdempotentCommand, PagedResult, PaginatedQuery, Query


class RegisterUser(Command[UUID]):
    user_id: str
    email: str = ""


@dataclass(frozen=True)
class Rename(Command[None]):
    name: str
    reason: str = "r"


class Charge(IdempotentCommand[None]):
    amount: int


class FindUser(Query[str]):
    user_id: str


class ListUsers(PaginatedQuery[str]):
    text: str = ""


def every() -> list[Any]:
    return [
        RegisterUser(user_id="u", email="e"),
        Rename("n"),
        Charge(amount=5, idempotency_key="k"),
        FindUser(user_id="u", cache_key="c", skip_cache=True),
        ListUsers(page=3, page_size=10, sort_by="x", sort_desc=True, text="t"),
    ]


def test_messages_are_instances_of_the_contract() -> None:
    """The framework's buses and protocols recognise them."""
    command, renamed, charge, find, listing = every()
    assert isinstance(command, ContractCommand | Message)
    assert isinstance(renamed, ContractCommand)
    assert isinstance(charge, ContractIdempotentCommand)
    assert isinstance(find, ContractQuery)
    assert isinstance(listing, ContractPaginatedQuery)


@pytest.mark.parametrize("message", every(), ids=lambda m: type(m).__name__)
def test_ids_times_and_metadata(message: Any) -> None:
    """Every message has a UUIDv7, an aware UTC time and its own empty metadata."""
    assert message.id.version == 7
    assert message.timestamp.tzinfo is UTC
    assert message.metadata == MessageMetadata()
    assert message.metadata is message.metadata
    assert message.metadata is not type(message).from_dict(message.to_dict()).metadata
    assert (message.correlation_id, message.causation_id) == (None, None)


def test_fields_are_keyword_only_and_enforced() -> None:
    """Missing, unknown and positional arguments are refused by name."""
    with pytest.raises(TypeError, match=r"RegisterUser\(\) missing required keyword argument: 'user_id'"):
        RegisterUser()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument: 'name'"):
        RegisterUser(user_id="u", name="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="keyword arguments only"):
        RegisterUser("u")  # type: ignore[misc]
    assert (Rename("n").name, Rename("n", "x").reason) == ("n", "x")


@pytest.mark.parametrize("message", every(), ids=lambda m: type(m).__name__)
def test_messages_are_immutable_equal_by_value_and_hashable(message: Any) -> None:
    """Copies are equal; everything counts for equality."""
    with pytest.raises(dc.FrozenInstanceError):
        message.id = uuid4()
    for again in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message)), dc.replace(message)):
        assert again == message
        assert type(again) is type(message)
        assert hash(again) == hash(message)
    assert message != dc.replace(message, id=uuid4())
    assert message != message.with_correlation_id(uuid4())


@pytest.mark.parametrize("message", every(), ids=lambda m: type(m).__name__)
def test_contract_helpers_keep_class_and_every_field(message: Any) -> None:
    """with_metadata, with_correlation_id, with_causation_id."""
    correlation, causation = uuid4(), uuid4()
    changed = message.with_correlation_id(correlation).with_causation_id(causation)
    assert type(changed) is type(message)
    assert (changed.correlation_id, changed.causation_id) == (correlation, causation)
    assert changed.with_metadata(message.metadata) == message
    assert changed.with_metadata(MessageMetadata(user_id="u")).metadata.user_id == "u"


@pytest.mark.parametrize("message", every(), ids=lambda m: type(m).__name__)
def test_dictionaries_round_trip(message: Any) -> None:
    """to_dict has all fields, from_dict gives an equal message."""
    data = message.to_dict()
    assert {f.name for f in dc.fields(message)} == set(data)
    assert type(message).from_dict(data) == message


def test_for_aggregate_targets_a_command() -> None:
    """Id and expected version travel in the metadata; the command keeps its fields."""
    aggregate = uuid4()
    command = RegisterUser(user_id="u", metadata=MessageMetadata(tenant_id="t", custom={"k": 1}))
    aimed = command.for_aggregate(aggregate, 4)
    assert (aimed.target_aggregate_id, aimed.expected_version) == (aggregate, 4)
    assert (aimed.user_id, aimed.id, aimed.metadata.tenant_id) == ("u", command.id, "t")
    assert aimed.metadata.custom["k"] == 1
    assert command.target_aggregate_id is None
    assert command.for_aggregate(aggregate).expected_version is None


def test_a_message_field_may_be_called_like_event_metadata() -> None:
    """Commands have only three names of their own."""

    class Tag(Command[None]):
        tags: list[str]
        version: str
        aggregate_id: int

    command = Tag(tags=["a"], version="1.0", aggregate_id=5)
    assert (command.tags, command.version, command.aggregate_id) == (["a"], "1.0", 5)


def test_bad_ids_and_times_are_refused_by_name() -> None:
    """The names in the message are those of commands."""
    with pytest.raises(EventValidationError, match="id must be a UUID") as caught:
        RegisterUser(user_id="u", id="x")  # type: ignore[arg-type]
    assert caught.value.field == "id"
    with pytest.raises(EventValidationError, match="timestamp must be"):
        RegisterUser(user_id="u", timestamp=3)  # type: ignore[arg-type]
    with pytest.raises(EventValidationError, match="metadata must be"):
        RegisterUser(user_id="u", metadata=RegisterUser(user_id="v"))  # type: ignore[arg-type]
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    assert RegisterUser(user_id="u", timestamp=moment).timestamp == moment


def test_plain_commands_and_queries_can_be_made() -> None:
    """The bases themselves construct."""
    assert Command().id != Command().id
    assert Query(include_deleted=True).include_deleted is True
    assert IdempotentCommand(idempotency_key="k").idempotency_key == "k"
    assert "user_id" in inspect.signature(FindUser).parameters


def test_pages_have_limit_and_offset() -> None:
    """Page numbers start at 1."""
    query = ListUsers(page=3, page_size=10)
    assert (query.limit, query.offset) == (10, 20)
    assert (PaginatedQuery().limit, PaginatedQuery().offset) == (20, 0)
    for values in ({"page": 0}, {"page_size": 0}, {"page": "1"}):
        with pytest.raises(EventValidationError, match="must be an integer of at least 1"):
            ListUsers(**values)


@pytest.mark.parametrize(
    ("total", "page", "pages", "has_next", "has_prev"),
    [(0, 1, 0, False, False), (1, 1, 1, False, False), (10, 1, 1, False, False), (11, 1, 2, True, False),
     (11, 2, 2, False, True), (30, 2, 3, True, True)],
)  # fmt: skip
def test_paged_results_count_their_pages(total: int, page: int, pages: int, has_next: bool, has_prev: bool) -> None:
    """total_pages rounds up; has_next and has_prev follow."""
    result = PagedResult(items=["x"], total=total, page=page, page_size=10)
    assert (result.total_pages, result.has_next, result.has_prev) == (pages, has_next, has_prev)
    assert result.to_dict() == {
        "items": ["x"], "total": total, "page": page, "page_size": 10, "total_pages": pages,
        "has_next": has_next, "has_prev": has_prev,
    }  # fmt: skip


def test_impossible_pages_are_refused() -> None:
    """A page size of zero would divide by it."""
    with pytest.raises(EventValidationError, match="page_size"):
        PagedResult(items=[], total=1, page=1, page_size=0)


@pytest.mark.parametrize("wrong", ["5", 1.5, None])
def test_a_page_number_that_is_no_integer_is_refused_by_name(wrong: Any) -> None:
    """The message says which one, instead of an error from a comparison."""
    for name in ("total", "page", "page_size"):
        with pytest.raises(EventValidationError, match=name) as caught:
            PagedResult([], **{"total": 1, "page": 1, "page_size": 1, name: wrong})
        assert caught.value.field == name
