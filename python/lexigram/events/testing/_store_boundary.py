"""The dynamic consistency boundary, with the example scenarios of the specification at dcb.events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from lexigram.events.exceptions import ConcurrencyError, EventValidationError
from lexigram.events.messages.event import DomainEvent
from lexigram.events.stores.condition import AppendCondition, EventQuery
from lexigram.events.testing.samples import GiftAdded, ItemAdded, ItemRemoved, added, refuses, skus

if TYPE_CHECKING:
    from lexigram.events.stores.base import AbstractEventStore


class CourseDefined(DomainEvent):
    """A course with a number of seats."""

    course: str
    capacity: int


class StudentSubscribed(DomainEvent):
    """A student takes a seat in a course."""

    student: str
    course: str


class AccountRegistered(DomainEvent):
    """A user name is taken."""

    username: str


class OrderPlaced(DomainEvent):
    """An order with a token that makes placing it idempotent."""

    order: str


class SignUpInitiated(DomainEvent):
    """A double opt-in has begun."""

    email: str


class SignUpConfirmed(DomainEvent):
    """A double opt-in is complete."""

    email: str


class PriceChanged(DomainEvent):
    """A product has a new price."""

    product: str
    price: int


class ProductOrdered(DomainEvent):
    """A product was ordered at a price shown to the customer."""

    product: str
    price: int


class InvoiceCreated(DomainEvent):
    """An invoice with the next number."""

    number: int


async def _decide(store: AbstractEventStore, query: EventQuery) -> tuple[list[Any], AppendCondition]:
    """Return the events to decide on and the condition that nothing of the kind is added."""
    position = await store.head()
    return await store.query(query), AppendCondition(query, after=position)


class BoundaryContract:
    """What tags, queries and append conditions promise."""

    async def test_a_query_selects_any_type_and_all_tags(self, store: AbstractEventStore) -> None:
        """Types are alternatives, tags add up, `|` joins whole queries; the order is global."""
        await store.append("a", [ItemAdded(sku="1", tags=("x",)), ItemRemoved(sku="2", tags=("x", "y"))])
        await store.append("b", [GiftAdded(sku="3", tags=("y",)), ItemAdded(sku="4")])
        assert skus(await store.query()) == ["1", "2", "3", "4"]
        assert skus(await store.query(tags="x")) == ["1", "2"]
        assert skus(await store.query(tags=["x", "y"])) == ["2"]
        assert skus(await store.query([ItemAdded], ["y"])) == ["3"]
        assert skus(await store.query([ItemAdded.__name__, ItemRemoved])) == ["1", "2", "4"]
        assert skus(await store.query(tags="none")) == []
        either = EventQuery(ItemRemoved) | EventQuery(tags="y") | EventQuery(ItemRemoved, "x")
        assert skus(await store.query(either)) == ["2", "3"]
        assert skus(await store.query(tags="x", from_position=1)) == ["2"]
        assert skus(await store.query(limit=3)) == ["1", "2", "3"]
        assert await store.query(limit=0) == []

    async def test_a_query_may_ask_for_very_many_tags(self, store: AbstractEventStore) -> None:
        """Whatever limits a statement of the backend has; a condition on them works like any other."""
        tags = [f"t{number}" for number in range(1000)]
        await store.append("a", [ItemAdded(sku="1").with_tags(*tags), ItemAdded(sku="2").with_tags(*tags[1:])])
        events, unchanged = await store.query_for_append(types=[ItemAdded], tags=tags)
        assert skus(events) == ["1"]
        assert skus(await store.query(tags=tags[1:])) == ["1", "2"]
        await store.append("b", [ItemAdded(sku="3").with_tags(*tags[:-1])], condition=unchanged)
        with pytest.raises(ConcurrencyError):
            await store.append("b", added("4"), condition=AppendCondition(EventQuery(tags=tags)))

    async def test_bad_queries_are_refused(self, store: AbstractEventStore) -> None:
        """Empty, overlong and non-string tags and types name their field."""
        await refuses(store.query(tags=[""]), "tags")
        await refuses(store.query(tags=["x" * 256]), "tags")
        for tag in ("x" * 256, "a\0b", "\ud800"):
            with pytest.raises(EventValidationError, match="tags"):
                ItemAdded(sku="1").with_tags(tag)
        await refuses(store.query(tags=[5]), "tags")  # type: ignore[list-item]
        await refuses(store.query(types=5), "types")  # type: ignore[arg-type]
        await refuses(store.query(types=[""]), "types")
        await refuses(store.query(EventQuery(), tags=["x"]), "tags")
        await refuses(store.query(limit=-1), "limit")
        await refuses(store.append("a", added("1"), condition="x"), "condition")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"condition\.after"):
            AppendCondition(EventQuery(), after=-1)
        with pytest.raises(ValueError, match=r"condition\.query"):
            AppendCondition("x")  # type: ignore[arg-type]

    async def test_a_condition_fails_on_a_match_after_its_position(self, store: AbstractEventStore) -> None:
        """Only matching events count, and only those after the position; nothing is written or stamped."""
        await store.append("a", added("1", tags=["x"]))
        await store.append("b", added("2", tags=["y"]))
        query = EventQuery(tags="x")
        (event,) = added("3")
        with pytest.raises(ConcurrencyError):
            await store.append("c", [event], condition=AppendCondition(query))
        assert event.sequence_number is None
        assert not await store.stream_exists("c")
        assert await store.append("c", [event], condition=AppendCondition(query, after=1)) == 1
        with pytest.raises(ConcurrencyError):
            await store.append("c", added("4"), condition=AppendCondition(EventQuery(), after=2))
        assert await store.append("c", added("4"), condition=AppendCondition(EventQuery(), after=3)) == 2

    async def test_a_condition_watches_event_types_of_their_own(self, store: AbstractEventStore) -> None:
        """With and without tags, in a unit of work too."""
        imported = [ItemAdded(sku=sku, event_type="item.imported").with_tags("t") for sku in ("1", "2", "3")]
        for tags in (None, ["t"]):
            condition = AppendCondition(EventQuery(types=["item.imported"], tags=tags), after=await store.head())
            await store.append("a", [ItemAdded(sku="0").with_tags("t")], condition=condition)
            with pytest.raises(ConcurrencyError):
                async with store.unit_of_work():
                    await store.append("a", imported[:1])
                    await store.append("b", [ItemRemoved(sku="0")], condition=condition)
            await store.append("a", [imported.pop()], condition=condition)
            with pytest.raises(ConcurrencyError):
                await store.append("a", [ItemRemoved(sku="0")], condition=condition)
            assert skus(await store.query(types=["item.imported"], tags=tags))[-1] == str(len(imported) + 1)

    async def test_a_condition_and_an_expected_version_must_both_hold(self, store: AbstractEventStore) -> None:
        """Either of them alone is enough to refuse."""
        await store.append("a", added("1", tags=["x"]))
        holds, fails = AppendCondition(EventQuery(tags="x"), 1), AppendCondition(EventQuery(tags="x"), 0)
        for expected, condition in ((0, holds), (1, fails), (0, fails)):
            with pytest.raises(ConcurrencyError):
                await store.append("a", added("2"), expected, condition=condition)
        assert await store.append("a", added("2"), 1, condition=holds) == 2

    async def test_a_retry_with_its_condition_succeeds(self, store: AbstractEventStore) -> None:
        """The events of the first attempt do not fail the condition of the second."""
        events = added("1", tags=["x"])
        condition = AppendCondition(EventQuery(tags="x"))
        assert await store.append("a", events, 0, condition=condition) == 1
        assert await store.append("a", events, 0, condition=condition) == 1
        assert await store.head() == 1

    async def test_of_racing_conditions_exactly_one_holds(self, store: AbstractEventStore) -> None:
        """Twenty writers to twenty streams on the same observation: one is right, the others read again."""
        condition = AppendCondition(EventQuery(tags="seat:1"), await store.head())
        outcomes = await asyncio.gather(
            *(store.append(f"s{n}", added(str(n), tags=["seat:1"]), condition=condition) for n in range(20)),
            return_exceptions=True,
        )
        assert outcomes.count(1) == 1
        assert sum(type(outcome) is ConcurrencyError for outcome in outcomes) == 19
        assert len(await store.query(tags="seat:1")) == 1

    async def test_a_stream_is_a_special_case(self, store: AbstractEventStore) -> None:
        """A tag for each stream and a condition on it allow and refuse what the stream's expected version does."""
        for version in range(3):
            events, unchanged = await store.query_for_append(tags="stream:a")
            assert len(events) == await store.get_stream_version("a") == version
            await store.append("b", added("x", tags=["stream:b"]))
            for is_first in (True, False):
                outcomes = await asyncio.gather(
                    store.append("a", added("1"), expected_version=version),
                    store.append("tagged", added("1", tags=["stream:a"]), condition=unchanged),
                    return_exceptions=True,
                )
                assert [isinstance(outcome, ConcurrencyError) for outcome in outcomes] == [not is_first] * 2

    async def test_what_a_decision_depends_on_comes_with_its_condition(self, store: AbstractEventStore) -> None:
        """In one read: it holds until something that the query selects is appended, whatever else happens."""
        await store.append("a", added("1", "2", tags=["cart:1"]))
        await store.append("b", added("3", tags=["cart:2"]))
        events, condition = await store.query_for_append(types=[ItemAdded], tags=["cart:1"])
        assert skus(events) == ["1", "2"]
        assert condition.after == 3
        await store.append("b", added("4", tags=["cart:2"]))
        await store.append("a", added("5", tags=["cart:1"]), condition=condition)
        with pytest.raises(ConcurrencyError):
            await store.append("a", added("6", tags=["cart:1"]), condition=condition)
        assert await store.query_for_append(EventQuery(tags="cart:3")) == (
            [],
            AppendCondition(EventQuery(tags="cart:3"), after=5),
        )

    async def test_scenario_course_subscriptions(self, store: AbstractEventStore) -> None:
        """A course never has more students than seats, a student never more than two courses."""
        for course, seats in (("c1", 3), ("c2", 10), ("c3", 10)):
            await store.append(course, [CourseDefined(course=course, capacity=seats, tags=(f"course:{course}",))])

        async def subscribe(student: str, course: str) -> bool:
            query = EventQuery([CourseDefined, StudentSubscribed], f"course:{course}") | EventQuery(
                StudentSubscribed, f"student:{student}"
            )
            while True:
                events, condition = await _decide(store, query)
                capacity = next(e.capacity for e in events if isinstance(e, CourseDefined))
                taken = [e for e in events if isinstance(e, StudentSubscribed)]
                if sum(e.course == course for e in taken) >= capacity or sum(e.student == student for e in taken) >= 2:
                    return False
                tags = (f"course:{course}", f"student:{student}")
                event = StudentSubscribed(student=student, course=course, tags=tags)
                try:
                    await store.append(f"{course}-{student}", [event], condition=condition)
                except ConcurrencyError:
                    continue
                return True

        wishes = [(f"s{n}", course) for n in range(6) for course in ("c1", "c2", "c3")]
        granted = await asyncio.gather(*(subscribe(*wish) for wish in wishes))
        subscribed = await store.query(StudentSubscribed)
        assert len(subscribed) == sum(granted)
        assert len([e for e in subscribed if e.course == "c1"]) <= 3
        for n in range(6):
            assert len([e for e in subscribed if e.student == f"s{n}"]) == 2

    async def test_scenario_unique_username(self, store: AbstractEventStore) -> None:
        """Of several registrations of one name exactly one succeeds; other names are not in the way."""

        async def register(username: str, account: int) -> bool:
            tags = (f"username:{username}",)
            events, condition = await _decide(store, EventQuery(AccountRegistered, tags))
            if events:
                return False
            try:
                event = AccountRegistered(username=username, tags=tags)
                await store.append(f"account-{account}", [event], 0, condition=condition)
            except ConcurrencyError:
                return False
            return True

        names = ["ann", "bob", "ann", "eve", "ann", "bob"]
        granted = await asyncio.gather(*(register(name, n) for n, name in enumerate(names)))
        assert sum(granted) == 3
        assert sorted(e.username for e in await store.query(AccountRegistered)) == ["ann", "bob", "eve"]

    async def test_scenario_idempotency_token(self, store: AbstractEventStore) -> None:
        """An order sent twice with one token is placed once."""
        condition = AppendCondition(EventQuery(OrderPlaced, "token:t1"))
        await store.append("o1", [OrderPlaced(order="o1", tags=("token:t1",))], condition=condition)
        with pytest.raises(ConcurrencyError):
            await store.append("o2", [OrderPlaced(order="o2", tags=("token:t1",))], condition=condition)
        other = AppendCondition(EventQuery(OrderPlaced, "token:t2"))
        await store.append("o3", [OrderPlaced(order="o3", tags=("token:t2",))], condition=other)

    async def test_scenario_opt_in_token(self, store: AbstractEventStore) -> None:
        """A confirmation needs an initiation with the same token and works once."""

        async def confirm(token: str) -> bool:
            query = EventQuery([SignUpInitiated, SignUpConfirmed], f"otp:{token}")
            events, condition = await _decide(store, query)
            if [type(event) for event in events] != [SignUpInitiated]:
                return False
            event = SignUpConfirmed(email=events[0].email, tags=(f"otp:{token}",))
            try:
                await store.append(f"signup-{token}", [event], condition=condition)
            except ConcurrencyError:
                return False
            return True

        assert not await confirm("123")
        await store.append("signup-123", [SignUpInitiated(email="a@b.example", tags=("otp:123",))])
        assert sum(await asyncio.gather(*(confirm("123") for _ in range(5)))) == 1
        assert not await confirm("123")

    async def test_scenario_dynamic_price(self, store: AbstractEventStore) -> None:
        """An order at a shown price fails if that product's price changed; another product's change is no matter."""
        for product, price in (("p1", 10), ("p2", 20)):
            await store.append(product, [PriceChanged(product=product, price=price, tags=(f"product:{product}",))])
        shown = await store.head()
        await store.append("p2", [PriceChanged(product="p2", price=25, tags=("product:p2",))])

        async def order(product: str, price: int) -> int:
            condition = AppendCondition(EventQuery(PriceChanged, f"product:{product}"), after=shown)
            event = ProductOrdered(product=product, price=price, tags=(f"product:{product}",))
            return await store.append(f"order-{product}", [event], condition=condition)

        assert await order("p1", 10) == 1
        with pytest.raises(ConcurrencyError):
            await order("p2", 20)

    async def test_scenario_invoice_numbers_without_gap(self, store: AbstractEventStore) -> None:
        """Concurrent writers number their invoices 1, 2, 3, … although each has its own stream."""

        async def create(n: int) -> None:
            while True:
                position = await store.head()
                created = await store.query(InvoiceCreated)
                number = created[-1].number + 1 if created else 1
                try:
                    condition = AppendCondition(EventQuery(InvoiceCreated), after=position)
                    await store.append(f"invoice-{n}", [InvoiceCreated(number=number)], condition=condition)
                except ConcurrencyError:
                    continue
                return

        await asyncio.gather(*(create(n) for n in range(12)))
        assert [event.number for event in await store.query(InvoiceCreated)] == list(range(1, 13))
