"""Stores many events and notes every pause of the garbage collector; the same source for every library."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH, STREAMS = 10, 1000
LIMITS = [round(step * 10.0**power, 6) for power in range(-3, 3) for step in (1, 2, 5)]
"""Milliseconds: 0.001, 0.002, 0.005, 0.01 and so on up to 500."""
STATM = Path("/proc/self/statm")


async def run(store: Any, make: Callable[[], Any], events: int) -> dict[str, Any]:
    """Append `events` events in batches of 10 to 1,000 streams, the collector running as it does by default.

    Returns:
        About the pauses while appending: `collections`, `longest` and `total` in ms, and `at_least`, the number of those
        that took at least so many ms; `before` and `after`, the ms of five full collections without and with the events;
        `bytes` of memory per event, None where /proc is missing.
    """
    pauses: list[float] = []
    began = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.process_time()
        else:
            pauses.append((time.process_time() - began) * 1000)

    await store.append("warm", [make()])
    before, memory = full_collections(), resident()
    gc.callbacks.append(note)
    for number in range(events // BATCH):
        await store.append(f"order-{number % STREAMS}", [make() for _ in range(BATCH)])
    gc.callbacks.remove(note)
    grown = None if memory is None else ((resident() or 0) - memory) / events
    return {
        "events": events,
        "collections": len(pauses),
        "longest": max(pauses, default=0.0),
        "total": sum(pauses),
        "at_least": {str(limit): sum(pause >= limit for pause in pauses) for limit in LIMITS},
        "before": before,
        "after": full_collections(),
        "bytes": grown,
    }


def full_collections() -> list[float]:
    """Return the milliseconds that five full collections take, after one that cleans up."""
    gc.collect()
    found = []
    for _ in range(5):
        start = time.process_time()
        gc.collect()
        found.append((time.process_time() - start) * 1000)
    return found


def resident() -> int | None:
    """Return the bytes of memory that this process has, or None where /proc is missing."""
    if not STATM.exists():
        return None
    import resource

    return int(STATM.read_text().split()[1]) * resource.getpagesize()
