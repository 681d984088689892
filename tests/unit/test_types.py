"""Data transfer objects in code and as JSON."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from lexigram.events.testing.samples import added
from lexigram.events.types import (
    Checkpoint,
    CommandResult,
    EventEnvelope,
    HandlerInfo,
    MiddlewareInfo,
    QueryResult,
    SagaData,
    SagaState,
    Snapshot,
    StreamInfo,
)

RECORDS: list[Any] = [
    Checkpoint(projection_name="p", stream_position=3, last_processed_event_id=uuid4()),
    CommandResult(success=True, data={"a": 1}),
    EventEnvelope(stream_id="s", event_type="E", event_data={"a": [1]}, version=1, correlation_id=uuid4()),
    HandlerInfo(handler_type="command", message_type="C", handler_class="H"),
    MiddlewareInfo(name="m", order=1),
    QueryResult(success=False, error="e"),
    SagaData(saga_id="s", saga_type="t", state=SagaState.RUNNING),
    Snapshot(aggregate_id="a", aggregate_type="A", version=1, state={"a": 1}),
    StreamInfo(stream_id="s", version=2),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_come_back_from_plain_data_and_json(record: Any) -> None:
    """Ids, times and enumerations included."""
    cls = type(record)
    for other in (
        cls.model_validate(record.model_dump()),
        cls.model_validate_json(record.model_dump_json()),
        cls.model_validate_json(record.model_dump_json().encode()),
        record.model_copy(),
        record.model_copy(deep=True),
    ):
        assert other == record
        assert {name: type(value) for name, value in vars(other).items()} == {
            name: type(value) for name, value in vars(record).items()
        }


def test_a_copy_keeps_the_events_in_it() -> None:
    """They are events, not their data; a deep copy has its own, and other fields can be given."""
    result = CommandResult(success=True, events=added("1"))
    copied, deep = result.model_copy(update={"error": "late"}), result.model_copy(deep=True)
    assert (copied.error, copied.events) == ("late", result.events)
    assert deep.events == result.events
    assert deep.events is not result.events
