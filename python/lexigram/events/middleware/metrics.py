"""Counts and times messages. Source: spec/reference-surface.md, `lexigram.events.middleware.metrics`."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lexigram.contracts.observability.metrics import MetricsRecorderProtocol
from lexigram.events.middleware.base import AbstractMiddleware, NextHandler

Tags = tuple[tuple[str, str], ...]


@dataclass
class MessageMetrics:
    """How one message was handled. `duration_seconds` is wall-clock time, middleware further in included."""

    message_type: str
    started_at: datetime
    duration_seconds: float
    success: bool
    error_type: str | None = None
    error_message: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Distribution:
    """Summary of the values of one histogram."""

    count: int = 0
    total: float = 0.0
    minimum: float = float("inf")
    maximum: float = float("-inf")

    def add(self, value: float) -> None:
        """Take in one value."""
        self.count += 1
        self.total += value
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)


class InMemoryMetricsRecorder:
    """Keeps counters, gauges and histogram summaries in this process, and the last messages.

    Args:
        keep_messages: How many of the latest `MessageMetrics` to keep.
    """

    def __init__(self, keep_messages: int = 1000) -> None:
        self.counters: dict[tuple[str, Tags], float] = {}
        self.gauges: dict[tuple[str, Tags], float] = {}
        self.histograms: dict[tuple[str, Tags], Distribution] = {}
        self.messages: deque[MessageMetrics] = deque(maxlen=keep_messages)

    def increment(self, name: str, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Add to a counter."""
        key = (name, _key(tags))
        self.counters[key] = self.counters.get(key, 0.0) + value

    def gauge(self, name: str, value: float, tags: dict[str, str] | None = None) -> None:
        """Set a gauge."""
        self.gauges[name, _key(tags)] = value

    def histogram(self, name: str, value: float, tags: dict[str, str] | None = None) -> None:
        """Add a value to a histogram."""
        key = (name, _key(tags))
        distribution = self.histograms.get(key)
        if distribution is None:
            distribution = self.histograms[key] = Distribution()
        distribution.add(value)

    def record(self, metrics: MessageMetrics) -> None:
        """Keep one message's metrics."""
        self.messages.append(metrics)

    def count(self, name: str, **tags: str) -> float:
        """Return the sum of all counters of this name that have these tags."""
        wanted = tags.items()
        return sum(
            value for (known, have), value in self.counters.items() if known == name and wanted <= dict(have).items()
        )


class MetricsMiddleware(AbstractMiddleware[Any, Any]):
    """Records `<prefix>.messages` (counter) and `<prefix>.duration_seconds` (histogram), tagged by type and outcome.

    Args:
        recorder: The framework's recorder; in memory by default. One with `record(MessageMetrics)` gets those too.
        metric_prefix: First part of the metric names.
        include_histograms: Whether to record durations at all.
    """

    def __init__(
        self,
        recorder: MetricsRecorderProtocol | None = None,
        metric_prefix: str = "cqrs",
        *,
        include_histograms: bool = True,
    ) -> None:
        self._recorder: Any = recorder if recorder is not None else InMemoryMetricsRecorder()
        self._counter = f"{metric_prefix}.messages"
        self._histogram = f"{metric_prefix}.duration_seconds" if include_histograms else None
        self._record = getattr(self._recorder, "record", None)

    @property
    def recorder(self) -> Any:
        """Where the metrics go."""
        return self._recorder

    async def __call__(self, message: Any, next_handler: NextHandler) -> Any:
        """Hand the message on and record the outcome; errors and cancellation go on unchanged."""
        started = time.perf_counter()
        try:
            result = await next_handler(message)
        except BaseException as error:
            self._note(message, started, type(error).__name__)
            raise
        self._note(message, started, None)
        return result

    def _note(self, message: Any, started: float, error_type: str | None) -> None:
        """Record one message."""
        seconds = time.perf_counter() - started
        name = type(message).__name__
        tags = {"type": name, "outcome": "success" if error_type is None else "failure"}
        self._recorder.increment(self._counter, 1.0, tags)
        if self._histogram is not None:
            self._recorder.histogram(self._histogram, seconds, tags)
        if self._record is not None:
            begun = datetime.now(UTC) - timedelta(seconds=seconds)
            self._record(MessageMetrics(name, begun, seconds, error_type is None, error_type))


def _key(tags: dict[str, str] | None) -> Tags:
    return tuple(sorted(tags.items())) if tags else ()
