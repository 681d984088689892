"""What an aggregate has not saved yet, and the version that follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any


class PendingEvents:
    """Events applied since the last save. The version counts them; saving (or clearing) them does not change it."""

    # Not a field: every aggregate starts from this class attribute.
    _committed_version: int = 0

    if TYPE_CHECKING:
        _pending_events: list[Any]

    @property
    def version(self) -> int:
        """Version of the last event applied, pending ones included; 0 for a new aggregate."""
        return self._committed_version + len(self._pending_events)

    @property
    def expected_version(self) -> int:
        """The version that the stream must have when the pending events are appended."""
        return self._committed_version

    @property
    def has_uncommitted_events(self) -> bool:
        """Whether there are events that have not been saved."""
        return bool(self._pending_events)

    def pull_events(self) -> list[Any]:
        """Return the pending events; they stay pending."""
        return self._pending_events.copy()

    def get_pending_events(self) -> list[Any]:
        """Return the pending events; they stay pending."""
        return self._pending_events.copy()

    def clear_events(self) -> None:
        """Treat the pending events as saved: the version stays, nothing is pending."""
        self._committed_version += len(self._pending_events)
        self._pending_events.clear()

    def clear_pending_events(self) -> None:
        """Treat the pending events as saved: the version stays, nothing is pending."""
        self.clear_events()

    def collect_events(self) -> list[Any]:
        """Return the pending events and treat them as saved."""
        events = self._pending_events.copy()
        self.clear_events()
        return events
