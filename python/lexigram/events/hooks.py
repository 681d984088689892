"""Payloads of the framework hooks that this package fires; all hooks are optional. Source: spec/reference-surface.md.

An action registered in the framework's hook registry under a class's `name` is called with `payload=<instance>`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from lexigram.contracts.core.hooks import HookRegistryProtocol

__all__ = ["EventHandledHook", "EventPublishedHook", "EventStoredHook", "fire"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EventPublishedHook:
    """An event was accepted by the event bus."""

    name: ClassVar[str] = "events.published"

    event_type: str
    aggregate_id: str | None = None


@dataclass(frozen=True, slots=True)
class EventHandledHook:
    """A handler has handled an event."""

    name: ClassVar[str] = "events.handled"

    event_type: str
    handler: str


@dataclass(frozen=True, slots=True)
class EventStoredHook:
    """An event was committed to a stream."""

    name: ClassVar[str] = "events.stored"

    event_type: str
    stream_id: str


async def fire(hooks: HookRegistryProtocol, payload: EventPublishedHook | EventHandledHook | EventStoredHook) -> None:
    """Tell a registry what has happened. What it raises is logged: the caller must not take it for its own failure."""
    try:
        await hooks.call_action(payload.name, payload=payload)
    except Exception:
        logger.exception("the hooks for %s failed", payload.name)
