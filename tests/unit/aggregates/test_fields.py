"""Declaring and constructing aggregates, entities and value objects."""

from __future__ import annotations

import copy
import dataclasses as dc
import pickle
from decimal import Decimal
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from pydantic import Field

from lexigram.domain import Entity as FrameworkEntity
from lexigram.domain import ValueObject as FrameworkValueObject
from lexigram.events import AggregateRoot, Entity, EventValidationError, ValueObject
from lexigram.events.aggregates.entity import VersionedEntity
from lexigram.events.aggregates.factory import empty_aggregate
from lexigram.events.aggregates.value_object import SingleValueObject
from tests.unit.aggregates.domain import ItemAdded, Line, Money, Order


def test_annotations_are_fields() -> None:
    """Plain defaults, pydantic's `Field` and dataclasses' `field` work without any decorator."""

    class Basket(AggregateRoot):
        limit: ClassVar[int] = 10
        status: str = "draft"
        items: list[str] = Field(default_factory=list)
        flags: list[str] = dc.field(default_factory=lambda: ["a"])
        count: int = Field(0, ge=0)

    basket = Basket()
    assert (basket.status, basket.items, basket.flags, basket.count) == ("draft", [], ["a"], 0)
    Basket.limit = 11
    assert basket.limit == Basket().limit == 11, "a class variable stays with the class"
    assert [f.name for f in dc.fields(Basket) if f.name != "_pending_events"] == [
        "id",
        "status",
        "items",
        "flags",
        "count",
    ]
    with pytest.raises(ValueError, match="count"):
        Basket(count=-1)


def test_mutable_defaults_are_copied_per_instance() -> None:
    """A list written as a default does not leak from one aggregate to the next, nested lists included."""

    class Careless(AggregateRoot):
        items: list[str] = []
        table: dict[str, list[int]] = {"a": [1]}
        price: Money = Money(1)

    one, other = Careless(), Careless()
    one.items.append("x")
    one.table["a"].append(2)
    assert (other.items, other.table, Careless().items) == ([], {"a": [1]}, [])


def test_arguments_by_position_and_keyword() -> None:
    """The id comes first, then the fields in order of declaration."""
    order = Order("o-1", "shipped", labels={"x"})
    assert (order.id, order.status, order.labels) == ("o-1", "shipped", {"x"})


def test_wrong_arguments_are_named() -> None:
    """Missing, unknown, doubled and superfluous arguments raise TypeError before anything is created."""

    class Needy(AggregateRoot):
        owner: str
        size: int = 1

    with pytest.raises(TypeError, match="missing required arguments: owner"):
        Needy()
    with pytest.raises(TypeError, match="unexpected arguments: colour, shape"):
        Needy(owner="a", shape=1, colour=2)
    with pytest.raises(TypeError, match="multiple values for owner"):
        Needy("id", "a", owner="b")
    with pytest.raises(TypeError, match="at most 3 positional"):
        Needy(1, 2, 3, 4)


def test_the_id_is_kept_as_given_or_made() -> None:
    """UUID, str and int ids stay; without one there is a new UUID each time."""
    uid = uuid4()
    assert Order(id=uid).id is uid
    assert Order(id=str(uid)).id == str(uid)
    assert Order().id != Order().id
    assert isinstance(Order().id, UUID)


def test_a_dataclass_decorator_on_top_changes_nothing() -> None:
    """`@dataclass` and `@dataclass(init=False)` may be written above an aggregate."""

    @dc.dataclass
    class Plain(AggregateRoot):
        items: list[int] = Field(default_factory=list)  # noqa: RUF009
        status: str = "new"

    @dc.dataclass(init=False, eq=False)
    class Framework(AggregateRoot):
        items: list[int] = Field(default_factory=list)  # noqa: RUF009

    plain = Plain(status="old")
    plain.items.append(1)
    assert (plain.status, Plain().items, Framework(items=[2]).items) == ("old", [], [2])
    assert isinstance(plain.id, UUID)
    assert empty_aggregate(Plain, "p").id == "p"


def test_the_version_cannot_be_a_field() -> None:
    """The aggregate counts its events itself; a field of that name would hide the number."""
    with pytest.raises(EventValidationError) as caught:

        class Counting(AggregateRoot):
            version: int = 0

    assert caught.value.field == "version"


def test_inheritance_adds_fields() -> None:
    """A subclass has its bases' fields first and can change a default."""

    class Express(Order):
        days: int = 1
        status: str = "express"

    express = Express("e", days=2)
    assert (express.status, express.days, express.lines) == ("express", 2, [])
    assert Order().status == "draft"


def test_a_constructor_of_ones_own_works() -> None:
    """`super().__init__(id=…)` and attributes that are not annotated."""

    class Handmade(AggregateRoot):
        def __init__(self, handmade_id: str) -> None:
            super().__init__(id=handmade_id)
            self.parts: list[str] = []

    assert Handmade("h").parts == []
    empty = empty_aggregate(Handmade, "e")
    assert (empty.id, empty.parts, empty.version) == ("e", [], 0)


def test_empty_aggregates_of_every_kind_of_constructor() -> None:
    """A repository can make an aggregate without history whatever its constructor wants."""

    class Optional_(AggregateRoot):
        def __init__(self, name: str = "n", id: object = None) -> None:
            super().__init__(id=id)
            self.name = name

    class Demanding(AggregateRoot):
        size: int = 3

        def __init__(self, owner: str, colour: str) -> None:
            super().__init__()
            self.owner = owner

    class NoArguments(AggregateRoot):
        def __init__(self) -> None:
            super().__init__()
            self.name = "x"

    class Emitting(AggregateRoot):
        allow_unhandled_events = True

        def __init__(self, id: object = None) -> None:
            super().__init__(id=id)
            self.add_event(Order.__annotations__ and _noted())

    class Required(AggregateRoot):
        owner: str
        size: int = 2

    class Finished(AggregateRoot):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.cache: dict[str, int] = {}

    assert (empty_aggregate(Optional_, "1").name, empty_aggregate(Optional_, "1").id) == ("n", "1")
    assert (empty_aggregate(Demanding, "2").size, empty_aggregate(Demanding, "2").id) == (3, "2")
    assert (empty_aggregate(NoArguments, "3").name, empty_aggregate(NoArguments, "3").id) == ("x", "3")
    assert empty_aggregate(Emitting, "4").version == 0
    assert (empty_aggregate(Required, "5").size, hasattr(empty_aggregate(Required, "5"), "owner")) == (2, False)
    assert empty_aggregate(Finished, "6").cache == {}


def _noted() -> object:
    from tests.unit.aggregates.domain import Unheard

    return Unheard()


def test_framework_validators_apply() -> None:
    """A class with validators of the framework is constructed through them."""
    from lexigram.validation import field_validator

    class Checked(AggregateRoot):
        name: str = ""

        @field_validator("name")
        @classmethod
        def strip(cls, value: str) -> str:
            return value.strip()

    assert Checked(name=" x ").name == "x"
    assert isinstance(Checked().id, UUID)


def test_entities_have_identity() -> None:
    """Equal by class and id, mutable, with a new id if none is given."""
    line = Line("l", "apple", 1, Money(1))
    assert line == Line("l", "pear", 9, Money(2))
    assert line != Line("m", "apple", 1, Money(1))
    line.quantity = 4
    assert line.quantity == 4
    assert isinstance(Line(sku="a", quantity=1, price=Money(1)).id, UUID)
    assert isinstance(line, FrameworkEntity)


def test_touching_and_versioning_entities() -> None:
    """`touch` notes the time, `increment_version` counts and touches."""

    class Part(VersionedEntity):
        name: str = ""

    part = Part("p", "wheel")
    assert (part.updated_at, part.version, part.name) == (None, 0, "wheel")
    part.increment_version()
    assert part.version == 1
    assert part.updated_at is not None
    assert part.updated_at.tzinfo is not None
    plain = Line("l", "a", 1, Money(1))
    plain.touch()
    assert plain.updated_at is not None


def test_value_objects_are_immutable_values() -> None:
    """Equal and hashed by class and fields; assignment and deletion raise."""

    class Price(ValueObject):
        amount: int
        currency: str = "EUR"

    class Weight(ValueObject):
        amount: int
        currency: str = "EUR"

    price = Price(5)
    assert price == Price(amount=5, currency="EUR")
    assert price != Weight(5)
    assert len({Price(5), Price(5), Price(6), Weight(5)}) == 3
    assert price.with_changes(amount=6) == Price(6)
    assert repr(price) == "Price(amount=5, currency='EUR')"
    assert isinstance(price, FrameworkValueObject)
    with pytest.raises(dc.FrozenInstanceError):
        price.amount = 6
    with pytest.raises(dc.FrozenInstanceError):
        del price.amount
    with pytest.raises(TypeError, match="missing required arguments: amount"):
        Price()


def test_value_objects_may_be_frozen_dataclasses() -> None:
    """`@dataclass(frozen=True)` on top works, below another one too, and what is below stays immutable and complete."""

    @dc.dataclass(frozen=True)
    class Price(ValueObject):
        amount: int
        currency: str = "EUR"

        def __post_init__(self) -> None:
            if self.amount < 0:
                raise ValueError("negative")

    @dc.dataclass(frozen=True)
    class Taxed(Price):
        rate: int = 20

    class Named(Price):
        name: str = ""

    assert Price(5) == Price(amount=5, currency="EUR") != Price(6)
    assert hash(Taxed(5, rate=7)) == hash(Taxed(5, "EUR", 7))
    assert Named(5, name="a") == Named(5, "EUR", "a") != Named(5, name="b")
    assert len({Named(5, name="a"), Named(5, name="b")}) == 2
    assert repr(Named(5, name="a")) == "Named(amount=5, currency='EUR', name='a')"
    for price in (Price(5), Taxed(5), Named(5)):
        for name in ("amount", "name"):
            with pytest.raises(dc.FrozenInstanceError):
                setattr(price, name, 6)
    with pytest.raises(ValueError, match="negative"):
        Named(-1, name="a")


def test_plain_classes_below_a_dataclass_take_their_own_fields() -> None:
    """An aggregate or entity with `@dataclass` on it can be inherited from without; equality is by id again."""

    @dc.dataclass
    class Account(AggregateRoot):
        balance: int = 0

    class Savings(Account):
        rate: int
        notes: list[str] = Field(default_factory=list)

    @dc.dataclass
    class Part(Entity):
        size: int = 0

    class Screw(Part):
        thread: str = "M3"

    savings = Savings(id="a", balance=5, rate=2)
    assert (savings.id, savings.balance, savings.rate, savings.notes) == ("a", 5, 2, [])
    with pytest.raises(TypeError, match="missing required arguments: rate"):
        Savings(id="a")
    assert Screw(id="s", size=1, thread="M4") == Screw(id="s")
    assert len({Screw(id="s", size=1), Screw(id="s")}) == 1


def test_model_copies_keep_what_is_in_them() -> None:
    """Nested entities and value objects stay such; an aggregate's copy has its version and pending events of its own."""

    class Price(ValueObject):
        amount: Decimal

        def __post_init__(self) -> None:
            if self.amount < 0:
                raise ValueError("negative")

    class Position(Entity):
        price: Price

    class Cart(AggregateRoot):
        lines: list[Position] = Field(default_factory=list)
        total: Decimal = Decimal(0)

        def _handle_item_added(self, event: ItemAdded) -> None:
            self.total += event.price

    line = Position(id="l", price=Price(Decimal("1.5")))
    assert type(line.model_copy().price) is Price
    assert line.model_copy(update={"price": Price(Decimal(2))}).price.amount == 2
    cart = Cart(id="c", lines=[line])
    cart._apply(ItemAdded(sku="a"))
    for copied in (cart.model_copy(), cart.model_copy(deep=True)):
        assert (copied, copied.version, copied.total, type(copied.lines[0])) == (cart, 1, Decimal("1.00"), Position)
        copied._apply(ItemAdded(sku="b"))
        assert (copied.version, cart.version) == (2, 1)
    assert cart.model_dump().keys() == {"id", "lines", "total"}
    assert Cart.model_validate(cart.model_dump(exclude={"lines"})).total == Decimal("1.00")
    with pytest.raises(TypeError, match="has no field colour"):
        cart.model_copy(update={"colour": "red"})
    with pytest.raises(ValueError, match="negative"):
        Price(Decimal(1)).model_copy(update={"amount": Decimal(-1)})


def test_value_objects_with_containers_have_a_hash() -> None:
    """Lists, dictionaries and sets may be fields, nested ones too."""

    class Route(ValueObject):
        stops: list[str]
        times: dict[str, list[int]] = Field(default_factory=dict)
        tags: set[str] = Field(default_factory=set)

    one, same = Route(["a"], {"a": [1]}, {"x"}), Route(["a"], {"a": [1]}, {"x"})
    assert one == same
    assert hash(one) == hash(same)
    assert one != Route(["b"])


def test_value_objects_can_reject_values() -> None:
    """`__post_init__` is the place for checks."""

    class Percent(ValueObject):
        value: int

        def __post_init__(self) -> None:
            if not 0 <= self.value <= 100:
                raise ValueError("0 to 100")

    with pytest.raises(ValueError, match="0 to 100"):
        Percent(101)


def test_single_value_objects_wrap_one_value() -> None:
    """`value`, `str()` and equality."""

    class Email(SingleValueObject[str]):
        pass

    assert Email("a@b") == Email(value="a@b")
    assert (str(Email("a@b")), Email("a@b").value) == ("a@b", "a@b")
    assert len({Email("x"), Email("x")}) == 1


def test_copies_and_pickles() -> None:
    """deepcopy and pickle keep state, version and pending events."""
    order = Order("o")
    order.add("apple")
    for twin in (copy.deepcopy(order), pickle.loads(pickle.dumps(order))):
        assert (twin.lines[0].sku, twin.version, twin.pull_events()) == ("apple", 1, order.pull_events())
        twin.lines.clear()
        assert order.lines
    assert pickle.loads(pickle.dumps(Money(1))) == Money(1)
