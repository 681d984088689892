"""Looking back at aggregates, read models and causes, and replaying through changed handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from lexigram.contracts.domain import DomainEvent as ContractEvent
from lexigram.events import AggregateRoot, DomainEvent, EventSourcingRepository
from lexigram.events.exceptions import ConcurrencyError, EventLoadError, EventValidationError
from lexigram.events.messages.context import message_context
from lexigram.events.projections.base import ProjectionProtocol
from lexigram.events.repository.time_travel import TimeTravel, differences
from lexigram.events.stores.base import AbstractEventStore
from lexigram.events.stores.memory import InMemoryEventStore
from lexigram.events.stores.sqlite import SqliteEventStore

pytestmark = pytest.mark.asyncio


class PastPaidIn(DomainEvent):
    """Money arrives."""

    amount: int


class PastPaidOut(DomainEvent):
    """Money leaves."""

    amount: int


class PastAccount(AggregateRoot):
    """An account."""

    balance = 0

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.balance = 0

    def pay_in(self, amount: int) -> None:
        """Add money."""
        self._apply(PastPaidIn(amount=amount))

    def pay_out(self, amount: int) -> None:
        """Take money."""
        self._apply(PastPaidOut(amount=amount))

    def _handle_past_paid_in(self, event: PastPaidIn) -> None:
        self.balance += event.amount

    def _handle_past_paid_out(self, event: PastPaidOut) -> None:
        self.balance -= event.amount


class WithFee(PastAccount):
    """The same with a fee."""

    def _handle_past_paid_out(self, event: PastPaidOut) -> None:
        self.balance -= event.amount + 1


class Strict(PastAccount):
    """The same without overdraft."""

    def _handle_past_paid_out(self, event: PastPaidOut) -> None:
        if event.amount > self.balance:
            raise ValueError("overdraft")
        self.balance -= event.amount


class Total(ProjectionProtocol):
    """All money that ever came in."""

    handles = (PastPaidIn,)

    def __init__(self) -> None:
        self.total = 0

    async def apply(self, event: PastPaidIn) -> None:
        """Add it up."""
        self.total += event.amount


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AbstractEventStore]:
    """A store with one account: +10 at position 1, another account at 2, +5 and -20 at 3 and 4."""
    made = InMemoryEventStore() if request.param == "memory" else SqliteEventStore(str(tmp_path / "events.db"))
    async with made:
        repository = EventSourcingRepository(PastAccount, made)
        account = PastAccount("a")
        account.pay_in(10)
        await repository.save(account)
        await made.append("b", [PastPaidIn(amount=100)])
        account.pay_in(5)
        account.pay_out(20)
        await repository.save(account)
        yield made


async def test_an_aggregate_as_of_version_position_and_time(store: AbstractEventStore) -> None:
    """The state is that of the moment asked for; what was not yet there is None."""
    repository = EventSourcingRepository(PastAccount, store)
    events = await store.read("a")

    async def balance(**moment: Any) -> int | None:
        account = await repository.get_at("a", **moment)
        return None if account is None else account.balance

    assert [await balance(version=version) for version in range(5)] == [None, 10, 15, -5, -5]
    assert [await balance(position=position) for position in range(6)] == [None, 10, 10, 15, -5, -5]
    assert await balance(at=events[0].occurred_at - timedelta(seconds=1)) is None
    assert await balance(at=events[1].occurred_at) in (15, -5)
    assert await balance(at=datetime.now(UTC)) == -5
    old = await repository.get_at("a", version=1)
    assert old is not None
    old.pay_in(1)
    with pytest.raises(ConcurrencyError):
        await repository.save(old)


async def test_bad_moments_are_refused(store: AbstractEventStore) -> None:
    """Exactly one moment, with a time zone, and not below 0."""
    repository = EventSourcingRepository(PastAccount, store)
    wrong: list[dict[str, Any]] = [{}, {"version": 1, "position": 1}, {"version": -1}, {"position": -1}]
    for moment in (*wrong, {"at": datetime.now()}, {"at": "2026-01-01"}):
        with pytest.raises(EventValidationError):
            await repository.get_at("a", **moment)
    await store.compact("a", 1)
    gone: list[dict[str, Any]] = [
        {"version": 3},
        {"version": 1},
        {"position": 1},
        {"at": datetime(2020, 1, 1, tzinfo=UTC)},
    ]
    for moment in gone:
        with pytest.raises(EventLoadError, match="gone"):
            await repository.get_at("a", **moment)
    assert await repository.get_at("a", version=0) is None
    assert await repository.get_at("a", position=0) is None


async def test_a_read_model_as_of_a_position(store: AbstractEventStore) -> None:
    """The log up to the position is applied to the object that is given."""
    travel = TimeTravel(store)
    assert [(await travel.projection_at(Total(), position)).total for position in range(6)] == [
        0,
        10,
        110,
        115,
        115,
        115,
    ]


async def test_whatever_can_be_registered_can_be_looked_back_at(store: AbstractEventStore) -> None:
    """An object that only has `apply`, as the framework's protocol says."""

    class Count:
        count = 0

        def apply(self, event: Any) -> None:
            self.count += 1

    assert (await TimeTravel(store).projection_at(Count(), 3)).count == 3
    with pytest.raises(EventValidationError, match="no projection"):
        await TimeTravel(store).projection_at(object(), 3)


async def test_the_graph_of_a_correlation_id(store: AbstractEventStore) -> None:
    """Causes and effects are nodes and edges, as data, text and Mermaid; other requests are not in it."""
    await store.append("of-the-framework", [ContractEvent()])  # carries no correlation id
    order = PastPaidIn(amount=1, correlation_id=uuid4(), causation_id=uuid4())
    await store.append("c", [order])
    with message_context(order):
        await store.append("d", [PastPaidOut(amount=1), PastPaidOut(amount=2)])
    graph = await TimeTravel(store).causation_graph(order.correlation_id or "")
    assert [(node.event_type, node.position) for node in graph.nodes] == [
        ("", 0),
        ("PastPaidIn", 6),
        ("PastPaidOut", 7),
        ("PastPaidOut", 8),
    ]
    assert len(graph.edges) == 3
    assert [line.count("  ") for line in graph.to_text().splitlines()] == [0, 1, 2, 2]
    assert graph.to_mermaid().count("-->") == 3
    assert (await TimeTravel(store).causation_graph(uuid4())).nodes == ()
    root = (await store.read("a"))[0]
    with message_context(root):
        await store.append("e", [PastPaidOut(amount=3)])
    rooted = await TimeTravel(store).causation_graph(root.correlation_id or root.event_id)
    assert rooted.edges[0][0] == str(root.event_id)


async def test_what_changed_handlers_would_have_made_of_it(store: AbstractEventStore) -> None:
    """States are compared by path; a stream that the changed handlers refuse is compared up to there."""
    travel = TimeTravel(store)
    fee = await travel.what_if(PastAccount, WithFee, "a")
    assert fee is not None
    assert (fee.version, fee.differences, fee.error) == (3, {"balance": (-5, -6)}, None)
    same = await travel.what_if(PastAccount, PastAccount, "a", version=2)
    assert same is not None
    assert (same.version, same.differences) == (2, {})
    strict = await travel.what_if(PastAccount, Strict, "a")
    assert strict is not None
    assert strict.error is not None
    assert strict.differences == {"balance": (-5, 15)}
    assert await travel.what_if(PastAccount, Strict, "nobody") is None


async def test_differences_are_found_at_any_depth() -> None:
    """Dictionaries and lists are compared inside."""
    before, after = {"a": [1, {"b": 2}], "same": 1}, {"a": [1, {"b": 3}, 4], "same": 1, "new": None}
    assert differences(before, after) == {
        "a.1.b": (2, 3),
        "a.2": ("(absent)", 4),
        "new": ("(absent)", None),
    }


async def test_a_stream_whose_events_are_gone_is_not_one_that_never_was(store: AbstractEventStore) -> None:
    """Both said None, as for an aggregate that did not exist then."""
    repository, travel = EventSourcingRepository(PastAccount, store), TimeTravel(store)
    await store.compact("a", 1)
    with pytest.raises(EventLoadError, match="up to version 1 are gone"):
        await travel.what_if(PastAccount, WithFee, "a", version=1)
    await store.compact("a", 3)
    with pytest.raises(EventLoadError, match="all 3 events of stream 'a' are gone"):
        await repository.get_at("a", version=3)
    with pytest.raises(EventLoadError, match="all 3 events of stream 'a' are gone"):
        await travel.what_if(PastAccount, WithFee, "a")
    assert await travel.what_if(PastAccount, WithFee, "never") is None
    assert await repository.get_at("a", version=0) is None
