"""The one codec: events to bytes and back, everywhere.

JSON payloads are an object with the event's fields under their names and a part `$meta` for the rest. A value that is
of its field's annotated type is written in the usual form of that type (a UUID as text); any other value carries its
type (`{"$type": "decimal", "value": "1.50"}`), so that what comes back always equals what went in. Version and global
position are not in the payload: stores number events. Unknown fields found in stored data are kept as attributes,
missing ones take their defaults. Never pickle, never an import of something named in the data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from lexigram.contracts.domain.events import DomainEvent as ContractEvent

from lexigram.events.exceptions import EventValidationError, SerializationError
from lexigram.events.messages import shapes
from lexigram.events.messages._interpret import META_NODES, Interpreter, build_event
from lexigram.events.messages.event import DomainEvent
from lexigram.events.messages.registry import EventTypeRegistry, default_registry
from lexigram.events.messages.unknown import UnknownEvent

MAX_PAYLOAD_BYTES: Final = 64 * 1024 * 1024
"""Largest payload in bytes, written or read."""
MAX_JSON_DEPTH: Final = 512
"""Deepest nesting of JSON arrays and objects read."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class EncodedEvent(NamedTuple):
    """One event as a store writes it; `payload` has everything except version and position."""

    event_id: bytes
    type_name: str
    event_type: str
    occurred_at_us: int
    tags: tuple[str, ...]
    payload: bytes


class EventCodec:
    """Turns events and values into bytes and back, with classes from a registry.

    Args:
        registry: Where stored names find their classes.
        format: "json" (readable) for what is written; both forms are always read.
        unknown: "event" gives an `UnknownEvent` for a type that is not registered, "raise" a `SerializationError`.

    Raises:
        EventValidationError: (LEX_ERR_EVT_024) unknown format or policy.
    """

    def __init__(
        self,
        registry: EventTypeRegistry = default_registry,
        format: Literal["json", "binary"] = "json",
        unknown: Literal["event", "raise"] = "event",
    ) -> None:
        if format not in ("json", "binary"):
            raise EventValidationError(f"format must be 'json' or 'binary', not {format!r}", field="format")
        if unknown not in ("event", "raise"):
            raise EventValidationError(f"unknown must be 'event' or 'raise', not {unknown!r}", field="unknown")
        self.registry = registry
        self.format = format
        self.unknown = unknown
        self._interpreter = Interpreter(registry)

    def encode(self, event: ContractEvent) -> EncodedEvent:
        """Return an event as it is stored.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) a value cannot be stored; names event type and field. Nothing is kept.
        """
        cls = type(event)
        if not isinstance(event, ContractEvent):
            raise EventValidationError(f"an event expected, not {cls.__qualname__}", field="event")
        event_type = event.event_type or cls.__name__
        if not isinstance(event.event_id, UUID) or not isinstance(event.occurred_at, datetime):
            field = "occurred_at" if isinstance(event.event_id, UUID) else "event_id"
            raise SerializationError(f"{cls.__name__}.{field}: a UUID and a datetime expected", field=field)
        tags = tuple(getattr(event, "tags", ()) or ()) if hasattr(event, "with_tags") else ()
        if isinstance(event, UnknownEvent):
            type_name, payload = event.type_name, event.payload
        else:
            type_name = self.registry.type_name(cls)
            record = shapes.record_for(cls)
            assert record is not None
            payload = self._dump(cls.__name__, lambda: self._interpreter.event_json(record, event, "", 0))
        moment = event.occurred_at if event.occurred_at.tzinfo else event.occurred_at.replace(tzinfo=UTC)
        return EncodedEvent(
            event.event_id.bytes, type_name, str(event_type), (moment - _EPOCH) // _MICROSECOND, tags, payload
        )

    def decode(
        self, type_name: str, event_type: str, payload: bytes, version: int, sequence_number: int | None
    ) -> ContractEvent:
        """Return the event of a stored row, class included.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) the bytes are damaged or do not fit the class; names the field.
        """
        return self.build(type_name, event_type, self.parse(payload), version, sequence_number, payload)

    def decode_rows(self, rows: Iterable[Sequence[Any]]) -> list[ContractEvent]:
        """Return the events of many rows `(type_name, event_type, payload, version, sequence_number)`, in order."""
        return [self.decode(*row) for row in rows]

    def parse(self, payload: bytes) -> dict[str, Any]:
        """Return the data of a payload before any class is involved: fields under their names, the rest in `$meta`."""
        data = _loads(payload)
        if not isinstance(data, dict):
            raise SerializationError("payload: an object expected", field="payload")
        return data

    def build(
        self,
        type_name: str,
        event_type: str,
        data: dict[str, Any],
        version: int,
        sequence_number: int | None,
        payload: bytes | None = None,
    ) -> ContractEvent:
        """Return the event of data from `parse`, possibly changed by upcasters (which may put Python values in)."""
        cls = self.registry.resolve(type_name, event_type)
        if cls is not None and cls is not UnknownEvent:
            record = shapes.record_for(cls)
            if record is not None and record.style in ("event", "contract"):
                raw = data if payload is not None else self._interpreter.raw_json(data, "")
                event = self._named(type_name, lambda: self._interpreter.event_from_json(record, raw, "", 0))
                return self._numbered(event, version, sequence_number)
        if self.unknown == "raise":
            raise SerializationError(f"event type {type_name!r} is not registered", field="type_name")
        event = self._named(type_name, lambda: self._unknown(type_name, event_type, data, payload))
        return self._numbered(event, version, sequence_number)

    def _unknown(self, type_name: str, event_type: str, data: dict[str, Any], payload: bytes | None) -> ContractEvent:
        record = shapes.Record(DomainEvent, "event")
        record._fields = ()
        event = self._interpreter.event_from_json(record, {"$meta": data.get("$meta", {})}, "", 0)
        kept = payload if payload is not None else _dumps(self._interpreter.raw_json(data, ""))
        fields = {name: getattr(event, name) for name in META_NODES}
        if "event_type" not in data.get("$meta", {}):
            fields["event_type"] = event_type
        plain = {name: value for name, value in data.items() if name != "$meta"}
        return build_event(UnknownEvent, {**fields, "type_name": type_name, "payload": kept, "data": plain}, {})

    def _numbered(self, event: ContractEvent, version: int, sequence_number: int | None) -> ContractEvent:
        object.__setattr__(event, "version", version)
        object.__setattr__(event, "sequence_number", sequence_number)
        return event

    def encode_value(self, value: Any, type_: Any = Any) -> bytes:
        """Return any value as bytes: snapshots, saga data, dead letters.

        Args:
            value: Built-in types, dataclasses, pydantic models, enums, events, and containers of them.
            type_: Annotation to write it under; decode with the same one.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) something in it cannot be stored; names the path.
        """
        node = shapes.node_for(type_)
        return self._dump("", lambda: self._interpreter.to_json(node, value, "", 0))

    def decode_value(self, data: bytes, type_: Any = Any) -> Any:
        """Return the value of bytes written by `encode_value` with the same `type_`.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) damaged bytes, or data that does not fit.
        """
        return self._interpreter.from_json(shapes.node_for(type_), _loads(data), "", 0)

    def _dump(self, name: str, make: Callable[[], Any]) -> bytes:
        payload = _dumps(self._named(name, make))
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise SerializationError(f"{name or 'value'}: larger than {MAX_PAYLOAD_BYTES} bytes", field="payload")
        return payload

    def _named(self, name: str, make: Callable[[], Any]) -> Any:
        """Run a conversion and put the event type in front of what it raises."""
        try:
            return make()
        except SerializationError as error:
            if not name:
                raise
            raise SerializationError(f"{name}.{error.message}", field=error.field) from error.__cause__
        except RecursionError:
            raise SerializationError(f"{name or 'value'}: nested too deeply") from None


def _dumps(data: Any) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, but an escape
        return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _loads(payload: bytes) -> Any:
    if not isinstance(payload, bytes | bytearray | memoryview | str):
        raise SerializationError(f"payload: bytes expected, not {type(payload).__name__}", field="payload")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise SerializationError(f"payload: larger than {MAX_PAYLOAD_BYTES} bytes", field="payload")
    try:
        text = payload if isinstance(payload, str) else bytes(payload).decode()
        return json.loads(text, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"payload: not JSON: {error}", field="payload") from error
