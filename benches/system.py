"""Facts about the machine, the memory of one stored event and the cost of importing the package."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

MEMORY = """
import resource, sys, asyncio
from lexigram.events import Event, InMemoryEventStore
class Ordered(Event):
    order_id: str
    product: str
    quantity: int
    price: float
    note: str
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
async def main(count):
    store = InMemoryEventStore(max_events_per_stream=0)
    price = 1.5
    for start in range(2):  # the first round warms the allocator up
        before, stored = rss(), store.get_global_position()
        for stream in range(1000):
            batch = [Ordered(order_id="o1", product="p1", quantity=3, price=price, note="n") for _ in range(count // 1000)]
            await store.append(f"order-{start}-{stream}", batch)
        grown = rss() - before
    print(grown / count)
asyncio.run(main(300_000))
"""


def machine() -> dict[str, Any]:
    """Return what the page says about where it was measured."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load": load(),
    }


def load() -> float:
    """Return the load average of the last minute, 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def memory_per_event() -> float | None:
    """Return resident bytes per stored event of five small fields, index included; None where /proc is missing."""
    if not Path("/proc/self/statm").exists():
        return None
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    return float(done.stdout)


def import_times(repeats: int = 7) -> dict[str, float]:
    """Return milliseconds to import our package, and the framework plus pydantic alone; medians of interleaved runs."""
    statements = {
        "lexigram + pydantic": "import lexigram, pydantic; lexigram.Application, pydantic.BaseModel",
        "lexigram.events": "import lexigram, pydantic; lexigram.Application, pydantic.BaseModel; import lexigram.events",
    }
    samples: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(repeats):
        for name, statement in statements.items():
            code = f"import time; t = time.perf_counter(); {statement}; print((time.perf_counter() - t) * 1000)"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            samples[name].append(float(done.stdout.splitlines()[-1]))
    return {name: median(values) for name, values in samples.items()}
