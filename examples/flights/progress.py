"""A progress line with rate and remaining time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_WIDTH = 30
_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 10.0


class Progress:
    """Counts flights; writes a line that updates itself in a terminal, and a new one every ten seconds elsewhere.

    Args:
        total: Flights in all, from 1.
        note: Returns what is shown behind the numbers.
    """

    def __init__(self, total: int, note: Callable[[], str] = str) -> None:
        self._total = total
        self._note = note
        self._done = 0
        self._skipped = 0
        self._started = time.monotonic()
        self._shown = 0.0
        self._live = sys.stderr.isatty()

    def skip(self, count: int) -> None:
        """Note what an earlier run has done; it does not count for the rate."""
        self._done += count
        self._skipped += count

    def advance(self) -> None:
        """Note that one flight has ended."""
        self._done += 1
        now = time.monotonic()
        if now - self._shown >= (_TERMINAL_SECONDS if self._live else _LOG_SECONDS):
            self._shown = now
            self.show()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning of this run."""
        return time.monotonic() - self._started

    def show(self) -> None:
        """Write the line."""
        share = self._done / self._total
        rate = (self._done - self._skipped) / max(self.seconds, 0.001)
        left = (self._total - self._done) / rate if rate else 0.0
        bar = "█" * round(share * _WIDTH) + "░" * (_WIDTH - round(share * _WIDTH))
        line = f"{bar} {share:4.0%}  {self._done:,} of {self._total:,} flights  {rate:,.0f}/s  {clock(left)} left"
        note = self._note()
        line = f"{line}  {note}" if note else line
        print(f"\r{line}\x1b[K" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Write the last state and end the line."""
        self.show()
        if self._live:
            print(file=sys.stderr)


def clock(seconds: float) -> str:
    """Return seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
