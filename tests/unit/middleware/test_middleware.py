"""The six middleware, their chain and their pipeline."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pydantic import BaseModel, Field

from lexigram.contracts.core.result import Err, Ok
from lexigram.contracts.exceptions.domain import DomainError
from lexigram.contracts.exceptions.resilience import CircuitOpenError
from lexigram.events.buses.command import CommandBusImpl
from lexigram.events.buses.event import EventBusImpl
from lexigram.events.buses.query import QueryBusImpl
from lexigram.events.config import EventsConfig
from lexigram.events.exceptions import ConcurrencyError, EventError, EventValidationError
from lexigram.events.messages.command import Command
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.query import Query
from lexigram.events.middleware.base import AbstractMiddleware, MiddlewareChain, middleware
from lexigram.events.middleware.circuit_breaker import CircuitBreakerMiddleware
from lexigram.events.middleware.logging import LoggingMiddleware
from lexigram.events.middleware.metrics import MetricsMiddleware
from lexigram.events.middleware.pipeline import build_pipeline
from lexigram.events.middleware.retry import Backoff, RetryMiddleware
from lexigram.events.middleware.transaction import TransactionContext, TransactionMiddleware, UnitOfWorkMiddleware
from lexigram.events.middleware.validation import ValidationMiddleware


class Pay(Command[str]):
    """A command."""

    amount: int = 1
    card_token: str = "4111"


class Balance(Query[int]):
    """A query."""


class Paid(DomainEvent):
    """An event."""


class Model(BaseModel):
    """A message that is a pydantic model."""

    amount: int = Field(gt=0)


async def echo(message: Any) -> Any:
    """The innermost handler."""
    return message


def failing(*errors: BaseException) -> Any:
    """Return a handler that raises one error per call, and then returns "done"."""
    waiting = list(errors)

    async def handler(message: Any) -> str:
        if waiting:
            raise waiting.pop(0)
        return "done"

    return handler


class Layer(AbstractMiddleware[Any, Any]):
    """Middleware with state."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen

    async def __call__(self, message: Any, next_handler: Any) -> Any:
        """Note the way in and out."""
        self.seen.append(f"+{self.name}")
        result = await next_handler(message)
        self.seen.append(f"-{self.name}")
        return result


class TestChain:
    async def test_the_first_is_outermost(self) -> None:
        """insert puts one before another, clear removes all."""
        seen: list[str] = []
        chain: MiddlewareChain[Any, Any] = MiddlewareChain()
        chain.add(Layer("b", seen)).add(Layer("c", seen)).insert(0, Layer("a", seen))
        assert await chain.execute("message", echo) == "message"
        assert seen == ["+a", "+b", "+c", "-c", "-b", "-a"]
        chain.clear()
        seen.clear()
        assert await chain.execute("message", echo) == "message"
        assert seen == []

    async def test_a_function_becomes_a_middleware(self) -> None:
        """With its name and documentation."""

        @middleware
        async def shout(message: str, next_handler: Any) -> Any:
            """Shout."""
            return (await next_handler(message)).upper()

        assert isinstance(shout, AbstractMiddleware)
        assert shout.__doc__ == "Shout."
        assert await shout("hey", echo) == "HEY"

    @pytest.mark.parametrize("wrong", [Layer, 5, lambda message: None, "text"])
    def test_what_cannot_be_called_with_two_arguments_is_refused(self, wrong: Any) -> None:
        """By every way in."""
        for attempt in (MiddlewareChain().add, CommandBusImpl().use, EventBusImpl().use, middleware):
            with pytest.raises(EventValidationError) as caught:
                attempt(wrong)
            assert caught.value.field == "middleware"
        with pytest.raises(EventValidationError):
            QueryBusImpl([wrong])

    async def test_the_same_middleware_works_on_all_buses(self) -> None:
        """Objects and functions."""
        seen: list[str] = []

        async def function(message: Any, next_handler: Any) -> Any:
            seen.append(type(message).__name__)
            return await next_handler(message)

        layers = [function, Layer("x", [])]
        commands, queries, events = CommandBusImpl(layers), QueryBusImpl(layers), EventBusImpl(layers)
        commands.register(Pay, echo)
        queries.register(Balance, echo)
        events.subscribe(Paid, echo)
        await commands.dispatch(Pay())
        await queries.execute(Balance())
        await events.publish(Paid())
        await events.close()
        assert seen == ["Pay", "Balance", "Paid"]


class TestValidation:
    async def test_defaults_let_valid_messages_pass(self) -> None:
        """Ours and pydantic ones."""
        layer = ValidationMiddleware()
        for message in (Pay(), Paid(), Balance(), Model(amount=1), "anything"):
            assert await layer(message, echo) is message

    async def test_validators_apply_to_subclasses_and_in_order(self) -> None:
        """Those for every message too; asynchronous ones are awaited."""

        class Special(Pay):
            pass

        layer, seen = ValidationMiddleware(), []

        @layer.add_validator(Pay)
        async def positive(message: Pay) -> None:
            await asyncio.sleep(0)
            seen.append("positive")
            if message.amount <= 0:
                raise ValueError("amount must be positive")

        @layer.add_validator()
        def everything(message: Any) -> bool:
            seen.append("everything")
            return not isinstance(message, Balance)

        await layer(Special(), echo)
        assert seen == ["positive", "everything"]
        with pytest.raises(EventValidationError, match="amount must be positive"):
            await layer(Pay(amount=0), echo)
        with pytest.raises(EventValidationError, match="refused by everything"):
            await layer(Balance(), echo)
        layer.register_validator(Paid, lambda message: False)
        with pytest.raises(EventValidationError):
            await layer(Paid(), echo)

    async def test_a_pydantic_message_is_validated_again(self) -> None:
        """The error names the field and hides the value; it can be switched off."""
        message = Model(amount=1)
        message.amount = -4111
        with pytest.raises(EventValidationError) as caught:
            await ValidationMiddleware(strict_mode=True)(message, echo)
        assert caught.value.field == "amount"
        assert "4111" not in str(caught.value)
        assert await ValidationMiddleware(validate_pydantic=False)(message, echo) is message

    @pytest.mark.parametrize(
        ("values", "problem"),
        [
            ({"amount": 0}, "amount must be greater than 0"),
            ({"amount": 11}, "amount must be at most 10"),
            ({"currency": "euro"}, "currency must match"),
            ({"items": []}, "items must have a length of at least 1"),
            ({"amount": "1"}, "is not valid"),
        ],
    )
    async def test_constraints_of_fields_are_checked(self, values: dict[str, Any], problem: str) -> None:
        """Those of pydantic's `Field(...)`, for each message."""
        layer = ValidationMiddleware()
        valid = Limited(amount=10)
        assert await layer(valid, echo) is valid
        with pytest.raises(EventValidationError, match=problem):
            await layer(Limited(**{"amount": 1, **values}), echo)

    async def test_a_message_may_validate_itself(self) -> None:
        """Its `validate()` is a validator, asynchronous or not; a method that needs arguments is something else."""

        class Transfer(Command):
            amount: int

            def validate(self) -> bool | None:
                if self.amount == 13:
                    raise ValueError("unlucky")
                return False if self.amount < 0 else None

        class Slow(Transfer):
            async def validate(self) -> bool:
                return self.amount > 0

        class Other(Command):
            def validate(self, rules: list[str]) -> bool:
                return False

        layer = ValidationMiddleware()
        for message in (Transfer(amount=1), Slow(amount=13), Other()):
            assert await layer(message, echo) is message
        for message, problem in (
            (Transfer(amount=13), "Transfer is not valid: unlucky"),
            (Transfer(amount=-1), r"Transfer was refused by its validate\(\)"),
            (Slow(amount=0), r"Slow was refused by its validate\(\)"),
        ):
            with pytest.raises(EventValidationError, match=problem):
                await layer(message, echo)


class Limited(Command):
    """A command whose fields have constraints."""

    amount: int = Field(gt=0, le=10)
    currency: str = Field("EUR", pattern="^[A-Z]{3}$")
    items: list[str] = Field(default_factory=lambda: ["a"], min_length=1)
    note: str | None = Field(None, max_length=3)


class Recording(TransactionContext):
    """A transaction that writes down what happens to it."""

    def __init__(self, journal: list[str]) -> None:
        self.journal = journal

    async def begin(self) -> None:
        """Begin."""
        await asyncio.sleep(0)
        self.journal.append("begin")

    async def commit(self) -> None:
        """Commit."""
        await asyncio.sleep(0)
        self.journal.append("commit")

    async def rollback(self) -> None:
        """Roll back."""
        await asyncio.sleep(0)
        self.journal.append("rollback")


class TestTransaction:
    async def test_defaults_work(self) -> None:
        """Without a factory there is nothing to commit."""
        assert await TransactionMiddleware()("message", echo) == "message"

    async def test_success_commits_failure_rolls_back(self) -> None:
        """Any exception, and a result of Err; Ok commits."""
        journal: list[str] = []
        layer = TransactionMiddleware(lambda: Recording(journal))
        await layer("x", echo)
        await layer(Ok(1), echo)
        assert journal == ["begin", "commit"] * 2
        journal.clear()
        with pytest.raises(KeyError):
            await layer("x", failing(KeyError("x")))
        result = await layer(Err(EventError("no")), echo)
        assert result.is_err()
        assert journal == ["begin", "rollback"] * 2

    async def test_cancellation_rolls_back(self) -> None:
        """And goes on."""
        journal: list[str] = []
        layer = TransactionMiddleware(lambda: Recording(journal))

        async def slow(message: Any) -> None:
            await asyncio.sleep(5)

        task = asyncio.create_task(layer("x", slow))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert journal == ["begin", "rollback"]

    async def test_concurrent_messages_have_their_own_transactions(self) -> None:
        """Nested ones join, unless they require a new one."""
        made: list[list[str]] = []

        def factory() -> Recording:
            made.append([])
            return Recording(made[-1])

        outer, fresh = TransactionMiddleware(factory), TransactionMiddleware(factory, "requires_new")

        async def nested(message: Any) -> Any:
            await asyncio.sleep(0)
            first = outer.current
            await outer("inner", echo)
            await asyncio.gather(outer("child", echo), outer("child", echo))
            assert outer.current is first
            return first

        transactions = await asyncio.gather(*[outer("x", nested) for _ in range(5)])
        assert len(set(map(id, transactions))) == 5
        assert made == [["begin", "commit"]] * 5
        assert outer.current is None
        made.clear()

        async def twice(message: Any) -> Any:
            return await fresh("inner", echo)

        await fresh("x", twice)
        assert len(made) == 2

    async def test_supports_never_starts_one(self) -> None:
        """Unknown propagation is refused."""
        journal: list[str] = []
        await TransactionMiddleware(lambda: Recording(journal), "supports")("x", echo)
        assert journal == []
        with pytest.raises(EventValidationError):
            TransactionMiddleware(propagation="sometimes")

    async def test_a_task_that_outlives_the_transaction_starts_its_own(self) -> None:
        """It does not write into a committed one."""
        made: list[list[str]] = []

        def factory() -> Recording:
            made.append([])
            return Recording(made[-1])

        layer, later = TransactionMiddleware(factory), []

        async def spawning(message: Any) -> None:
            async def background() -> None:
                await asyncio.sleep(0.01)
                await layer("later", echo)

            later.append(asyncio.create_task(background()))

        await layer("x", spawning)
        await later[0]
        assert made == [["begin", "commit"], ["begin", "commit"]]

    async def test_an_async_context_manager_is_a_factory_too(self) -> None:
        """As a store's unit_of_work is; a failed commit is raised."""
        from lexigram.events.stores.memory import InMemoryEventStore

        store = InMemoryEventStore()
        layer = TransactionMiddleware(store.unit_of_work)

        async def append(message: Any) -> None:
            await store.append("a", [Paid()])
            if message == "fail":
                raise KeyError("x")

        with pytest.raises(KeyError):
            await layer("fail", append)
        assert await store.read("a") == []
        await layer("ok", append)
        assert len(await store.read("a")) == 1

    async def test_a_unit_of_work_is_committed_explicitly(self) -> None:
        """Before it is left; not after a failure."""
        journal: list[str] = []

        class Unit:
            async def __aenter__(self) -> Unit:
                journal.append("enter")
                return self

            async def __aexit__(self, *error: object) -> None:
                journal.append("exit" if error[0] is None else "exit with error")

            async def commit(self) -> None:
                journal.append("commit")

        layer = UnitOfWorkMiddleware(Unit)
        assert await layer("x", echo) == "x"
        assert journal == ["enter", "commit", "exit"]
        journal.clear()
        with pytest.raises(KeyError):
            await layer("x", failing(KeyError("x")))
        assert journal == ["enter", "exit with error"]
        with pytest.raises(EventValidationError):
            await UnitOfWorkMiddleware(object)("x", echo)

    async def test_a_failed_commit_is_rolled_back_and_raised(self) -> None:
        """The rollback's own failure does not hide it."""
        journal: list[str] = []

        class Broken(Recording):
            async def commit(self) -> None:
                raise ConnectionError("gone")

            async def rollback(self) -> None:
                journal.append("rollback")
                raise ConnectionError("still gone")

        with pytest.raises(ConnectionError, match=r"^gone$"):
            await TransactionMiddleware(lambda: Broken(journal))("x", echo)
        assert journal == ["begin", "rollback"]


class TestLogging:
    async def test_defaults_log_type_id_and_outcome_only(self, caplog: pytest.LogCaptureFixture) -> None:
        """No field values, not even in errors."""
        layer, command = LoggingMiddleware(), Pay(card_token="4111")
        with caplog.at_level(logging.INFO):
            await layer(command, echo)
            with pytest.raises(KeyError):
                await layer(command, failing(KeyError("4111")))
        assert [record.levelname for record in caplog.records] == ["INFO", "ERROR"]
        assert f"Pay {command.id} handled in" in caplog.text
        assert "failed with KeyError" in caplog.text
        assert "4111" not in caplog.text

    async def test_fields_are_shown_on_request_and_secrets_masked(self, caplog: pytest.LogCaptureFixture) -> None:
        """And cut."""
        with caplog.at_level(logging.DEBUG):
            await LoggingMiddleware(log_level="DEBUG", include_message_data=True)(
                Pay(amount=77, card_token="4111"), echo
            )
            await LoggingMiddleware(include_message_data=True, message_data_max_length=5)(Pay(amount=77), echo)
        first, second = (record.getMessage() for record in caplog.records)
        assert "amount=77" in first
        assert "card_token=***" in first
        assert second.endswith("…")
        assert "4111" not in caplog.text

    def test_an_unknown_level_is_refused(self) -> None:
        """By name."""
        with pytest.raises(EventValidationError) as caught:
            LoggingMiddleware(log_level="LOUD")
        assert caught.value.field == "log_level"

    async def test_any_logger_with_log_will_do(self) -> None:
        """For example a structlog one."""
        lines: list[Any] = []

        class Logger:
            def log(self, level: int, text: str, *values: Any) -> None:
                lines.append((level, text % values))

        await LoggingMiddleware(Logger())(Pay(), echo)
        assert lines[0][0] == logging.INFO


class TestRetry:
    async def test_transient_errors_are_retried_by_default(self) -> None:
        """Up to the limit, with growing waits; others are not."""
        retried: list[Any] = []
        layer = RetryMiddleware(backoff_base=0.001, on_retry=lambda *info: retried.append(info[1:]))
        errors = [ConcurrencyError("a"), ConnectionError("b"), ConcurrencyError("c")]
        assert await layer("x", failing(*errors)) == "done"
        assert [attempt for _, attempt in retried] == [1, 2, 3]
        with pytest.raises(ConcurrencyError, match="last"):
            await layer("x", failing(*errors, ConcurrencyError("last")))
        with pytest.raises(ValueError, match="no"):
            await layer("x", failing(ValueError("no")))
        with pytest.raises(asyncio.CancelledError):
            await layer("x", failing(asyncio.CancelledError()))

    async def test_what_is_retried_can_be_chosen(self) -> None:
        """By class or by condition."""
        by_class = RetryMiddleware(backoff_base=0, retryable_exceptions=(KeyError,))
        assert await by_class("x", failing(KeyError("a"))) == "done"
        with pytest.raises(ConcurrencyError):
            await by_class("x", failing(ConcurrencyError("a")))
        by_condition = RetryMiddleware(backoff_base=0, retry_condition=lambda error: "soft" in str(error))
        assert await by_condition("x", failing(ValueError("soft"))) == "done"
        with pytest.raises(ValueError, match="hard"):
            await by_condition("x", failing(ValueError("hard")))

    async def test_it_really_waits(self) -> None:
        """Exponentially, up to the maximum."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await RetryMiddleware(backoff_base=0.01, backoff_jitter=0)("x", failing(*[ConnectionError()] * 3))
        assert loop.time() - started >= 0.07

    def test_delays_grow_up_to_the_maximum(self) -> None:
        """With jitter they stay within its share."""
        backoff = Backoff(0.1, 2.0, 1.0, 0.0)
        assert [backoff.delay(attempt) for attempt in (1, 2, 3, 4, 5, 10_000)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
        delays = [Backoff(1.0, jitter=0.5).delay(1) for _ in range(200)]
        assert 0.5 <= min(delays) < 0.7
        assert 1.3 < max(delays) <= 1.5

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("max_retries", -1),
            ("max_retries", "3"),
            ("backoff_base", -1),
            ("backoff_base", None),
            ("backoff_factor", 0.5),
            ("backoff_max", -1),
            ("backoff_jitter", 2),
        ],
    )
    def test_bad_settings_are_refused_by_name(self, setting: str, value: Any) -> None:
        """Each of them."""
        with pytest.raises(EventValidationError) as caught:
            RetryMiddleware(**{setting: value})
        assert caught.value.field == setting


class TestMetrics:
    async def test_defaults_count_and_time_in_memory(self) -> None:
        """By type and outcome; cancellations count as failures."""
        layer = MetricsMiddleware()
        await layer(Pay(), echo)
        with pytest.raises(KeyError):
            await layer(Pay(), failing(KeyError("secret")))
        with pytest.raises(asyncio.CancelledError):
            await layer(Balance(), failing(asyncio.CancelledError()))
        recorder = layer.recorder
        assert recorder.count("cqrs.messages") == 3
        assert recorder.count("cqrs.messages", type="Pay", outcome="success") == 1
        assert recorder.count("cqrs.messages", outcome="failure") == 2
        assert [(entry.message_type, entry.success, entry.error_type) for entry in recorder.messages] == [
            ("Pay", True, None),
            ("Pay", False, "KeyError"),
            ("Balance", False, "CancelledError"),
        ]
        (times,) = [d for (name, tags), d in recorder.histograms.items() if dict(tags)["outcome"] == "success"]
        assert times.count == 1
        assert 0 <= times.minimum <= times.maximum
        recorder.gauge("depth", 3.0)
        assert recorder.gauges["depth", ()] == 3.0

    async def test_the_frameworks_recorder_gets_the_same(self) -> None:
        """Under the given prefix."""
        from lexigram.contracts.observability.metrics import MetricsRecorderProtocol

        class Recorder:
            def __init__(self) -> None:
                self.names: list[str] = []

            def increment(self, name: str, value: float = 1.0, tags: Any = None) -> None:
                self.names.append(name)

            def gauge(self, name: str, value: float, tags: Any = None) -> None: ...

            def histogram(self, name: str, value: float, tags: Any = None) -> None:
                self.names.append(name)

        recorder = Recorder()
        assert isinstance(recorder, MetricsRecorderProtocol)
        await MetricsMiddleware(recorder, "app")(Pay(), echo)
        assert recorder.names == ["app.messages", "app.duration_seconds"]
        assert isinstance(MetricsMiddleware().recorder, MetricsRecorderProtocol)


class TestCircuitBreaker:
    async def test_it_opens_half_opens_and_closes(self) -> None:
        """After failures in a row, a pause, and successful trials."""
        layer = CircuitBreakerMiddleware(failure_threshold=2, recovery_timeout=0.02, success_threshold=2)
        for _ in range(2):
            assert layer.state == "closed"
            with pytest.raises(OSError, match="x"):
                await layer("m", failing(OSError("x")))
        assert layer.state == "open"
        with pytest.raises(CircuitOpenError):
            await layer("m", echo)
        await asyncio.sleep(0.03)
        assert layer.state == "half_open"
        with pytest.raises(OSError, match="x"):
            await layer("m", failing(OSError("x")))
        assert layer.state == "open"
        await asyncio.sleep(0.03)
        assert await layer("m", echo) == "m"
        assert layer.state == "half_open"
        assert await layer("m", echo) == "m"
        assert layer.state == "closed"

    async def test_answers_are_no_failures(self) -> None:
        """Broken rules, lost races; a success resets the count."""
        layer = CircuitBreakerMiddleware(failure_threshold=2)
        for error in (DomainError("rule"), ConcurrencyError("race"), EventValidationError("bad")) * 2:
            with pytest.raises(type(error)):
                await layer("m", failing(error))
        for _ in range(3):
            with pytest.raises(OSError, match="x"):
                await layer("m", failing(OSError("x")))
            await layer("m", echo)
        assert layer.state == "closed"

    async def test_half_open_lets_only_a_few_through_at_once(self) -> None:
        """A cancelled trial gives its place back."""
        layer = CircuitBreakerMiddleware(failure_threshold=1, recovery_timeout=0, success_threshold=1)
        with pytest.raises(OSError, match="x"):
            await layer("m", failing(OSError("x")))

        async def slow(message: Any) -> None:
            await asyncio.sleep(5)

        trial = asyncio.create_task(layer("m", slow))
        await asyncio.sleep(0)
        with pytest.raises(CircuitOpenError):
            await layer("m", echo)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        assert await layer("m", echo) == "m"
        assert layer.state == "closed"

    async def test_monitored_exceptions_can_be_chosen(self) -> None:
        """Only they count; bad settings are refused; reset closes."""
        layer = CircuitBreakerMiddleware(failure_threshold=1, monitored_exceptions=(KeyError,))
        with pytest.raises(OSError, match="x"):
            await layer("m", failing(OSError("x")))
        assert layer.state == "closed"
        with pytest.raises(KeyError):
            await layer("m", failing(KeyError("x")))
        assert layer.state == "open"
        layer.reset()
        assert layer.state == "closed"
        for setting in ("failure_threshold", "success_threshold", "recovery_timeout"):
            with pytest.raises(EventValidationError) as caught:
                CircuitBreakerMiddleware(**{setting: -1})  # type: ignore[arg-type]
            assert caught.value.field == setting

    async def test_the_frameworks_breaker_can_take_its_place(self) -> None:
        """It gets the call."""

        class Breaker:
            state = "half_open"
            calls = 0

            async def call(self, function: Any, *args: Any) -> Any:
                self.calls += 1
                return await function(*args)

            def reset(self) -> None:
                self.state = "closed"

        breaker = Breaker()
        layer = CircuitBreakerMiddleware(circuit_breaker=breaker)  # type: ignore[arg-type]
        assert await layer("m", echo) == "m"
        assert (breaker.calls, layer.state) == (1, "half_open")
        layer.reset()
        assert layer.state == "closed"


class TestPipeline:
    def test_the_order_is_fixed(self) -> None:
        """Validation → Transaction → Logging → Retry → Metrics → CircuitBreaker."""
        config = EventsConfig(circuit_breaker_middleware={"enabled": True})
        layers = build_pipeline(config, "command", transaction_factory=lambda: None)
        assert [type(layer).__name__.removesuffix("Middleware") for layer in layers] == [
            "Validation",
            "Transaction",
            "Logging",
            "Retry",
            "Metrics",
            "CircuitBreaker",
        ]

    def test_queries_and_events_get_what_fits_them(self) -> None:
        """Queries no transaction; events are retried by the bus."""
        config = EventsConfig()
        names = {
            kind: [type(layer).__name__.removesuffix("Middleware") for layer in build_pipeline(config, kind)]  # type: ignore[arg-type]
            for kind in ("query", "event")
        }
        assert names["query"] == ["Validation", "Logging", "Retry", "Metrics"]
        assert names["event"] == ["Validation", "Logging", "Metrics"]

    @pytest.mark.parametrize("section", ["validation", "transaction", "logging", "retry", "metrics"])
    def test_each_section_can_be_switched_off(self, section: str) -> None:
        """By its own `enabled`."""
        config = EventsConfig(**{f"{section}_middleware": {"enabled": False}})
        names = [type(layer).__name__ for layer in build_pipeline(config, "command", transaction_factory=lambda: None)]
        assert len(names) == 4
        assert f"{section.capitalize()}Middleware" not in names

    def test_the_bus_sections_switch_too(self) -> None:
        """enable_validation, enable_logging, enable_metrics."""
        config = EventsConfig(
            command_bus={"enable_validation": False, "enable_logging": False, "enable_metrics": False}
        )
        assert [type(layer) for layer in build_pipeline(config, "command")] == [RetryMiddleware]

    async def test_everything_works_with_the_defaults(self) -> None:
        """On all three buses."""
        config = EventsConfig()
        commands = CommandBusImpl(build_pipeline(config, "command"), config.command_bus)
        queries = QueryBusImpl(build_pipeline(config, "query"), config.query_bus)
        events, seen = EventBusImpl(build_pipeline(config, "event"), config.event_bus), []
        commands.register(Pay, echo)
        queries.register(Balance, echo)
        events.subscribe(Paid, seen.append)
        command = Pay()
        assert await commands.dispatch(command) is command
        assert isinstance(await queries.execute(Balance()), Balance)
        await events.publish(Paid())
        assert (await events.close()).drained
        assert len(seen) == 1
