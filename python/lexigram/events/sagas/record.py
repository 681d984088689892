"""A saga record as bytes, through the one codec."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import Any

from lexigram.events.exceptions import SerializationError
from lexigram.events.messages.codec import EventCodec
from lexigram.events.sagas.types import SagaRecord, SagaStatus, SagaStepRecord, SagaStepStatus, UnreadValue

_KEPT_APART = ("version",)
_WITH_USER_VALUES = ("data", "metadata")
_WHOLE = "$unread"
_OFTEN_EMPTY = ("positions", "handled", "pending", "pending_attempts", "ending", "timers", "wake_at", "children")


def encode_record(codec: EventCodec, record: SagaRecord) -> str:
    """Return a record as text.

    Raises:
        SerializationError: LEX_ERR_EVT_025; names the field that cannot be stored.
    """
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    for name in _KEPT_APART:
        del values[name]
    for name in _OFTEN_EMPTY:
        if not values[name]:
            del values[name]  # left out, so that the usual saga is short
    values["status"] = record.status.value
    if record.pending:
        values["pending"] = [_command_text(codec, record, command) for command in record.pending]
    if record.ending is not None:
        values["ending"] = record.ending.value
    values["steps"] = [_plain_step(step) for step in record.steps.values()]
    try:
        if not record.unread:
            return codec.encode_value(values).decode("utf-8")
        for name in _WITH_USER_VALUES:
            values[name] = _readable(values[name])
        for step in values["steps"]:
            step["output"] = _readable(step["output"])
        return _with_unread(json.loads(codec.encode_value(values)), record)
    except SerializationError as error:
        raise SerializationError(
            f"Saga {record.saga_name} {record.saga_id}: {error}", field=error.field, cause=error
        ) from error


def decode_record(codec: EventCodec, text: str | bytes, version: int) -> SagaRecord:
    """Return the record of stored text; fields of a later release are ignored, missing ones take their defaults.

    A value in `data`, `metadata` or an output whose class is not known here becomes an `UnreadValue`.
    """
    payload = text.encode("utf-8") if isinstance(text, str) else text
    try:
        values: dict[str, Any] = codec.decode_value(payload)
    except SerializationError:
        values = _read_in_parts(codec, codec.parse(payload))
    values["status"] = SagaStatus(values["status"])
    if "pending" in values:
        values["pending"] = [_command(codec, text) for text in values["pending"]]
    if "ending" in values:
        values["ending"] = SagaStatus(values["ending"])
    steps = [_step(plain) for plain in values["steps"]]
    values["steps"] = {step.step_name: step for step in steps}
    known = {field.name for field in dataclasses.fields(SagaRecord)}
    return SagaRecord(**{name: value for name, value in values.items() if name in known}, version=version)


def _read_in_parts(codec: EventCodec, plain: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a record of which something cannot be read, with an `UnreadValue` for that alone."""
    parts = {name: plain.pop(name, {}) for name in _WITH_USER_VALUES}
    outputs = [step.pop("output", {}) for step in plain["steps"]]
    values: dict[str, Any] = codec.decode_value(json.dumps(plain).encode("utf-8"))
    values.update((name, _read(codec, part)) for name, part in parts.items())
    for step, output in zip(values["steps"], outputs, strict=True):
        step["output"] = _read(codec, output)
    return values


def _read(codec: EventCodec, plain: Any) -> dict[str, Any]:
    if not isinstance(plain, dict) or any(name.startswith("$") for name in plain):  # keys that are no plain text
        found = _value(codec, plain)
        return {_WHOLE: found} if isinstance(found, UnreadValue) else found
    return {name: _value(codec, value) for name, value in plain.items()}


def _value(codec: EventCodec, plain: Any) -> Any:
    try:
        return codec.decode_value(json.dumps(plain).encode("utf-8"))
    except SerializationError as error:
        return UnreadValue(plain, error.message)


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, UnreadValue)}


def _with_unread(plain: dict[str, Any], record: SagaRecord) -> str:
    """Put what could not be read back where it was."""
    for name in _WITH_USER_VALUES:
        plain[name] = _restored(plain[name], getattr(record, name))
    for stored, step in zip(plain["steps"], record.steps.values(), strict=True):
        stored["output"] = _restored(stored["output"], step.output)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _restored(plain: dict[str, Any], values: dict[str, Any]) -> Any:
    unread = {name: value.plain for name, value in values.items() if isinstance(value, UnreadValue)}
    return unread.get(_WHOLE, {**plain, **unread})


@dataclasses.dataclass(frozen=True)
class UnreadCommand:
    """A stored command whose class this program does not know; it is kept as it is until one does.

    Args:
        text: As stored.
        error: Why it cannot be read.
    """

    text: str
    error: str


def _command_text(codec: EventCodec, record: SagaRecord, command: Any) -> str:
    if isinstance(command, UnreadCommand):
        return command.text
    try:
        return codec.encode_value(command).decode("utf-8")
    except SerializationError as error:
        raise SerializationError(
            f"{type(command).__name__}, returned by saga {record.saga_name} {record.saga_id}: {error}",
            field=error.field,
            cause=error,
        ) from error


def _command(codec: EventCodec, text: str) -> Any:
    """Return a command; one that cannot be read here stops only its own saga, and only when its turn comes."""
    try:
        return codec.decode_value(text.encode("utf-8"))
    except SerializationError as error:
        return UnreadCommand(text, str(error))


def microseconds(moment: datetime | None) -> int | None:
    """Return a moment as stores index it: microseconds since 1970; None stays None."""
    return None if moment is None else round(moment.timestamp() * 1_000_000)


def _plain_step(step: SagaStepRecord) -> dict[str, Any]:
    plain = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    plain["status"] = step.status.value
    if step.retry_at is None:
        del plain["retry_at"]
    return plain


def _step(plain: dict[str, Any]) -> SagaStepRecord:
    known = {field.name for field in dataclasses.fields(SagaStepRecord)}
    values = {name: value for name, value in plain.items() if name in known}
    return SagaStepRecord(**{**values, "status": SagaStepStatus(values["status"])})


def names_statement(table: str) -> str:
    """Return the SQL that selects every saga's name once, by the index on names: one look-up for each."""
    following = f"SELECT min(saga_name) FROM {table}"
    return (
        f"WITH RECURSIVE names(name) AS ({following} UNION ALL "
        f"SELECT ({following} WHERE saga_name > name) FROM names WHERE name IS NOT NULL) "
        "SELECT name FROM names WHERE name IS NOT NULL"
    )
