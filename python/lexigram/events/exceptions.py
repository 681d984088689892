"""Every exception of this package, with its stable code.

    LexigramError (framework)
    ├── EventError                      LEX_ERR_EVT_001   (framework contracts)
    │   ├── HandlerNotFoundError        LEX_ERR_EVT_002   (framework contracts)
    │   ├── DuplicateHandlerError       LEX_ERR_EVT_003   (framework contracts)
    │   ├── ConcurrencyError            LEX_ERR_EVT_004
    │   ├── CommandExecutionError       LEX_ERR_EVT_005
    │   ├── QueryExecutionError         LEX_ERR_EVT_006
    │   ├── EventHandlerError           LEX_ERR_EVT_008
    │   ├── EventLoadError              LEX_ERR_EVT_011
    │   ├── EventPersistenceError       LEX_ERR_EVT_012   (also InfrastructureError)
    │   ├── EventStoreError             LEX_ERR_EVT_013
    │   │   └── EventStoreConnectionError  LEX_ERR_EVT_014   (also AdapterConnectionError)
    │   ├── ProjectionBuildError        LEX_ERR_EVT_015
    │   │   └── ProjectionRebuildError  LEX_ERR_EVT_016
    │   ├── WebhookDeliveryError        LEX_ERR_EVT_018
    │   ├── SchemaError                 LEX_ERR_EVT_019
    │   ├── SecurityError               LEX_ERR_EVT_020
    │   ├── StreamingError              LEX_ERR_EVT_021
    │   ├── EventValidationError        LEX_ERR_EVT_024   (also ValueError)
    │   ├── SerializationError          LEX_ERR_EVT_025
    │   └── SagaError                   LEX_ERR_EVT_026
    ├── DomainError
    │   ├── StreamNotFoundError         LEX_ERR_EVT_007
    │   └── NotFoundError
    │       ├── AggregateNotFoundError  LEX_ERR_EVT_009
    │       └── ProjectionNotFoundError LEX_ERR_EVT_017
    └── InfrastructureError
        └── AdapterConnectionError      LEX_ERR_EVT_010

Codes 022 and 023 belong to the schema package. Source: spec/reference-surface.md.
"""

from __future__ import annotations

from typing import Any

from lexigram.contracts.exceptions.domain import DomainError, NotFoundError
from lexigram.contracts.exceptions.events import DuplicateHandlerError, EventError, HandlerNotFoundError
from lexigram.contracts.exceptions.infra import InfrastructureError

__all__ = [
    "AdapterConnectionError",
    "AggregateNotFoundError",
    "CommandExecutionError",
    "ConcurrencyError",
    "DomainError",
    "DuplicateHandlerError",
    "EventError",
    "EventHandlerError",
    "EventLoadError",
    "EventPersistenceError",
    "EventStoreConnectionError",
    "EventStoreError",
    "EventValidationError",
    "HandlerNotFoundError",
    "InfrastructureError",
    "NotFoundError",
    "ProjectionBuildError",
    "ProjectionNotFoundError",
    "ProjectionRebuildError",
    "QueryExecutionError",
    "SagaError",
    "SchemaError",
    "SecurityError",
    "SerializationError",
    "StreamNotFoundError",
    "StreamingError",
    "WebhookDeliveryError",
]


def _with_details(kwargs: dict[str, Any], **details: Any) -> dict[str, Any]:
    """Merge the details that are not None into `kwargs["details"]`."""
    known = {name: value for name, value in details.items() if value is not None}
    return {**kwargs, "details": {**(kwargs.get("details") or {}), **known}}


def _rebuild(cls: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    """Recreate an exception whose constructor takes more than its message."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class Picklable(Exception):
    """Mixin, never raised itself: lets errors with required arguments cross process borders."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class ConcurrencyError(EventError):
    """The stream, or what an append condition watches, changed since it was read; nothing was written."""

    _code = "LEX_ERR_EVT_004"

    def __init__(
        self,
        message: str = "Concurrency error",
        expected_version: int | None = None,
        actual_version: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            message, **_with_details(kwargs, expected_version=expected_version, actual_version=actual_version)
        )
        self.expected_version = expected_version
        self.actual_version = actual_version


class CommandExecutionError(EventError):
    """A command handler failed with an unexpected error, kept as `__cause__`."""

    _code = "LEX_ERR_EVT_005"

    def __init__(
        self,
        message: str = "Command execution failed",
        command_type: str | None = None,
        error: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(message, **_with_details(kwargs, command_type=command_type, error=error))
        self.command_type = command_type
        self.error = error


class QueryExecutionError(EventError):
    """A query handler failed with an unexpected error, kept as `__cause__`."""

    _code = "LEX_ERR_EVT_006"

    def __init__(
        self,
        message: str = "Query execution failed",
        query_type: str | None = None,
        error: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(message, **_with_details(kwargs, query_type=query_type, error=error))
        self.query_type = query_type
        self.error = error


class StreamNotFoundError(Picklable, DomainError):
    """The stream does not exist."""

    _code = "LEX_ERR_EVT_007"

    def __init__(self, stream_type: str, stream_id: str, message: str | None = None, **kwargs: Any) -> None:
        super().__init__(
            message or f"{stream_type} stream {stream_id!r} does not exist",
            **_with_details(kwargs, stream_type=stream_type, stream_id=stream_id),
        )
        self.stream_type = stream_type
        self.stream_id = stream_id


class EventHandlerError(Picklable, EventError):
    """An event could not be handled: a handler failed, or nobody handles it."""

    _code = "LEX_ERR_EVT_008"

    def __init__(
        self, event_type: str, handler: str, error: str, cause: Exception | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            kwargs.pop("message", None) or f"{handler} could not handle {event_type}: {error}",
            cause=cause,
            **_with_details(kwargs, event_type=event_type, handler=handler, error=error),
        )
        self.event_type = event_type
        self.handler = handler
        self.error = error
        if cause is not None:
            self.__cause__ = cause


class AggregateNotFoundError(NotFoundError):
    """No aggregate with this id has any events."""

    _code = "LEX_ERR_EVT_009"


class AdapterConnectionError(InfrastructureError):
    """A message broker or store cannot be reached."""

    _code = "LEX_ERR_EVT_010"

    def __init__(self, message: str = "Infrastructure error", **kwargs: Any) -> None:
        super().__init__(message, **kwargs)


class EventLoadError(EventError):
    """Events could not be read back or replayed."""

    _code = "LEX_ERR_EVT_011"

    def __init__(self, message: str = "Event load error", **kwargs: Any) -> None:
        super().__init__(message, **kwargs)


class EventPersistenceError(InfrastructureError, EventError):
    """Events could not be written; nothing of the batch was."""

    _code = "LEX_ERR_EVT_012"

    def __init__(self, message: str = "Infrastructure error", **kwargs: Any) -> None:
        super().__init__(message, **kwargs)


class EventStoreError(EventError):
    """The event store failed or holds something it should not."""

    _code = "LEX_ERR_EVT_013"

    def __init__(self, message: str = "Event store error", **kwargs: Any) -> None:
        super().__init__(message, **kwargs)


class EventStoreConnectionError(EventStoreError, AdapterConnectionError):
    """The event store is not connected: never opened, closed, or unreachable."""

    _code = "LEX_ERR_EVT_014"

    def __init__(self, message: str = "Event store connection error", **kwargs: Any) -> None:
        super().__init__(message, **kwargs)


class ProjectionBuildError(EventError):
    """A projection could not apply an event."""

    _code = "LEX_ERR_EVT_015"


class ProjectionRebuildError(ProjectionBuildError):
    """A projection rebuild stopped; the old read model stays."""

    _code = "LEX_ERR_EVT_016"


class ProjectionNotFoundError(NotFoundError):
    """No projection is registered under this name."""

    _code = "LEX_ERR_EVT_017"


class WebhookDeliveryError(Picklable, EventError):
    """A webhook endpoint did not accept the event after all retries."""

    _code = "LEX_ERR_EVT_018"

    def __init__(self, url: str, status: int, message: str = "Webhook delivery failed", **kwargs: Any) -> None:
        super().__init__(message, **_with_details(kwargs, url=url, status=status))
        self.url = url
        self.status = status


class SchemaError(EventError):
    """Stored data and event schema do not fit together."""

    _code = "LEX_ERR_EVT_019"


class SecurityError(EventError):
    """A security rule was violated: encryption key, signature or destination."""

    _code = "LEX_ERR_EVT_020"


class StreamingError(EventError):
    """A live stream of events failed."""

    _code = "LEX_ERR_EVT_021"


class EventValidationError(EventError, ValueError):
    """An argument or a message field is not acceptable; `details["field"]` names it."""

    _code = "LEX_ERR_EVT_024"

    def __init__(self, message: str = "Invalid value", field: str | None = None, **kwargs: Any) -> None:
        super().__init__(message, **_with_details(kwargs, field=field))
        self.field = field


class SerializationError(EventError):
    """A value cannot be encoded, or bytes cannot be decoded; nothing was written."""

    _code = "LEX_ERR_EVT_025"

    def __init__(self, message: str = "Serialization error", field: str | None = None, **kwargs: Any) -> None:
        super().__init__(message, **_with_details(kwargs, field=field))
        self.field = field


class SagaError(EventError):
    """A saga cannot be started, resumed or changed as asked."""

    _code = "LEX_ERR_EVT_026"
