"""Names and limits shared by several packages. Source: spec/reference-surface.md."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

ENV_PREFIX: Final = "LEX_EVENTS__"
ENV_NESTED_DELIMITER: Final = "__"

MAX_STREAM_ID_LENGTH: Final = 255
"""Longest stream id in characters; the shortest limit among the backends' index keys."""

TABLE_NAME_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
"""Of tables, schemas and collections; PostgreSQL keeps 63 characters."""

NAMESPACE_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_:.-]{0,62}"
"""Of a namespace of Redis keys."""

DATABASE_NAME_PATTERN: Final = r"""[^/\\. "$\0]{1,63}"""
"""Of a MongoDB database."""


class StoreType(StrEnum):
    """Event store backends by name."""

    MEMORY = "memory"
    POSTGRES = "postgres"
    MONGODB = "mongodb"
    SQLITE = "sqlite"
    REDIS = "redis"


class HandlerType(StrEnum):
    """What a decorated function or class handles."""

    COMMAND = "command"
    QUERY = "query"
    EVENT = "event"
    SAGA = "saga"
    PROJECTION = "projection"


class HealthStatus(StrEnum):
    """Outcome of a health check."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"


class OperationStatus(StrEnum):
    """Progress of an operation as shown to an operator."""

    SUCCESS = "success"
    ERROR = "error"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class FilterOperator(StrEnum):
    """How a composite filter joins its parts."""

    AND = "and"
    OR = "or"


class EnvelopeField(StrEnum):
    """Keys of a serialised event envelope."""

    EVENT_TYPE = "event_type"
    TIMESTAMP = "timestamp"
    AGGREGATE_ID = "aggregate_id"
    AGGREGATE_TYPE = "aggregate_type"
    VERSION = "version"
    CORRELATION_ID = "correlation_id"
    CAUSATION_ID = "causation_id"
    METADATA = "metadata"
    EVENT_DATA = "event_data"


class MessageMetaKey(StrEnum):
    """Keys of message metadata on the wire."""

    MESSAGE_TYPE = "message_type"
    MESSAGE_ID = "message_id"
    TIMESTAMP = "timestamp"
    CORRELATION_ID = "correlation_id"
    CAUSATION_ID = "causation_id"


class SchemaType(StrEnum):
    """JSON Schema primitive types."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    ARRAY = "array"
    OBJECT = "object"
    NULL = "null"


class TransactionPropagation(StrEnum):
    """What the transaction middleware does when a transaction is already open."""

    REQUIRED = "required"
    REQUIRES_NEW = "requires_new"
    SUPPORTS = "supports"


class WebSocketMessageType(StrEnum):
    """Messages a streaming client may send and receive."""

    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    PING = "ping"
    PONG = "pong"


EVENT_STORE_BACKENDS: Final[tuple[str, ...]] = ("memory", "sqlite", "redis", "mongodb", "postgres")
"""Store backends that can boot. Each has a row in `stores/registry_factories.py` and one in `di/backends.py`."""

EVENT_BUS_BACKENDS: Final[tuple[str, ...]] = ("memory",)
"""Event bus backends that can boot."""
