"""The one codec: events to bytes and back, everywhere.

JSON payloads are an object with the event's fields under their names and a part `$meta` for the rest. A value that is
of its field's annotated type is written in the usual form of that type (a UUID as text); any other value carries its
type (`{"$type": "decimal", "value": "1.50"}`), so that what comes back always equals what went in. The binary form says
the same in fewer bytes. Version and global position are not in the payload: stores number events.

Unknown fields in stored data are kept as attributes where the class has room for them; missing fields take their
defaults. Events and values are made without running `__init__` or validators. Nothing is ever pickled, nothing named
in the data is ever imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

from lexigram.contracts.domain.events import DomainEvent as ContractEvent
from lexigram.events import _core
from lexigram.events._core import EncodedEvent as EncodedEvent
from lexigram.events.exceptions import EventValidationError, SerializationError
from lexigram.events.messages import shapes
from lexigram.events.messages.message import MessageMetadata
from lexigram.events.messages.registry import EventTypeRegistry, default_registry
from lexigram.events.messages.stamping import rebuild
from lexigram.events.messages.unknown import UnknownEvent

MAX_PAYLOAD_BYTES: Final = _core.MAX_PAYLOAD_BYTES
"""Largest payload in bytes, written or read."""
MAX_DEPTH: Final = _core.MAX_VALUE_DEPTH
"""Deepest nesting of values, written or read."""

# Commands that were put aside with their metadata come back in another process too.
default_registry.register(MessageMetadata)


class EventCodec:
    """Turns events and values into bytes and back, with classes from a registry.

    Args:
        registry: Where stored names find their classes.
        format: "json" (readable) or "binary" (compact) for what is written; both are always read.
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
        self._core = _core.CodecCore(registry, format == "binary")
        self._plans: dict[Any, Any] = {Any: _core.compile_node(shapes.ANY)}
        if type(self) is EventCodec:
            # The method below without its Python frame, which costs a tenth of the work.
            vars(self)["encode"] = self._core.encode

    def encode(self, event: ContractEvent) -> EncodedEvent:
        """Return an event as it is stored; costs about a microsecond for a dozen fields.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) a value cannot be stored; names event type and field.
            EventValidationError: (LEX_ERR_EVT_024) not an event.
        """
        return self._core.encode(event)

    def decode(
        self, type_name: str, event_type: str, payload: bytes, version: int, sequence_number: int | None
    ) -> ContractEvent:
        """Return the event of a stored row, class included.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) the bytes are damaged or do not fit the class; names the field.
        """
        event = self._core.decode(type_name, event_type, payload, version, sequence_number)
        return self._unknown(type_name, event_type, payload, version, sequence_number) if event is None else event

    def decode_rows(self, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """Return the events of many rows `(type_name, event_type, payload, version, sequence_number)`, in order.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) as `decode`, at the first row that fails.
        """
        return self._core.decode_rows(rows, self._unknown)

    def parse(self, payload: bytes) -> dict[str, Any]:
        """Return the data of a payload before any class is involved: fields under their names, the rest in `$meta`.

        Both forms give the same data. `build` makes the event of it.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) the bytes are damaged.
        """
        data = _loads(payload)
        if not isinstance(data, dict):
            raise SerializationError("payload: an object expected", field="payload")
        return data

    def build(
        self, type_name: str, event_type: str, data: dict[str, Any], version: int, sequence_number: int | None
    ) -> ContractEvent:
        """Return the event of data from `parse`, possibly changed by upcasters (which may put Python values in).

        Raises:
            SerializationError: (LEX_ERR_EVT_025) the data does not fit the class; names the field.
        """
        payload = json.dumps(self._plain(data), separators=(",", ":")).encode()
        return self.decode(type_name, event_type, payload, version, sequence_number)

    def _plain(self, data: Any) -> Any:
        """Return data with everything that is not JSON in its tagged form."""
        if type(data) is dict and all(type(key) is str for key in data):
            return {key: self._plain(item) for key, item in data.items()}
        if type(data) is list:
            return [self._plain(item) for item in data]
        if data is None or type(data) in (str, int, bool):
            return data
        return _loads(self._core.encode_value(data, self._plans[Any]))

    def _unknown(
        self, type_name: str, event_type: str, payload: bytes, version: int, sequence_number: int | None
    ) -> ContractEvent:
        """Return the readable stand-in for an event whose class is not known here."""
        if self.unknown == "raise":
            raise SerializationError(f"event type {type_name!r} is not registered", field="type_name")
        data = self.parse(payload)
        meta = data.pop("$meta", None)
        # Read as an event without fields of its own, which checks the metadata and keeps all of it.
        bare = json.dumps({"$meta": meta}).encode()
        shell = self._core.decode(_SHELL, _SHELL, bare, version, sequence_number)
        fields, _ = _core.message_state(shell)
        fields.update(type_name=type_name, payload=_as_bytes(payload), data=data)
        if not isinstance(meta, dict) or "event_type" not in meta:
            fields["event_type"] = event_type
        return rebuild(UnknownEvent, fields, None)

    def encode_value(self, value: Any, type_: Any = Any) -> bytes:
        """Return any value as bytes: snapshots, saga data, dead letters.

        Args:
            value: Built-in types, dataclasses, pydantic models, enums, events, and containers of them.
            type_: Annotation to write it under; decode with the same one.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) something in it cannot be stored; names the path.
        """
        try:
            plan = self._plans[type_]
        except (KeyError, TypeError):
            plan = self._plan(type_)
        return self._core.encode_value(value, plan)

    def decode_value(self, data: bytes, type_: Any = Any) -> Any:
        """Return the value of bytes written by `encode_value` with the same `type_`.

        Raises:
            SerializationError: (LEX_ERR_EVT_025) damaged bytes, or data that does not fit.
        """
        try:
            plan = self._plans[type_]
        except (KeyError, TypeError):
            plan = self._plan(type_)
        return self._core.decode_value(data, plan)

    def _plan(self, type_: Any) -> Any:
        try:
            plan = self._plans.get(type_)
        except TypeError:  # an unhashable annotation
            return _core.compile_node(shapes.node_for(type_))
        if plan is None:
            plan = self._plans[type_] = _core.compile_node(shapes.node_for(type_))
        return plan


_SHELL = default_registry.type_name(UnknownEvent)


def _as_bytes(payload: Any) -> bytes:
    return payload.encode() if isinstance(payload, str) else bytes(payload)


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _loads(payload: bytes) -> Any:
    try:
        return json.loads(_core.CodecCore.to_json(payload), parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"payload: not JSON: {error}", field="payload") from error
