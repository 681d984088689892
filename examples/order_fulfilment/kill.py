"""Ends this process at a chosen place, as a power cut would."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

STEPS = ("reserve", "charge", "ship", "refund", "release")
MOMENTS = ("before", "after")
PLACES = ("placed", *(f"{step}:{moment}" for step in STEPS for moment in MOMENTS))


@dataclass(frozen=True)
class KillSwitch:
    """Kills this process when it comes to a place.

    Args:
        place: "placed" (the orders are in the log, no saga has begun), or step and moment: "charge:before" (nothing has
            been done) or "charge:after" (the bank has done it and the saga has not stored that). None = nowhere.
    """

    place: str | None = None

    def at(self, place: str) -> None:
        """Do not return, if this is the place."""
        if place == self.place:
            print(f"\nKilled at {place}. Run it again without --kill-at and watch.", flush=True)
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def parse(text: str) -> str:
    """Return the place that a user names; a step alone is its worst moment, after.

    Raises:
        ValueError: There is no such place.
    """
    place = f"{text}:after" if text in STEPS else text
    if place not in PLACES:
        raise ValueError(f"{text!r} is none of {', '.join((*STEPS, *PLACES))}")
    return place
