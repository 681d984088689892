"""What event handling and closing report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lexigram.contracts.domain.events import DomainEvent


@dataclass
class DispatchResult:
    """What the handlers of one event did; middleware of the event bus gets it from `next_handler`."""

    success: bool
    handler_results: list[Any] = field(default_factory=list)
    errors: list[tuple[type, Exception]] = field(default_factory=list)

    @property
    def has_errors(self) -> bool:
        """Whether a handler failed, retries included."""
        return bool(self.errors)

    def raise_if_errors(self) -> None:
        """Raise the only error, or an ExceptionGroup of all."""
        if len(self.errors) == 1:
            raise self.errors[0][1]
        if self.errors:
            raise ExceptionGroup("event handlers failed", [error for _, error in self.errors])


@dataclass(frozen=True)
class CloseReport:
    """How closing went.

    Attributes:
        left: Events with unfinished handlers.
        parked: How many dead letters they became.
        unsaved: How many dead letters their store did not take; they are lost with this process.
    """

    left: tuple[DomainEvent, ...] = ()
    parked: int = 0
    unsaved: int = 0

    @property
    def drained(self) -> bool:
        """Whether everything was handled within the deadline and every dead letter was stored."""
        return not self.left and not self.unsaved
