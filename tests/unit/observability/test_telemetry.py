"""Spans and metrics follow the conventions, carry no payloads, and are gone without a trace when they are removed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import db_attributes, error_attributes, messaging_attributes
from opentelemetry.semconv._incubating.metrics import db_metrics, messaging_metrics
from opentelemetry.trace import SpanKind, StatusCode

from lexigram.events import (
    Command,
    CommandBusImpl,
    ConcurrencyError,
    DomainEvent,
    EventBusConfig,
    EventBusImpl,
    EventValidationError,
    InlineProjection,
    InMemoryEventStore,
    ProjectionManager,
    SqliteEventStore,
    Telemetry,
)
from tests.backends import MakeStore, make_store

__all__ = ["make_store"]


class Paid(DomainEvent):
    card: str


class Pay(Command):
    card: str


class Collected:
    """A telemetry with exporters in memory."""

    def __init__(self) -> None:
        self.spans, self.metrics = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.telemetry = Telemetry(tracers, MeterProvider([self.metrics]))

    def span(self, name: str) -> Any:
        """Return the only finished span of this name."""
        (found,) = [span for span in self.spans.get_finished_spans() if span.name == name]
        return found

    def points(self, metric: str) -> list[tuple[dict[str, Any], Any]]:
        """Return attributes and value (the count of a histogram) of each point."""
        data = self.metrics.get_metrics_data()
        found = [
            (dict(point.attributes), getattr(point, "value", getattr(point, "sum", None)))
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]
        return sorted(found, key=str)


async def test_store_operations_are_client_spans_with_metrics(tmp_path: Path) -> None:
    """Named by the conventions for databases; a conflict is an error with its type and counts as a conflict."""
    collected = Collected()
    async with SqliteEventStore(str(tmp_path / "e.db")) as store:
        collected.telemetry.instrument(store)
        await store.append("order-1", [Paid(card="4711"), Paid(card="4712")])
        assert len(await store.read("order-1")) == 2
        span = collected.span("append")
        assert span.kind is SpanKind.CLIENT
        assert dict(span.attributes) == {
            "db.system.name": "sqlite",
            "db.operation.name": "append",
            "lexigram.stream.id": "order-1",
            "db.operation.batch.size": 2,
        }
        assert collected.span("read").attributes["db.response.returned_rows"] == 2
        with pytest.raises(ConcurrencyError):
            await store.append("order-1", [Paid(card="4713")], expected_version=0)
        refused = collected.spans.get_finished_spans()[-1]
        assert refused.status.status_code is StatusCode.ERROR
        assert refused.attributes["error.type"] == "ConcurrencyError"
        assert not refused.events, "exceptions are not recorded: their messages may hold data"
        sqlite = {"db.system.name": "sqlite"}
        assert collected.points("lexigram.events.appended") == [(sqlite, 2)]
        assert collected.points("lexigram.events.read") == [(sqlite, 2)]
        assert [value for _, value in collected.points("lexigram.events.conflicts")] == [1]
        durations = [labels for labels, _ in collected.points("db.client.operation.duration")]
        assert {
            "db.system.name": "sqlite",
            "db.operation.name": "append",
            "error.type": "ConcurrencyError",
        } in durations
    shown = "".join(span.to_json() for span in collected.spans.get_finished_spans())
    assert "4711" not in shown
    assert str(tmp_path) not in shown


async def test_names_are_those_of_the_conventions() -> None:
    """Of every attribute and metric that is not our own; what they require is there, and one event is no batch."""
    collected = Collected()
    store, bus = InMemoryEventStore(), EventBusImpl(config=EventBusConfig(max_handler_retries=0))

    async def on_paid(event: Paid) -> None:
        raise LookupError

    bus.subscribe(Paid, on_paid)
    collected.telemetry.instrument(store, bus)
    event = Paid(card="4711").with_correlation_id("c")
    await store.append("a", [event])
    await store.append("a", [Paid(card="1"), Paid(card="2")])
    await store.read("a")
    with pytest.raises(ConcurrencyError):
        await store.append("a", [Paid(card="3")], expected_version=0)
    await bus.publish(event)
    await bus.close()
    spans = collected.spans.get_finished_spans()
    assert [span.attributes.get("db.operation.batch.size") for span in spans if span.name == "append"] == [
        None,
        2,
        None,
    ]
    assert {"messaging.system", "messaging.operation.name"} <= collected.span("process Paid").attributes.keys()
    ((labels, _),) = collected.points("messaging.process.duration")
    assert {"messaging.system", "messaging.operation.name"} <= labels.keys()
    known = {
        value
        for module in (db_attributes, messaging_attributes, error_attributes, db_metrics, messaging_metrics)
        for value in vars(module).values()
        if isinstance(value, str)
    }
    data = collected.metrics.get_metrics_data()
    metrics = [each for resource in data.resource_metrics for scope in resource.scope_metrics for each in scope.metrics]
    used = {each.name for each in metrics}
    used |= {key for each in metrics for point in each.data.data_points for key in point.attributes}
    used |= {key for span in spans for key in span.attributes}
    assert len(used) > 10
    assert {name for name in used if not name.startswith("lexigram.")} <= known


@pytest.mark.parametrize("backend", ["sqlite", "postgres", "mongodb", "redis"])
async def test_the_size_of_group_commits_is_measured(make_store: MakeStore, backend: str) -> None:
    """The sum over all commits is the number of appends."""
    collected = Collected()
    async with make_store(backend) as store:
        collected.telemetry.instrument(store)
        await asyncio.gather(*(store.append(f"s{n}", [Paid(card="x")]) for n in range(40)))
        for _ in range(100):
            if [value for _, value in collected.points("lexigram.events.commit.batch_size")] == [40]:
                break
            await asyncio.sleep(0.02)
        assert [value for _, value in collected.points("lexigram.events.commit.batch_size")] == [40]


async def test_a_trace_goes_through_command_event_and_handlers() -> None:
    """One trace: the command's span is the parent of the append's, and the event carries it to its handlers."""
    collected = Collected()
    store, commands, events = InMemoryEventStore(), CommandBusImpl(), EventBusImpl()
    handled = asyncio.Event()

    async def pay(command: Pay) -> None:
        event = Paid(card=command.card)
        await store.append("order-1", [event])
        await events.publish(event)

    async def on_paid(event: Paid) -> None:
        handled.set()

    commands.register(Pay, pay)
    events.subscribe(Paid, on_paid)
    collected.telemetry.instrument(store, commands, events)
    await commands.dispatch(Pay(card="4711"))
    await asyncio.wait_for(handled.wait(), 5)
    await events.close()
    command, append, event = (collected.span(name) for name in ("process Pay", "append", "process Paid"))
    assert command.kind is event.kind is SpanKind.CONSUMER
    assert {span.context.trace_id for span in (command, append, event)} == {command.context.trace_id}
    assert append.parent.span_id == event.parent.span_id == command.context.span_id
    assert event.attributes["messaging.destination.name"] == "Paid"
    assert event.attributes["messaging.operation.type"] == "process"
    (stored,) = await store.read("order-1")
    assert stored.metadata["traceparent"].split("-")[1] == f"{command.context.trace_id:032x}"


async def test_an_event_that_a_handler_cannot_handle_is_an_error() -> None:
    """Though the bus raises nothing: it has kept the event among its dead letters. The message is not in the trace."""
    collected = Collected()
    events = EventBusImpl(config=EventBusConfig(max_handler_retries=0))

    async def on_paid(event: Paid) -> None:
        raise LookupError(f"no card {event.card}")

    events.subscribe(Paid, on_paid)
    collected.telemetry.instrument(events)
    await events.publish(Paid(card="4711"))
    await events.close()
    span = collected.span("process Paid")
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "LookupError")
    assert "4711" not in span.to_json()
    ((attributes, _),) = collected.points("messaging.process.duration")
    assert attributes["error.type"] == "LookupError"


async def test_the_lag_of_projections_is_a_gauge() -> None:
    """Per projection."""
    collected = Collected()
    store = InMemoryEventStore()
    projection = InlineProjection("payments")
    projection.handle(Paid)(lambda event: None)
    async with ProjectionManager(store) as manager:
        manager.register(projection)
        collected.telemetry.instrument(manager)
        await store.append("a", [Paid(card="1")])
        await manager.wait_for("payments", 1, timeout=5)
        labels = {"lexigram.projection.name": "payments"}
        assert collected.points("lexigram.events.projection.lag") == [(labels, 0)]
        assert collected.points("lexigram.events.projection.position") == [(labels, 1)]


async def test_removing_leaves_everything_as_it_was() -> None:
    """No span after it, and the store's own methods again: what is not instrumented costs nothing."""
    collected = Collected()
    store, bus = InMemoryEventStore(), CommandBusImpl()

    async def pay(command: Pay) -> str:
        return command.card

    bus.register(Pay, pay)
    collected.telemetry.instrument(store, bus)
    assert "append" in vars(store)
    collected.telemetry.remove()
    collected.telemetry.remove()
    assert not {"append", "read", "read_all", "query"} & vars(store).keys()
    assert store._wakeup.observe_batch is None
    await store.append("a", [Paid(card="1")])
    assert await bus.dispatch(Pay(card="2")) == "2"
    assert collected.spans.get_finished_spans() == ()


async def test_instrumenting_twice_is_instrumenting_once() -> None:
    """One span for each call, and one removal takes everything out."""
    collected, store, bus = Collected(), InMemoryEventStore(), CommandBusImpl()
    for _ in range(2):
        collected.telemetry.instrument(store, bus)
    await store.append("a", [Paid(card="1")])
    collected.span("append")
    collected.telemetry.remove()
    assert not {"append", "read", "read_all", "query"} & vars(store).keys()
    collected.telemetry.instrument(store)
    assert "append" in vars(store)


def test_other_things_are_refused_by_name() -> None:
    """With what can be instrumented."""
    with pytest.raises(EventValidationError, match="stores, buses and projection managers"):
        Collected().telemetry.instrument(object())
