"""Time, ids and chance of one simulated run: everything that a program takes from outside, given by a seed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from lexigram.events.messages.clock import freeze_clock, number_ids
from lexigram.events.testing.clock import DEFAULT_MOMENT

real_monotonic = time.monotonic
_BASE_SECONDS = 1000.0
"""What the monotonic clock shows at the start: some code takes 0 for never."""


class VirtualClock:
    """Seconds since the start of a run.

    Args:
        real: Time runs, as it must while databases and sockets answer, and can be put forward; False: it stands still
            except for being put forward.
    """

    def __init__(self, *, real: bool = False) -> None:
        self.is_real = real
        self.skipped = 0.0
        self.jumped = 0.0
        """By how much the wall clock, but no other, has been put forward or back."""
        self._origin = real_monotonic()
        self._start = datetime.now(UTC) if real else DEFAULT_MOMENT
        self._base = self._origin if real else _BASE_SECONDS

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.skipped + (real_monotonic() - self._origin if self.is_real else 0.0)

    def monotonic(self) -> float:
        """Return what `time.monotonic()` shows."""
        return self._base + self.elapsed

    def time(self) -> float:
        """Return what `time.time()` shows."""
        return self._start.timestamp() + self.elapsed + self.jumped

    def advance(self, seconds: float) -> None:
        """Put the clock forward, and with it that of all messages."""
        self.skipped += max(0.0, seconds)
        self.tell()

    def jump(self, seconds: float) -> None:
        """Put the wall clock forward, or back, as somebody does who sets it."""
        self.jumped += seconds
        self.tell()

    def tell(self) -> None:
        """Let new messages have the present time."""
        freeze_clock(self._start + timedelta(seconds=self.elapsed + self.jumped))


@contextmanager
def installed(clock: VirtualClock, seed: int) -> Iterator[None]:
    """Let the whole process take its time from `clock`, and its random numbers from `seed`.

    Where time stands still, ids are given by the seed as well, so that two runs are equal bit by bit.
    """
    chance = random.Random(f"ids {seed}")
    replaced: list[tuple[object, str, object]] = []

    def replace(module: object, name: str, value: object) -> None:
        replaced.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    state = random.getstate()
    replace(time, "monotonic", clock.monotonic)
    replace(time, "monotonic_ns", lambda: int(clock.monotonic() * 1e9))
    replace(time, "perf_counter", clock.monotonic)
    replace(time, "time", clock.time)
    replace(time, "time_ns", lambda: int(clock.time() * 1e9))
    if not clock.is_real:
        replace(os, "urandom", chance.randbytes)  # where uuid4() takes its bytes from
        number_ids(1)
    random.seed(f"program {seed}")
    clock.tell()
    try:
        yield
    finally:
        for module, name, value in reversed(replaced):
            setattr(module, name, value)
        random.setstate(state)
        freeze_clock(None)
        number_ids(None)
