"""Classes and values of every kind the codec promises to keep, and a comparison that looks at types too."""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar, Union
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr
from typing_extensions import TypeAliasType

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.domain.models.value_object import ValueObject as FrameworkValueObject
from lexigram.events import DomainEvent, Event, EventCodec
from lexigram.events.messages import shapes

JSON = EventCodec()
BINARY = EventCodec(format="binary")
both = pytest.mark.parametrize("codec", [JSON, BINARY], ids=["json", "binary"])

T = TypeVar("T")
U = TypeVar("U", bound=UUID)
OrderId = NewType("OrderId", UUID)
A_UUID = UUID("0190f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506")


Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
JsonAlias = TypeAliasType("JsonAlias", dict[str, "JsonAlias"] | list["JsonAlias"] | str | int | None)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


class Number(enum.IntEnum):
    ONE = 1
    TEN = 10


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Odd(enum.Enum):
    """Values that are not simple."""

    PAIR = (1, "a")
    NOT_A_NUMBER = float("nan")
    NOTHING = None
    THING = object()
    TRUE = True


class Text(str):
    __slots__ = ()


class Cents(int):
    pass


class Price(Decimal):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: Decimal = Decimal("0.0")


class Options(TypedDict):
    name: str
    owner: UUID
    limit: NotRequired[Decimal]


@dataclass(frozen=True, slots=True)
class Item:
    sku: str
    price: Decimal
    child: Item | None = None


@dataclass
class Basket:
    items: list[Item]
    owner: UUID | None = None
    total: Decimal = field(init=False, default=Decimal(0))

    def __post_init__(self) -> None:
        self.total = sum((item.price for item in self.items), Decimal(0))
        self.index = {item.sku: position for position, item in enumerate(self.items)}


@dataclass(frozen=True)
class Box(Generic[T]):
    content: T


@dataclass(frozen=True)
class UuidBox(Box[UUID]):
    label: str = ""


class Card(BaseModel):
    number: str
    owner: UUID
    valid: date = date(2030, 1, 1)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 0
    _secret: Decimal = PrivateAttr(default=Decimal(1))


class Money(FrameworkValueObject):
    amount: Decimal
    currency: str = "EUR"


class Noted(DomainEvent):
    text: str


class Wrapped(DomainEvent, Generic[T]):
    content: T


class UuidWrapped(Wrapped[UUID]):
    label: str = ""


class PlainContract(ContractEvent):
    user_id: UUID
    score: Decimal


@dataclass(frozen=True, init=False)
class DecoratedContract(ContractEvent):
    user_id: UUID = A_UUID
    tags: tuple[str, ...] = ()


BERLIN = ZoneInfo("Europe/Berlin")
MOMENTS = [
    datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    datetime(2026, 1, 2, 3, 4, 5),
    datetime(1, 1, 1),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2026, 10, 25, 2, 30, fold=1),
    datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=3, microseconds=4))),
]
TIMES = [
    time(),
    time(23, 59, 59, 1),
    time(1, 2, tzinfo=UTC),
    time(1, 2, fold=1),
    time(1, 2, tzinfo=timezone(timedelta(hours=2))),
]
DURATIONS = [
    timedelta(),
    timedelta.min,
    timedelta.max,
    timedelta(days=-1, microseconds=1),
    timedelta(hours=5, microseconds=7),
]
TEXTS = [
    "",
    "plain",
    'quote " back \\ slash / \n\t\r\b\f\0\x1f',
    "ümläut ✓ 😀",
    "\ud800 lone \udfff",
    "$type",
    "\u2028",
]
INTS = [0, -1, 2**31, 2**63 - 1, -(2**63), 2**63, -(10**40), 10**2000, 1 << 20_000, -(1 << 20_000)]
FLOATS = [
    0.0,
    -0.0,
    1.5,
    -2.5e-300,
    1e15,
    1e16,
    1.7976931348623157e308,
    5e-324,
    float("inf"),
    float("-inf"),
    float("nan"),
]
DECIMALS = [
    Decimal(t)
    for t in ("0", "-0.00", "1.50", "1E+30", "-1E-30", "NaN", "Infinity", "-Infinity", "sNaN", "123456789.123456789")
]
TYPED: list[tuple[Any, list[Any]]] = [
    (bool, [True, False]),
    (int, INTS),
    (float, [*FLOATS, 3, -(10**15)]),
    (str, TEXTS),
    (bytes, [b"", b"\x00\xff", bytes(range(256))]),
    (UUID, [A_UUID, UUID(int=0), UUID(int=2**128 - 1)]),
    (datetime, MOMENTS),
    (date, [date.min, date.max, date(2024, 2, 29)]),
    (time, TIMES),
    (timedelta, DURATIONS),
    (Decimal, DECIMALS),
    (Colour, list(Colour)),
    (Word, list(Word)),
    (Number, list(Number)),
    (Access, [Access.READ, Access.READ | Access.WRITE, Access(0)]),
    (Odd, list(Odd)),
    (list[UUID], [[], [A_UUID]]),
    (tuple[int, str, UUID], [(1, "a", A_UUID)]),
    (tuple[Decimal, ...], [(), (Decimal("1.0"),)]),
    (tuple[()], [()]),
    (set[int], [set(), {1, 2}]),
    (frozenset[UUID], [frozenset(), frozenset((A_UUID,))]),
    (dict[str, Decimal], [{}, {"a": Decimal(1), "$type": Decimal(2)}, {"\ud800": Decimal(0)}]),
    (dict[UUID, date], [{A_UUID: date(2026, 1, 1)}]),
    (dict[int, str], [{1: "a", -5: "b"}, {2**70: "big"}]),
    (dict[date, int], [{date(2026, 1, 1): 1}]),
    (dict[datetime, int], [{datetime(2026, 1, 1, tzinfo=UTC): 1, datetime(2026, 1, 1): 2}]),
    (dict[Colour, int], [{Colour.RED: 1}]),
    (dict[Number, int], [{Number.ONE: 1}]),
    (dict[tuple[int, int], str], [{(1, 2): "x"}]),
    (dict[bool, str], [{True: "x"}]),
    (UUID | str, [A_UUID, "acc-1", str(A_UUID), ""]),
    (UUID | None, [A_UUID, None]),
    (Optional[Union[int, str]], [1, "1", None]),  # noqa: UP007, UP045
    (int | float, [1, 1.0, 1e20, 10**20]),
    (bool | int, [True, 1, 0, False]),
    (datetime | date, [datetime(2026, 1, 1), date(2026, 1, 1)]),
    (Colour | str, [Colour.RED, "red", "other"]),
    (Word | Number, [Word.YES, Number.TEN]),
    (Item | Card, [Item("a", Decimal(1)), Card(number="1", owner=A_UUID)]),
    (dict[str, int] | Item, [{"sku": 1}, Item("a", Decimal(1))]),
    (list[int] | list[str], [[1], ["a"], []]),
    (list[UUID] | tuple[UUID, ...] | set[UUID], [[A_UUID], (A_UUID,), {A_UUID}]),
    (list[int | str | None], [[1, "a", None]]),
    (float | Decimal, [1e20, 2.0, Decimal("2.0"), float("nan")]),
    (Literal["a", 1, Colour.RED], ["a", 1, Colour.RED]),
    (OrderId, [A_UUID]),
    (Point, [Point(1), Point(2, Decimal("1.10"))]),
    (Options, [{"name": "x", "owner": A_UUID}, {"name": "x", "owner": A_UUID, "limit": Decimal(3), "more": A_UUID}]),
    (Item, [Item("a", Decimal("1.5"), Item("b", Decimal(2)))]),
    (Basket, [Basket([Item("a", Decimal(1)), Item("b", Decimal("2.5"))], A_UUID)]),
    (Box[Decimal], [Box(Decimal("1.0"))]),
    (Box[list[UUID]], [Box([A_UUID])]),
    (UuidBox, [UuidBox(A_UUID, "x")]),
    (Card, [Card(number="1", owner=A_UUID), Card(number="2", owner=A_UUID, valid=date(2031, 1, 1))]),
    (Open, [Open(a=1), Open(a=2, b=A_UUID, c=[Decimal(1)])]),
    (Money, [Money(amount=Decimal("1.10")), Money(amount=Decimal(0), currency="USD")]),
    (Noted, [Noted(text="x", aggregate_id=A_UUID, tags=("a", "b"), metadata={"k": A_UUID})]),
    (UuidWrapped, [UuidWrapped(content=A_UUID, label="l")]),
    (Json, [None, "x", {"a": [1, "x", {"b": None, "c": [1.5, True]}]}, [[[A_UUID]]]]),
    (JsonAlias, [{"a": [1, {"b": None}]}]),
]
"""Annotations with values of them."""

UNTYPED: list[Any] = [value for _, values in TYPED for value in values]
UNTYPED += [
    Text("abc"),
    Cents(5),
    Price("1.5"),
    OrderedDict([(A_UUID, 1), ("b", 2)]),
    deque([1, A_UUID], maxlen=5),
    {"a": {1: (A_UUID, {"x"})}, "$type": [b""]},
    [[[]], {}, ()],
    {None: None, 1.5: True},
    PlainContract(user_id=A_UUID, score=Decimal(1)),
]
"""Values to store without any annotation."""


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal and of the same types all the way down, zones and NaN included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, enum.Enum):
        return left is right
    if isinstance(left, float | Decimal):
        return str(left) == str(right)
    if isinstance(left, datetime | time):
        return str(left) == str(right) and left.fold == right.fold and _zone(left) == _zone(right)
    if isinstance(left, dict):
        pairs = zip(left.items(), right.items(), strict=True)
        return len(left) == len(right) and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(left, list | tuple | deque):
        limits = getattr(left, "maxlen", None) == getattr(right, "maxlen", None)
        return limits and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, set | frozenset):
        return left == right and sorted(map(repr, left)) == sorted(map(repr, right))
    if isinstance(left, BaseModel):
        parts = ("__dict__", "__pydantic_extra__", "__pydantic_private__", "__pydantic_fields_set__")
        return all(same(getattr(left, part), getattr(right, part)) for part in parts)
    if isinstance(left, ContractEvent):
        return _event_values(left).keys() == _event_values(right).keys() and all(
            same(value, _event_values(right)[name]) for name, value in _event_values(left).items()
        )
    if is_dataclass(left) and not isinstance(left, type):
        names = {f.name for f in fields(left)} | set(getattr(left, "__dict__", ()))
        return all(same(getattr(left, name), getattr(right, name)) for name in names)
    return bool(left == right)


def _zone(value: datetime | time) -> Any:
    zone = value.tzinfo
    return zone.key if isinstance(zone, ZoneInfo) else (type(zone), zone and zone.utcoffset(None), value.tzname())


def _event_values(event: Any) -> dict[str, Any]:
    skipped = {"version", "sequence_number"}
    names = set(getattr(event, "__dict__", ()) or ()) | set(shapes.CONTRACT_META_NAMES)
    if isinstance(event, DomainEvent):
        record = shapes.record_for(type(event))
        names |= set(shapes.META_NAMES) | {f.name for f in (record.fields if record else ())}
    return {name: getattr(event, name) for name in sorted(names - skipped) if hasattr(event, name)}


def event_class(**annotations: Any) -> Any:
    """Return a new event class with these fields."""
    return type("Sample", (DomainEvent,), {"__annotations__": annotations, "__module__": __name__})


def ad_hoc(**values: Any) -> Event:
    """Return an event with attributes of no declared type."""
    return Event(**values)


def there_and_back(codec: EventCodec, event: Any) -> Any:
    """Return what a store would read back at version 3, position 7."""
    row = codec.encode(event)
    return codec.decode(row.type_name, row.event_type, row.payload, 3, 7)
