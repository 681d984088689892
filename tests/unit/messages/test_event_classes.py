"""Everything Python classes can be combined with: dataclasses, generics, ABCs, mixins, slots, redefinition."""

from __future__ import annotations

import abc
import dataclasses as dc
import inspect
import threading
import typing
import weakref
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar

import pytest
from pydantic import Field

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import DomainEvent, Event
from lexigram.events.exceptions import EventValidationError
from lexigram.events.messages.context import message_context
from lexigram.events.middleware.validation import ValidationMiddleware

T = TypeVar("T")


class Base(DomainEvent):
    user_id: str
    email: str = ""


@dataclass(frozen=True)
class Decorated(DomainEvent):
    user_id: str
    email: str = "x@y"
    notes: list[str] = field(default_factory=list)


def test_a_frozen_dataclass_on_top_keeps_positional_arguments_and_defaults() -> None:
    """The decorator's own rules hold, at our speed."""
    event = Decorated("1", "z", notes=["n"])
    assert (event.user_id, event.email, event.notes) == ("1", "z", ["n"])
    assert Decorated(user_id="1").notes is not Decorated(user_id="1").notes
    assert Decorated.__dataclass_fields__["email"].default == "x@y"
    with pytest.raises(TypeError, match="at most 3 positional"):
        Decorated("1", "2", [], "4")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="multiple values for argument 'user_id'"):
        Decorated("1", user_id="2")  # type: ignore[misc]
    with pytest.raises(dc.FrozenInstanceError):
        event.email = "q"  # type: ignore[misc]


def test_pydantic_fields_mean_what_they_say() -> None:
    """Default, factory and required, decorated or not, inherited too."""

    class Plain(DomainEvent):
        amount: int = Field(gt=0)
        notes: list[str] = Field(default_factory=list, description="free text")
        currency: str = Field("EUR")

    @dataclass(frozen=True)
    class OnTop(DomainEvent):
        amount: int = Field(gt=0)
        notes: list[str] = Field(default_factory=list)  # noqa: RUF009 - what users write
        currency: str = Field("EUR")

    class Heir(Plain):
        reason: str | None = Field(default=None)

    for cls in (Plain, OnTop, Heir):
        event = cls(amount=1)
        assert (event.amount, event.notes, event.currency) == (1, [], "EUR")
        assert cls(amount=1).notes is not event.notes
        with pytest.raises(TypeError, match="amount"):
            cls()
    assert Heir(amount=1).reason is None


async def refuse_what_is_invalid(message: Any) -> None:
    async def handle(_: Any) -> None:
        """Do nothing."""

    await ValidationMiddleware()(message, handle)


async def test_annotated_fields_mean_what_they_say() -> None:
    """`Annotated[int, Field(gt=0)]` is required unless the body or the `Field` has a default, and is checked alike."""

    class Plain(DomainEvent):
        amount: Annotated[int, Field(gt=0)]
        rate: Annotated[int, Field(ge=1), Field(le=9)] = 5
        notes: Annotated[list[str], Field(default_factory=list, max_length=2)]
        unit: Annotated[int, "anything"] = 1
        limit: Annotated[int, Field(lt=100)] | None = None

    @dataclass(frozen=True)
    class OnTop(DomainEvent):
        amount: Annotated[int, Field(gt=0)]
        rate: Annotated[int, Field(ge=1), Field(le=9)] = 5
        notes: Annotated[list[str], Field(default_factory=list, max_length=2)]
        unit: Annotated[int, "anything"] = 1
        limit: Annotated[int, Field(lt=100)] | None = None

    for cls in (Plain, OnTop):
        event = cls(amount=1)
        assert (event.amount, event.rate, event.notes, event.unit, event.limit) == (1, 5, [], 1, None)
        assert cls(amount=1).notes is not event.notes
        with pytest.raises(TypeError, match="amount"):
            cls()
        await refuse_what_is_invalid(cls(amount=1, rate=9, notes=["a", "b"], limit=99))
        for field_name, value in (("amount", 0), ("rate", 0), ("rate", 10), ("notes", ["a"] * 3), ("limit", 100)):
            with pytest.raises(EventValidationError, match=field_name):
                await refuse_what_is_invalid(cls(**{"amount": 1, field_name: value}))


def test_a_keyword_only_dataclass_takes_no_positional_arguments() -> None:
    """`kw_only=True` is honoured."""

    @dataclass(frozen=True, kw_only=True)
    class KeywordOnly(DomainEvent):
        a: int

    assert KeywordOnly(a=1).a == 1
    with pytest.raises(TypeError):
        KeywordOnly(1)  # type: ignore[misc]


def test_a_dataclass_with_slots_works() -> None:
    """Slots hold the fields, metadata stays where it is; inheritance goes on from there."""

    @dataclass(frozen=True, slots=True)
    class Slotted(DomainEvent):
        a: int = 4
        b: list[int] = field(default_factory=list)

    class Below(Slotted):
        c: int = 5

    event = Slotted(2)
    assert (event.a, event.b, event.version, event.event_type) == (2, [], 0, "Slotted")
    below = Below(a=1, c=7)
    assert (below.a, below.b, below.c) == (1, [], 7)
    assert below == below.with_version(3)


def test_a_slotted_class_may_derive_from_one_without_slots() -> None:
    """The parent's fields move into slots of the subclass."""

    @dataclass(frozen=True, slots=True)
    class Slotted(Base):
        c: int = 1

    event = Slotted(user_id="u", email="e", c=2)
    assert (event.user_id, event.email, event.c) == ("u", "e", 2)
    assert Base.user_id.__get__(event) is not None  # type: ignore[attr-defined]


def test_not_frozen_dataclasses_are_refused() -> None:
    """Immutability cannot be taken away."""
    with pytest.raises(TypeError, match="non-frozen"):

        @dataclass
        class Mutable(DomainEvent):
            a: int = 0


def test_subclasses_add_fields_and_change_defaults() -> None:
    """Several levels; the order of declaration does not matter to keywords."""

    class Child(Base):
        extra: int = 3

    class GrandChild(Child):
        email: str = "default@x"
        extra: int = 4

    assert (Child(user_id="a").extra, Child(user_id="a", extra=4, email="k").email) == (3, "k")
    event = GrandChild(user_id="a")
    assert (event.user_id, event.email, event.extra) == ("a", "default@x", 4)


def test_redeclaring_a_field_without_default_makes_it_required() -> None:
    """Whether or not the parent was used before."""

    class Strict(Base):
        email: str

    with pytest.raises(TypeError, match="'email'"):
        Strict(user_id="u")


def test_diamonds_have_every_field_once() -> None:
    """Fields of both sides are there, and values do not mix."""

    class Left(DomainEvent):
        a: int

    class Right(DomainEvent):
        c: int

    class Both(Left, Right):
        d: int = 0

    event = Both(a=1, c=2, d=3)
    assert (event.a, event.c, event.d) == (1, 2, 3)
    assert event._with(c=9).c == 9


def test_mixins_bring_methods_and_dataclass_fields() -> None:
    """A plain mixin and a dataclass mixin, before or after the event base."""

    class Methods:
        def who(self) -> str:
            return self.user_id  # type: ignore[attr-defined, no-any-return]

    @dataclass(frozen=True)
    class Audited:
        audited_by: str = "system"

    class First(Audited, Methods, Base):
        n: int = 1

    class Last(Base, Audited):
        n: int = 1

    assert First(user_id="u").who() == "u"
    for cls in (First, Last):
        assert cls(user_id="u").audited_by == "system"
        event = cls(user_id="u", audited_by="me")
        assert event.audited_by == "me"
        assert event == event.with_version(2)
        assert hash(event) == hash(event.with_version(2))
        with pytest.raises(dc.FrozenInstanceError):
            event.n = 2  # type: ignore[misc]


def test_generic_events_can_be_parametrised() -> None:
    """Construction through an alias and subclassing a parametrised base."""

    class Changed(DomainEvent, Generic[T]):
        value: T

    class Counted(Changed[int]):
        other: str = "o"

    assert Changed(value=1).value == 1
    assert Changed[int](value=2).value == 2
    assert (Counted(value=3).value, Counted(value=3).other) == (3, "o")


def test_abstract_events_cannot_be_constructed() -> None:
    """ABCs work; missing methods are named; complete subclasses construct."""

    class Describes(abc.ABC):
        @abc.abstractmethod
        def describe(self) -> str: ...

    class Abstract(DomainEvent, Describes):
        n: int = 1

    class Concrete(Abstract):
        def describe(self) -> str:
            return str(self.n)

    assert Concrete(n=5).describe() == "5"
    assert isinstance(Concrete(), Describes)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"abstract class Abstract.*describe"):
            Abstract()  # type: ignore[abstract]


def test_protocols_can_be_implemented_explicitly() -> None:
    """A Protocol among the bases changes nothing."""

    class Sized(Protocol):
        def size(self) -> int: ...

    class Filled(DomainEvent, Sized):
        n: int = 2

        def size(self) -> int:
            return self.n

    assert Filled(n=9).size() == 9


def test_class_variables_are_not_fields() -> None:
    """Plain, quoted and Annotated annotations are told apart."""

    class Marked(DomainEvent):
        topic: ClassVar[str] = "users"
        other: typing.ClassVar = 1
        note: Annotated[str, "shown"] = "n"

    event = Marked(note="x")
    assert (Marked.topic, event.topic, event.note) == ("users", "users", "x")
    with pytest.raises(TypeError, match="'topic'"):
        Marked(topic="t")  # type: ignore[call-arg]


def test_init_variables_reach_post_init() -> None:
    """Undecorated and decorated classes pass `InitVar` arguments on and do not keep them."""

    class Undecorated(DomainEvent):
        total: int = 0
        items: InitVar[list[int]] = ()  # type: ignore[assignment]

        def __post_init__(self, items: list[int]) -> None:
            object.__setattr__(self, "total", sum(items))

    @dataclass(frozen=True)
    class WithDecorator(DomainEvent):
        items: InitVar[list[int]]
        total: int = 0

        def __post_init__(self, items: list[int]) -> None:
            object.__setattr__(self, "total", sum(items))

    assert Undecorated(items=[1, 2]).total == 3
    assert Undecorated().total == 0
    assert WithDecorator([1, 2]).total == 3
    assert WithDecorator(items=[4]).event_id.version == 7
    with pytest.raises(TypeError, match="'items'"):
        WithDecorator()  # type: ignore[call-arg]


def test_post_init_may_check_and_change() -> None:
    """It runs after all fields are set; what it raises reaches the caller."""

    class Checked(DomainEvent):
        a: int
        seen: list[int] = field(default_factory=list)

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.a < 0:
                raise ValueError("negative")
            object.__setattr__(self, "a", self.a * 2)
            self.seen.append(self.a)

    assert (Checked(a=2).a, Checked(a=2).seen, Checked(a=2).event_type) == (4, [4], "Checked")
    with pytest.raises(ValueError, match="negative"):
        Checked(a=-1)


def test_a_class_may_have_its_own_init() -> None:
    """Positional signature of the user's, fields enforced by ours; the contract's `__init__` works too."""

    class Positional(DomainEvent):
        a: int

        def __init__(self, a: int) -> None:
            super().__init__(a=a)

    class Contract(DomainEvent):
        a: int

        def __init__(self, **values: Any) -> None:
            values.setdefault("a", 9)
            ContractEvent.__init__(self, **values)

    class Below(Positional):
        b: int = 2

    assert (Positional(5).a, Below(6).a, Below(6).b) == (5, 6, 2)
    assert Positional(5).event_id.version == 7
    assert (Contract().a, Contract(a=3).a, Contract().event_type) == (9, 3, "Contract")
    assert "a" in inspect.signature(Positional).parameters


def test_a_class_may_have_its_own_new() -> None:
    """`__new__` sees the arguments, `__init__` fills the event."""
    calls: list[Any] = []

    class Counted(DomainEvent):
        a: int

        def __new__(cls, **values: Any) -> Counted:
            calls.append(values)
            return super().__new__(cls)

    assert Counted(a=3).a == 3
    assert calls == [{"a": 3}]


def test_init_patched_later_is_used() -> None:
    """Replacing `__init__` on a class that has been used takes effect."""

    class Patched(DomainEvent):
        a: int = 1

    assert Patched().a == 1

    def init(self: Any, **values: Any) -> None:
        DomainEvent.__init__(self, a=100)

    Patched.__init__ = init  # type: ignore[method-assign]
    assert Patched(a=5).a == 100


def test_metadata_defaults_can_be_overridden_by_a_class() -> None:
    """With or without annotation; instances may still say otherwise; subclasses inherit."""

    class Second(DomainEvent):
        schema_version: int = 2
        a: int = 0

    class Named(DomainEvent):
        event_type = "user.registered"

    class Actor(DomainEvent):
        actor_id: str

    class Below(Named):
        a: int = 0

    assert (Second().schema_version, Second(schema_version=3).schema_version, Second(a=1).a) == (2, 3, 1)
    assert (Named().event_type, Named.event_type, Named(event_type="x").event_type) == (
        "user.registered",
        "user.registered",
        "x",
    )
    assert Below().event_type == "user.registered"
    assert Actor(actor_id="me").actor_id == "me"
    with pytest.raises(TypeError, match="'actor_id'"):
        Actor()


def test_tags_and_metadata_can_be_fields_of_the_user() -> None:
    """Then they are ordinary fields with the user's types, decorated or not."""

    class Tagged(DomainEvent):
        tags: list[str]
        metadata: dict[str, int] = field(default_factory=dict)

    @dataclass(frozen=True)
    class Positional(DomainEvent):
        name: str
        tags: list[str] = field(default_factory=list)

    event = Tagged(tags=["a", "a"], metadata={"x": 1})
    assert (event.tags, event.metadata) == (["a", "a"], {"x": 1})
    assert event.with_tags("t").tags == ["a", "a"]
    assert event.with_tags("t") != event
    assert Positional("n", ["t"]).tags == ["t"]
    assert dc.asdict(event)["tags"] == ["a", "a"]  # type: ignore[call-overload]


def test_a_version_that_is_no_number_is_a_field_of_the_user() -> None:
    """A store must not overwrite it."""

    class Released(DomainEvent):
        version: str

    event = Released(version="1.2.3")
    assert event.version == "1.2.3"
    with pytest.raises(TypeError, match="'version'"):
        Released()


def test_dataclass_functions_work_before_and_after_the_first_construction() -> None:
    """fields, is_dataclass, replace and asdict see every field."""

    class Fresh(DomainEvent):
        a: int
        b: dict[str, int] = field(default_factory=dict)

    before = [f.name for f in dc.fields(Fresh)]  # type: ignore[arg-type]
    event = Fresh(a=1)
    assert [f.name for f in dc.fields(Fresh)] == before  # type: ignore[arg-type]
    assert before[-2:] == ["a", "b"]
    assert dc.is_dataclass(event)
    changed = dc.replace(event, a=2, tags=("t",))  # type: ignore[type-var]
    assert (changed.a, changed.tags, changed.event_id) == (2, ("t",), event.event_id)
    assert dc.asdict(changed)["tags"] == ("t",)  # type: ignore[call-overload]
    assert dc.astuple(event)[-2:] == (1, {})  # type: ignore[call-overload]
    plain = dc.replace(Event(data=1, tags=("x",)), version=3)  # type: ignore[type-var]
    assert (plain.data, plain.tags, plain.version) == (1, ("x",), 3)  # type: ignore[attr-defined]


def test_pattern_matching_by_keyword_and_position() -> None:
    """User fields are the positional patterns."""
    match Base(user_id="u1"):
        case Decorated():
            pytest.fail("another class")
        case Base(user_id="u1", email=email):
            assert email == ""
    match Base(user_id="u1", email="e"):
        case Base(user_id, email):
            assert (user_id, email) == ("u1", "e")


def test_signatures_name_the_fields() -> None:
    """inspect.signature works for every form, before the first construction too."""

    class New(DomainEvent):
        a: int
        b: str = "x"

    @dataclass(frozen=True)
    class Positional(DomainEvent):
        a: int
        b: str = "x"

    assert str(inspect.signature(New)).startswith("(*, a: 'int', b: 'str' = 'x', event_id:")
    assert str(inspect.signature(Positional)).startswith("(a: 'int', b: 'str' = 'x', *, event_id:")
    Positional(1)
    assert str(inspect.signature(Positional)).startswith("(a: 'int', b: 'str' = 'x', *, event_id:")
    assert list(inspect.signature(Event).parameters)[-1] == "values"


def test_redefined_classes_are_independent() -> None:
    """A class defined twice under one name has its own fields each time."""

    def make(default: int) -> Any:
        class Again(DomainEvent):
            a: int = default

        return Again

    one, two = make(1), make(2)
    assert (one().a, two().a) == (1, 2)
    assert one() != two()


def test_weak_references_die_with_the_event() -> None:
    """Events can be referenced weakly."""
    event = Base(user_id="u")
    reference = weakref.ref(event)
    assert reference() is event
    del event
    assert reference() is None


def test_the_class_of_an_event_cannot_be_changed() -> None:
    """Another class has another layout."""

    class Other(DomainEvent):
        a: int = 0
        b: int = 0
        c: int = 0

    event = Base(user_id="u")
    with pytest.raises(AttributeError):
        object.__setattr__(event, "__class__", Other)


def test_a_field_deleted_by_force_is_missing_but_harmless() -> None:
    """Reading raises AttributeError; comparison, repr, copies and pickling still work."""
    event = Base(user_id="u")
    object.__delattr__(event, "email")
    with pytest.raises(AttributeError):
        _ = event.email
    assert event == event
    assert event != Base(user_id="u")
    assert "email" not in repr(event)
    with pytest.raises(AttributeError):
        object.__delattr__(event, "event_id")


def test_functions_written_in_a_string_are_not_taken_for_generated_ones() -> None:
    """`python -c` and exec give user methods the same file name as dataclass methods."""
    space: dict[str, Any] = {"DomainEvent": DomainEvent, "dataclass": dataclass, "__name__": __name__}
    exec(
        "@dataclass(frozen=True)\n"
        "class Own(DomainEvent):\n"
        "    a: int = 0\n"
        "    def __repr__(self):\n        return 'own'\n"
        "    def __eq__(self, other):\n        return 'always'\n",
        space,
    )
    event = space["Own"](a=1)
    assert repr(event) == "own"
    assert event.__eq__(None) == "always"


def test_own_comparison_and_text_of_an_undecorated_class_are_used() -> None:
    """Methods of the user win over ours."""

    class Own(DomainEvent):
        a: int = 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own) and self.a == other.a

        def __hash__(self) -> int:
            return self.a

        def __str__(self) -> str:
            return f"<{self.a}>"

    assert Own(a=1) == Own(a=1)
    assert (hash(Own(a=1)), str(Own(a=1))) == (1, "<1>")


def test_a_property_may_replace_an_inherited_field_or_metadata() -> None:
    """The property is what readers see; the field is still accepted and stored."""

    class Shouting(Base):
        @property
        def email(self) -> str:  # type: ignore[override]
            return "SHOUT"

        @property
        def event_type(self) -> str:  # type: ignore[override]
            return "shouting"

    event = Shouting(user_id="u", email="x")
    assert (event.email, event.event_type) == ("SHOUT", "shouting")


def test_init_false_fields_are_set_by_default_only() -> None:
    """They cannot be passed."""

    class Computed(DomainEvent):
        a: int
        total: int = field(init=False, default=7)
        later: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "later", self.a + 1)

    assert (Computed(a=1).total, Computed(a=1).later) == (7, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument: 'total'"):
        Computed(a=1, total=5)  # type: ignore[call-arg]


def test_many_fields_are_possible() -> None:
    """Far more than fit in a machine word of flags."""
    body = {"__annotations__": {f"f{i}": int for i in range(300)}, "__module__": __name__}
    wide = type("Wide", (DomainEvent,), body)
    event = wide(**{f"f{i}": i for i in range(300)})
    assert [getattr(event, f"f{i}") for i in range(300)] == list(range(300))
    with pytest.raises(TypeError, match="'f299'"):
        wide(**{f"f{i}": i for i in range(299)})


def test_a_default_may_be_a_function() -> None:
    """A callable default is a value, not a method."""

    class Called(DomainEvent):
        call: Any = len

    assert Called().call is len
    assert Called(call=max).call is max


def test_cached_properties_work() -> None:
    """They live in the attribute dictionary and do not count for equality before they are read on both sides."""
    import functools

    class Cached(DomainEvent):
        a: int

        @functools.cached_property
        def twice(self) -> int:
            return self.a * 2

    assert Cached(a=2).twice == 4


def test_the_first_construction_may_come_from_many_threads() -> None:
    """Compiling happens once, under a lock."""
    for _ in range(20):

        class Raced(Base):
            n: int = 0

        barrier = threading.Barrier(8)
        made: list[Any] = []

        def construct(cls: Any = Raced, start: threading.Barrier = barrier, out: list[Any] = made) -> None:
            start.wait()
            out.append(cls(user_id="u", n=5))

        threads = [threading.Thread(target=construct) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [event.n for event in made] == [5] * 8


def test_subclass_hooks_of_the_user_may_forget_super() -> None:
    """An `__init_subclass__` that does not call its parent leaves working classes."""

    class Registry(DomainEvent):
        def __init_subclass__(cls, **options: Any) -> None:
            pass

    class Forgotten(Registry):
        a: int = 1

    assert Forgotten(a=2).a == 2


def test_class_keywords_reach_the_users_hook() -> None:
    """`class X(Base, topic=...)` works."""

    class Topic(DomainEvent):
        topic: ClassVar[str] = ""

        def __init_subclass__(cls, topic: str = "", **options: Any) -> None:
            super().__init_subclass__(**options)
            cls.topic = topic

    class Orders(Topic, topic="orders"):
        a: int = 1

    assert (Orders().a, Orders().topic) == (1, "orders")


def test_init_variables_inherit_the_context() -> None:
    """The slower constructor is no exception."""

    class Late(DomainEvent):
        n: int = 0
        add: InitVar[int] = 0

        def __post_init__(self, add: int) -> None:
            object.__setattr__(self, "n", self.n + add)

    cause = Base(user_id="u")
    with message_context(cause):
        assert Late(n=1, add=2).causation_id == cause.event_id
