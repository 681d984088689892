"""What is handed to the committer and to units of work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lexigram.events.messages.codec import EncodedEvent
    from lexigram.events.stores.condition import ResolvedCondition


class AppendRequest(NamedTuple):
    """One append, encoded."""

    stream_id: str
    events: Sequence[EncodedEvent]
    expected_version: int | None
    condition: ResolvedCondition | None
