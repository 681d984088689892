"""What one append, tail read and read by type cost in logs of a thousand to a million events; a worker of its own."""

from __future__ import annotations

import time
from typing import Any

from ops.orders import TYPES, fill, filled, make, new_store
from worker import op

now = time.process_time_ns
SIZES = (1_000, 10_000, 100_000, 1_000_000)
PASSES = 10


async def append(state: dict[str, Any], size: int) -> tuple[float, int]:
    """Time 100 appends of one event; the log is made anew before it has grown by more than a fifth."""
    store = state.get("store")
    if store is None or store.get_global_position() + 100 > size * 1.2:
        store = state["store"] = new_store()
        await fill(store, size, streams=10, types=10)
        for _ in range(100):  # the stream is there already, as long as it gets in the smallest log
            await store.append("tail", [make()])
    batches = [[make()] for _ in range(100)]
    start = now()
    for batch in batches:
        await store.append("tail", batch)
    return now() - start, 100


async def tail(state: dict[str, Any], size: int) -> tuple[float, int]:
    """Time reads of the last 100 events."""
    store = await filled(state, size, streams=10, types=10)
    first = size - 100

    async def read() -> int:
        return len([event async for event in store.stream_all(from_position=first)])

    if await read() != 100:
        raise AssertionError("the tail is not of 100 events")
    start = now()
    for _ in range(PASSES):
        await read()
    return now() - start, 100 * PASSES


async def by_type(state: dict[str, Any], size: int) -> tuple[float, int]:
    """Time reads of the 100 events of one type in ten among the last 1,000."""
    store = await filled(state, size, streams=10, types=10)
    names, first = [TYPES[3].__name__], size - 1000

    async def read() -> int:
        return len([event async for event in store.stream_by_type(names, from_position=first)])

    if await read() != 100:
        raise AssertionError("the last 1,000 events do not have 100 of the type")
    start = now()
    for _ in range(PASSES):
        await read()
    return now() - start, 100 * PASSES


def declare() -> None:
    """Register each operation at each size."""
    for what, operation in (("append", append), ("tail", tail), ("by type", by_type)):
        for size in SIZES:

            async def run(state: dict[str, Any], operation: Any = operation, size: int = size) -> tuple[float, int]:
                found: tuple[float, int] = await operation(state, size)
                return found

            op(f"growth: {what} at {size:,}")(run)


declare()
