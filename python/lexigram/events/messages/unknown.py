"""Events whose class this program does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from lexigram.events.messages.event import DomainEvent


class UnknownEvent(DomainEvent):
    """A stored event of a type that is not registered here: readable, and stored again byte for byte.

    Attributes:
        type_name: Full name or alias under which it is stored.
        payload: The stored bytes, kept as they are.
        data: Its fields as plain JSON data.
    """

    type_name: str = ""
    payload: bytes = b""
    data: Mapping[str, Any] = field(default_factory=dict)
