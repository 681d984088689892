"""OpenTelemetry spans and metrics; nothing is changed and nothing costs anything until `Telemetry.instrument` is called.

Names follow the semantic conventions for databases and messaging. Neither spans nor metrics carry payloads, parameters or
addresses. Source: design, issue "Five real backends", observability.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lexigram.events.buses._results import DispatchResult
from lexigram.events.buses.base import Bus
from lexigram.events.exceptions import ConcurrencyError, EventValidationError
from lexigram.events.messages.context import MessageContext, enter_message, leave_message
from lexigram.events.projections.manager import ProjectionManager
from lexigram.events.stores.base import AbstractEventStore

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider

__all__ = ["Telemetry"]

SCOPE: Final = "lexigram.events"

_SYSTEMS: Final = {
    "PostgresEventStore": "postgresql",
    "SqliteEventStore": "sqlite",
    "MongoDBEventStore": "mongodb",
    "RedisEventStore": "redis",
}
_READS: Final = ("read", "read_all", "query")
_SECONDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)


class Telemetry:
    """Adds spans and metrics to stores, buses and projection managers.

    Args:
        tracer_provider: Where spans go; None = the global one.
        meter_provider: Where metrics go; None = the global one.

    Raises:
        EventValidationError: LEX_ERR_EVT_024; opentelemetry-api is not installed.

    Example:
        telemetry = Telemetry()
        telemetry.instrument(store, command_bus, event_bus, projections)
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise EventValidationError(
                "Telemetry needs opentelemetry-api: pip install 'lexigram-events[otel]'", field="otel"
            ) from error
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._operation = meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of store operations",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._process = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of handling messages",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._appended = meter.create_counter("lexigram.events.appended", "{event}", "Events stored")
        self._read = meter.create_counter("lexigram.events.read", "{event}", "Events read")
        self._conflicts = meter.create_counter(
            "lexigram.events.conflicts", "{append}", "Appends refused because of their expected version or condition"
        )
        self._batch = meter.create_histogram(
            "lexigram.events.commit.batch_size", "{append}", "Appends that share one commit of the database"
        )
        self._parts: list[Any] = []
        self._managers: list[ProjectionManager] = []
        meter.create_observable_gauge(
            "lexigram.events.projection.lag",
            [self._observe("lag")],
            "{event}",
            "Positions between a projection and the head of the log, as far as this process knows",
        )
        meter.create_observable_gauge(
            "lexigram.events.projection.position", [self._observe("position")], "{event}", "Position of a projection"
        )
        self._undo: list[Callable[[], object]] = []

    def instrument(self, *parts: Any) -> None:
        """Add spans and metrics to event stores, buses and projection managers, in any order; a second time does nothing.

        Raises:
            EventValidationError: LEX_ERR_EVT_024; one of them is something else. Those before it are instrumented.
        """
        for part in parts:
            if any(part is known for known in self._parts):
                continue
            if isinstance(part, AbstractEventStore):
                self._instrument_store(part)
            elif isinstance(part, Bus):
                middleware = self._middleware()
                part.use(middleware)
                self._undo.append(lambda bus=part, added=middleware: bus.unuse(added))  # type: ignore[misc]
            elif isinstance(part, ProjectionManager):
                self._managers.append(part)
            else:
                raise EventValidationError(
                    f"{type(part).__name__} cannot be instrumented; give stores, buses and projection managers",
                    field="parts",
                )
            self._parts.append(part)

    def remove(self) -> None:
        """Take all spans and metrics out again; twice is fine."""
        self._managers.clear()
        self._parts.clear()
        while self._undo:
            self._undo.pop()()

    def _instrument_store(self, store: AbstractEventStore) -> None:
        system = _SYSTEMS.get(type(store).__name__, "lexigram_memory")
        for name in ("append", *_READS):
            setattr(store, name, self._operation_of(store, name, getattr(store, name), system))
            self._undo.append(lambda name=name: delattr(store, name))  # type: ignore[misc]
        wakeup, attributes = store._wakeup, {"db.system.name": system}
        wakeup.observe_batch = lambda size: self._batch.record(size, attributes)
        self._undo.append(lambda: setattr(wakeup, "observe_batch", None))

    def _operation_of(self, store: Any, name: str, call: Callable[..., Any], system: str) -> Callable[..., Any]:
        """Return a store's method inside a span, with its metrics."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        plain = {"db.system.name": system, "db.operation.name": name}
        stream_first = name in ("append", "read")

        async def operation(*args: Any, **kwargs: Any) -> Any:
            attributes: dict[str, Any] = dict(plain)
            if stream_first:
                attributes["lexigram.stream.id"] = str(args[0] if args else kwargs.get("stream_id"))
            started, labels = time.perf_counter(), plain
            with self._tracer.start_as_current_span(
                name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    result = await call(*args, **kwargs)
                except BaseException as error:
                    kind = type(error).__name__
                    labels = {**plain, "error.type": kind}
                    span.set_attribute("error.type", kind)
                    span.set_status(Status(StatusCode.ERROR, kind))
                    if isinstance(error, ConcurrencyError):
                        self._conflicts.add(1, plain)
                    raise
                finally:
                    self._operation.record(time.perf_counter() - started, labels)
                if name == "append":
                    events = args[1] if len(args) > 1 else kwargs.get("events", ())
                    if len(events) > 1:  # the conventions: one operation is no batch
                        span.set_attribute("db.operation.batch.size", len(events))
                    self._appended.add(len(events), {"db.system.name": system})
                else:
                    span.set_attribute("db.response.returned_rows", len(result))
                    self._read.add(len(result), {"db.system.name": system})
                return result

        return operation

    def _middleware(self) -> Callable[..., Any]:
        """Return a middleware that handles each message in a span and passes the trace on to what is emitted."""
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()

        async def traced(message: Any, next_handler: Callable[[Any], Any]) -> Any:
            context = MessageContext.of(message)
            name = type(message).__name__
            parent = propagator.extract({"traceparent": context.traceparent}) if context.traceparent else None
            labels: dict[str, Any] = {
                "messaging.system": "lexigram",
                "messaging.operation.name": "process",
                "messaging.destination.name": name,
            }
            attributes = {
                **labels,
                "messaging.operation.type": "process",
                "messaging.message.id": str(context.message_id),
            }
            if context.correlation_id is not None:
                attributes["messaging.message.conversation_id"] = str(context.correlation_id)
            started = time.perf_counter()
            with self._tracer.start_as_current_span(
                f"process {name}",
                parent,
                SpanKind.CONSUMER,
                attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                carrier: dict[str, str] = {}
                propagator.inject(carrier)
                token = enter_message(replace(context, traceparent=carrier.get("traceparent", context.traceparent)))
                failed: type[BaseException] | None = None
                try:
                    result = await next_handler(message)
                    if isinstance(result, DispatchResult) and result.errors:
                        failed = result.errors[0][0]  # of the event's handlers: the bus raises none of their errors
                    return result
                except BaseException as error:
                    failed = type(error)
                    raise
                finally:
                    leave_message(token)
                    if failed is not None:
                        labels = {**labels, "error.type": failed.__name__}
                        span.set_attribute("error.type", failed.__name__)
                        span.set_status(Status(StatusCode.ERROR, failed.__name__))
                    self._process.record(time.perf_counter() - started, labels)

        return traced

    def _observe(self, what: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observed(_: CallbackOptions) -> Iterable[Observation]:
            from opentelemetry.metrics import Observation

            for manager in self._managers:
                for status in manager.list_status():
                    yield Observation(status[what], {"lexigram.projection.name": status["name"]})

        return observed
