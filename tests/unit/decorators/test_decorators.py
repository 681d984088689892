"""idempotent, validate, validate_command, validate_query, projection, saga."""

from __future__ import annotations

import asyncio
import inspect
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from lexigram.contracts.core.result import Err, Ok
from lexigram.events.buses.command import CommandBusImpl
from lexigram.events.decorators.handlers import clear_handlers, get_all_handlers, get_handler_info, projection, saga
from lexigram.events.decorators.idempotency_cache import IdempotencyCache
from lexigram.events.decorators.idempotent import clear_idempotency_cache, idempotent
from lexigram.events.decorators.validation import validate, validate_command, validate_query
from lexigram.events.exceptions import EventError, EventValidationError
from lexigram.events.messages.command import Command, IdempotentCommand
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.query import PaginatedQuery


class Charge(IdempotentCommand[str]):
    """A command with a key."""

    amount: Decimal = Decimal(1)


class Register(Command[None]):
    """A command with typed fields."""

    name: str
    age: int = 1
    groups: list[str] | None = None
    referrer: UUID | None = None


class Find(PaginatedQuery[str]):
    """A query."""


class Done(DomainEvent):
    """An event."""

    count: int = 1


async def test_a_key_runs_once() -> None:
    """By idempotency_key, else by id; other keys and other functions are separate."""
    calls: list[str] = []
    cache = IdempotencyCache()

    @idempotent(cache=cache)
    async def charge(command: Any) -> str:
        """Charge."""
        calls.append("charge")
        return f"receipt {len(calls)}"

    @idempotent(cache=cache)
    async def refund(command: Any) -> str:
        calls.append("refund")
        return "refund"

    assert [await charge(Charge(idempotency_key="a")) for _ in range(3)] == ["receipt 1"] * 3
    assert await refund(Charge(idempotency_key="a")) == "refund"
    assert await charge(Charge(idempotency_key="b")) == "receipt 3"
    command, event = Register(name="x"), Done()
    assert await charge(command) == await charge(command) == "receipt 4"
    assert await charge(event) == await charge(event) == "receipt 5"
    assert charge.__doc__ == "Charge."
    assert inspect.iscoroutinefunction(charge)
    with pytest.raises(EventValidationError) as caught:
        await charge("no key")
    assert caught.value.field == "key_func"


async def test_results_of_none_are_kept_and_expire() -> None:
    """After ttl seconds, and by clearing."""
    calls: list[Any] = []

    @idempotent(key_func=lambda message: str(message), ttl=1)
    async def note(message: Any) -> None:
        calls.append(message)

    for _ in range(2):
        await note("x")
    assert len(calls) == 1
    clear_idempotency_cache()
    await note("x")
    assert len(calls) == 2
    with pytest.raises(EventValidationError):
        idempotent(ttl=0)


async def test_concurrent_duplicates_run_once() -> None:
    """Those who wait get the same result, or the same error; the error is not kept."""
    calls: list[Any] = []

    @idempotent(key_func=str, cache=IdempotencyCache())
    async def work(message: Any) -> object:
        calls.append(message)
        await asyncio.sleep(0.005)
        if len(calls) == 1:
            raise ConnectionError("first")
        return object()

    outcomes = await asyncio.gather(*[work("x") for _ in range(5)], return_exceptions=True)
    assert len(calls) == 1
    assert all(isinstance(outcome, ConnectionError) for outcome in outcomes)
    results = await asyncio.gather(*[work("x") for _ in range(5)])
    assert len(calls) == 2
    assert len(set(map(id, results))) == 1


async def test_a_cancelled_run_is_taken_over() -> None:
    """And a cancelled waiter disturbs nobody."""
    calls: list[Any] = []

    @idempotent(key_func=str, cache=IdempotencyCache())
    async def work(message: Any) -> int:
        calls.append(message)
        await asyncio.sleep(0.01)
        return len(calls)

    tasks = [asyncio.create_task(work("x")) for _ in range(4)]
    await asyncio.sleep(0.001)
    tasks[0].cancel()
    tasks[2].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert isinstance(outcomes[2], asyncio.CancelledError)
    assert outcomes[1] == outcomes[3] == 2


async def test_err_is_a_failure_ok_is_not() -> None:
    """Only Ok is kept."""
    calls: list[Any] = []

    @idempotent(key_func=str, cache=IdempotencyCache())
    async def work(message: Any) -> Any:
        calls.append(message)
        return Err(EventError("no")) if len(calls) == 1 else Ok(len(calls))

    assert (await work("x")).is_err()
    assert (await work("x")).unwrap() == 2
    assert (await work("x")).unwrap() == 2


async def test_methods_and_plain_functions_can_be_idempotent() -> None:
    """The message is found among the arguments."""
    calls: list[Any] = []

    class Handler:
        @idempotent(cache=IdempotencyCache())
        async def handle(self, command: Charge) -> int:
            calls.append(command)
            return len(calls)

    @idempotent(key_func=lambda command: command.name, cache=IdempotencyCache())
    def plain(command: Register) -> int:
        calls.append(command)
        if len(calls) == 2:
            raise ValueError("no")
        return len(calls)

    bus = CommandBusImpl()
    bus.register(Charge, Handler())
    assert [await bus.dispatch(Charge(idempotency_key="k")) for _ in range(2)] == [1, 1]
    with pytest.raises(ValueError, match="no"):
        plain(Register(name="a"))
    assert [plain(Register(name="a")), plain(command=Register(name="a"))] == [3, 3]


async def test_without_a_key_every_message_is_run() -> None:
    """A `key_func` that returns None says that this message has none; it shares no result with others."""
    calls: list[Any] = []

    @idempotent(key_func=lambda command: command.name or None, cache=IdempotencyCache())
    async def suspending(command: Register) -> int:
        calls.append(command)
        return len(calls)

    @idempotent(key_func=lambda command: command.name or None, cache=IdempotencyCache())
    def plain(command: Register) -> int:
        calls.append(command)
        return len(calls)

    named, nameless = Register(name="a"), Register(name="")
    assert [await suspending(command) for command in (named, named, nameless, nameless)] == [1, 1, 2, 3]
    assert [plain(command) for command in (named, named, nameless, nameless)] == [4, 4, 5, 6]


def test_each_event_loop_runs_for_itself() -> None:
    """A run that another loop left behind does not block."""

    @idempotent(key_func=str, cache=IdempotencyCache())
    async def work(message: Any) -> str:
        await asyncio.sleep(0.05 if message == "slow" else 0)
        return "done"

    async def leave() -> None:
        task = asyncio.create_task(work("slow"))
        await asyncio.sleep(0)
        del task

    asyncio.run(leave())
    assert asyncio.run(asyncio.wait_for(work("slow"), 5)) == "done"


def test_the_cache_is_bounded_and_forgets_the_least_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expiry follows the monotonic clock."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    cache = IdempotencyCache(default_ttl=10, max_size=2)
    cache.set("a", 1)
    cache.set("b", 2, ttl=5)
    assert cache.get("a") == 1
    cache.set("c", 3)
    assert cache.get("b", "gone") == "gone"
    assert len(cache) == 2
    now = 109.9
    assert cache.get("a") == 1
    now = 110.0
    assert cache.get("a") is None
    cache.clear()
    assert len(cache) == 0
    for settings in ({"default_ttl": 0}, {"max_size": 0}):
        with pytest.raises(EventValidationError) as caught:
            IdempotencyCache(**settings)  # type: ignore[arg-type]
        assert caught.value.field == next(iter(settings))


async def test_validate_checks_declared_types_and_the_messages_own_rule() -> None:
    """Without converting; the error names the field and hides the value."""

    class Careful(Command[None]):
        amount: int = 1

        def validate(self) -> None:
            if self.amount > 10:
                raise ValueError("too much")

    class Model(BaseModel):
        amount: int = 1

    @validate
    async def handle(message: Any) -> str:
        return "handled"

    @validate
    def plain(message: Any) -> str:
        return "handled"

    good: list[Any] = [Register(name="a", groups=["x"], referrer=uuid4()), Careful(amount=5), Done(), Model(), Find()]
    for message in good:
        assert await handle(message) == plain(message) == "handled"
    for message, field in (
        (Register(name=4111), "name"),  # type: ignore[arg-type]
        (Register(name="a", age="3"), "age"),  # type: ignore[arg-type]
        (Register(name="a", groups=["x", 4111]), "groups"),  # type: ignore[list-item]
        (Register(name="a", referrer=str(uuid4())), "referrer"),  # type: ignore[arg-type]
        (Done(count="many"), "count"),  # type: ignore[arg-type]
        (Model.model_construct(amount="x"), "amount"),  # type: ignore[arg-type]
    ):
        with pytest.raises(EventValidationError) as caught:
            await handle(message)
        assert caught.value.field == field
        assert "4111" not in str(caught.value)
    with pytest.raises(EventValidationError, match="too much"):
        plain(Careful(amount=11))


async def test_validate_command_checks_lengths_required_fields_and_rules() -> None:
    """Each error names its field."""

    def adult(command: Any) -> None:
        if command.age < 18:
            raise ValueError("too young")

    @validate_command(max_length={"name": 3, "groups": 1}, required_fields=["name"], custom_validators=[adult])
    async def handle(command: Register) -> str:
        return command.name

    assert await handle(Register(name="abc", age=20)) == "abc"
    for values, field in (
        ({"name": ""}, "name"),
        ({"name": "abcd"}, "name"),
        ({"name": "a", "groups": ["", ""]}, "groups"),
    ):
        with pytest.raises(EventValidationError) as caught:
            await handle(Register(**{"age": 20, **values}))  # type: ignore[arg-type]
        assert caught.value.field == field
    with pytest.raises(EventValidationError, match="too young"):
        await handle(Register(name="a", age=3))


async def test_validate_query_checks_page_size_and_sort_field() -> None:
    """None of the latter always passes."""

    @validate_query(max_results=50, allowed_sort_fields=["name"])
    async def handle(query: Find) -> str:
        return "found"

    assert await handle(Find(page_size=50)) == "found"
    assert await handle(Find(sort_by="name")) == "found"
    for values, field in (
        ({"page_size": 51}, "page_size"),
        ({"page_size": 0}, "page_size"),
        ({"sort_by": "pin"}, "sort_by"),
    ):
        with pytest.raises(EventValidationError) as caught:
            await handle(Find(**values))  # type: ignore[arg-type]
        assert caught.value.field == field


def test_projections_and_sagas_are_noted_by_class() -> None:
    """A subclass has no part in it; handlers of the buses are another kind."""

    @projection(name="orders", table="orders")
    class Orders: ...

    @saga(name="fulfilment", timeout=60)
    class Fulfilment: ...

    class Derived(Orders): ...

    info = get_handler_info(Orders)
    assert info is not None
    assert (info.handler_type, info.name, info.metadata) == ("projection", "orders", {"table": "orders"})
    info = get_handler_info(Fulfilment)
    assert info is not None
    assert info.metadata["timeout"] == 60
    assert get_handler_info(Derived) is None
    assert Orders in [info.handler for info in get_all_handlers("projection")]
    clear_handlers("projection")
    assert get_all_handlers("projection") == []
    assert Fulfilment in [info.handler for info in get_all_handlers("saga")]
