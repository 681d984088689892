"""A saga record as bytes, through the one codec."""

from __future__ import annotations

import dataclasses
from typing import Any

from lexigram.events.exceptions import SerializationError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.sagas.types import SagaRecord, SagaStatus, SagaStepRecord, SagaStepStatus

_KEPT_APART = ("version",)


def encode_record(codec: EventCodec, record: SagaRecord) -> str:
    """Return a record as text.

    Raises:
        SerializationError: LEX_ERR_EVT_025; names the field that cannot be stored.
    """
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    for name in _KEPT_APART:
        del values[name]
    values["status"] = record.status.value
    values["steps"] = [_plain_step(step) for step in record.steps.values()]
    try:
        return codec.encode_value(values).decode("utf-8")
    except SerializationError as error:
        raise SerializationError(
            f"Saga {record.saga_name} {record.saga_id}: {error}", field=error.field, cause=error
        ) from error


def decode_record(codec: EventCodec, text: str | bytes, version: int) -> SagaRecord:
    """Return the record of stored text; fields of a later release are ignored, missing ones take their defaults."""
    values: dict[str, Any] = codec.decode_value(text.encode("utf-8") if isinstance(text, str) else text)
    values["status"] = SagaStatus(values["status"])
    steps = [_step(plain) for plain in values["steps"]]
    values["steps"] = {step.step_name: step for step in steps}
    known = {field.name for field in dataclasses.fields(SagaRecord)}
    return SagaRecord(**{name: value for name, value in values.items() if name in known}, version=version)


def _plain_step(step: SagaStepRecord) -> dict[str, Any]:
    plain = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    plain["status"] = step.status.value
    return plain


def _step(plain: dict[str, Any]) -> SagaStepRecord:
    known = {field.name for field in dataclasses.fields(SagaStepRecord)}
    values = {name: value for name, value in plain.items() if name in known}
    return SagaStepRecord(**{**values, "status": SagaStepStatus(values["status"])})
