"""The message being handled: what is emitted meanwhile takes its correlation, causation, user, tenant and trace.

The context variable holds the message itself; a `MessageContext` is made only when somebody asks for one, so that
entering and leaving cost two context variable operations. Source: design of messages, semantics section 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from lexigram.contracts.events.messages import Message, MessageMetadata
from lexigram.events import _core

_TRACEPARENT: Final = re.compile(r"00-(?!0+-)[0-9a-f]{32}-(?!0+-)[0-9a-f]{16}-01")


def id_of(message: Any) -> Any:
    """Return the id of a message, or None if it has none; a field `event_id` of a command or query is no id of its own."""
    found = None if isinstance(message, Message) else getattr(message, "event_id", None)
    return getattr(message, "id", None) if found is None else found


@dataclass(frozen=True, slots=True)
class MessageContext:
    """What messages constructed now inherit.

    Args:
        message_id: Id of the message being handled; becomes `causation_id` of what is emitted.
        correlation_id: Correlation id to pass on; the handled message's id if it has none.
        causation_id: Causation id of the message being handled.
        traceparent: W3C trace context of the message being handled.
    """

    message_id: UUID | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    user_id: str | None = None
    tenant_id: str | None = None
    traceparent: str | None = None
    custom: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Any) -> MessageContext:
        """Return the context that handling `message` establishes; an event, command or query."""
        message_id = id_of(message)
        metadata = getattr(message, "metadata", None)
        ids = metadata if isinstance(message, Message) else message
        if isinstance(metadata, Mapping):
            custom: Mapping[str, Any] = metadata
            user_id, tenant_id = metadata.get("user_id"), metadata.get("tenant_id")
        else:
            custom = getattr(metadata, "custom", None) or {}
            user_id, tenant_id = getattr(metadata, "user_id", None), getattr(metadata, "tenant_id", None)
        return cls(
            message_id=message_id,
            correlation_id=getattr(ids, "correlation_id", None) or message_id,
            causation_id=getattr(ids, "causation_id", None),
            user_id=getattr(ids, "actor_id", None) or user_id,
            tenant_id=tenant_id,
            traceparent=custom.get("traceparent") or _traceparent(metadata, message_id),
            custom=custom,
        )


def _traceparent(metadata: Any, message_id: Any) -> str | None:
    """Return the W3C trace context that a command's `trace_id` and `span_id` mean; None if they are none of that.

    Without a span id the message itself is the parent, so that the trace goes on.
    """
    trace_id = getattr(metadata, "trace_id", None)
    if trace_id is None:
        return None
    span_id = getattr(metadata, "span_id", None)
    if span_id is None and isinstance(message_id, UUID):
        span_id = message_id.hex[16:]
    found = f"00-{trace_id}-{span_id}-01"
    return found if _TRACEPARENT.fullmatch(found) else None


_current: ContextVar[Any] = ContextVar("lexigram_events_message", default=None)

_core.install_context(_current)

enter_message = _current.set
"""Make `message` (or a `MessageContext`) the current one; give the token to `leave_message` in the same context."""

leave_message = _current.reset
"""Undo `enter_message`."""


def current_context() -> MessageContext | None:
    """Return the context of the message being handled, or None outside of any handling."""
    current = _current.get()
    return current if current is None or isinstance(current, MessageContext) else MessageContext.of(current)


def inherited_metadata(current: Any) -> MessageMetadata:
    """Return the metadata of a command or query constructed while `current` is handled."""
    context = current if isinstance(current, MessageContext) else MessageContext.of(current)
    handled = getattr(current, "metadata", None)
    return MessageMetadata(
        correlation_id=context.correlation_id or context.message_id,
        causation_id=context.message_id,
        user_id=context.user_id,
        tenant_id=context.tenant_id,
        trace_id=getattr(handled, "trace_id", None),
        span_id=getattr(handled, "span_id", None),
        custom={} if context.traceparent is None else {"traceparent": context.traceparent},
    )


@contextmanager
def message_context(message: Any) -> Iterator[None]:
    """Handle `message` (or act for the given `MessageContext`) within this block."""
    token: Token[Any] = _current.set(message)
    try:
        yield
    finally:
        _current.reset(token)
