"""Stamping: what a store writes on an event. Temporary pure-Python version until the Rust event object lands."""

from __future__ import annotations

from typing import Any

from lexigram.events.messages.event import DomainEvent


def prepare(event: Any) -> Any:
    """Return an event of ours that no store has stamped as it is; anything else as a fresh copy."""
    if isinstance(event, DomainEvent) and event.sequence_number is None:
        return event
    copy = object.__new__(type(event))
    for name, value in event.__dict__.items():
        object.__setattr__(copy, name, value)
    object.__setattr__(copy, "sequence_number", None)
    return copy


def stamp(event: Any, version: int, sequence_number: int) -> None:
    """Write version and position on an event."""
    object.__setattr__(event, "version", version)
    object.__setattr__(event, "sequence_number", sequence_number)
