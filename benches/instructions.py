"""Instructions that the Rust core needs for each operation, counted by callgrind: the same whatever else the machine does.

python -m benches.instructions            compare with benches/instructions.json; fail where something needs over 10 % more
python -m benches.instructions --write    make the present counts the baseline
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

BASELINE: Final = Path(__file__).with_name("instructions.json")
TOLERANCE: Final = 1.10
SCRIPT: Final = """
import asyncio, sys
from lexigram.events import DomainEvent, InMemoryEventStore
from lexigram.events.buses.channel import BoundedChannel
from lexigram.events.messages.codec import EventCodec

class Ordered(DomainEvent):
    order_id: str
    product: str
    quantity: int
    price: float
    note: str

def make():
    return Ordered(order_id="o1", product="p1", quantity=3, price=1.5, note="n")

async def main(count):
    store, channel = InMemoryEventStore(max_events_per_stream=0), BoundedChannel(64)
    json, binary, event = EventCodec(), EventCodec(format="binary"), make()
    as_json, as_binary = json.encode(event), binary.encode(event)
    rows = lambda one: (one.type_name, one.event_type, one.payload, 1, 1)
    await store.append("long", [make() for _ in range(1000)])
    single = [[make()] for _ in range(count)] if "append, batch of 1" == sys.argv[1] else []
    hundred = [[make() for _ in range(100)] for _ in range(count)] if "append, batch of 100" == sys.argv[1] else []
    for n in range(count):
        {operation}

asyncio.run(main(int(sys.argv[2])))
"""
OPERATIONS: Final = {
    "construct": "make()",
    "append, batch of 1": 'await store.append("s", single[n])',
    "append, batch of 100": 'await store.append("s", hundred[n])',
    "read 1,000": 'await store.read("long")',
    "encode JSON": "json.encode(event)",
    "decode JSON": "json.decode(*rows(as_json))",
    "encode binary": "binary.encode(event)",
    "decode binary": "binary.decode(*rows(as_binary))",
    "channel put + get": "await channel.put(n); await channel.get()",
}
COUNT: Final = 200
PREPARED: Final = ("append, batch of 1", "append, batch of 100")
"""Operations whose programs build their events beforehand: a run that only builds and frees them is taken off."""


def instructions(operation: str, count: int, folder: Path, does: str | None = None) -> int:
    """Return the instructions inside the core of a program that does the operation (or `does`) so often."""
    script, out = folder / "script.py", folder / f"callgrind.{count}"
    script.write_text(SCRIPT.format(operation=does or OPERATIONS[operation]), encoding="utf-8")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable, str(script), operation]
    subprocess.run([*command, str(count)], env={**os.environ, "PYTHONHASHSEED": "0"}, check=True, capture_output=True)
    shown = subprocess.run(
        ["callgrind_annotate", "--threshold=100", str(out)], check=True, capture_output=True, text=True
    ).stdout
    lines = re.findall(r"^\s*([\d,]+) \([^)]*\)\s+.*\[.*_core\.[^\]]*\]$", shown, re.MULTILINE)
    return sum(int(number.replace(",", "")) for number in lines)


def measure() -> dict[str, int]:
    """Return instructions per operation: the difference of two runs, so that starting up cancels out."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for operation in OPERATIONS:
            once, twice = (instructions(operation, count, Path(name)) for count in (COUNT, 2 * COUNT))
            if operation in PREPARED:
                once -= instructions(operation, COUNT, Path(name), "pass")
                twice -= instructions(operation, 2 * COUNT, Path(name), "pass")
            found[operation] = round((twice - once) / COUNT)
            print(f"{operation:<24} {found[operation]:>9,}", flush=True)
    return found


def worse(found: dict[str, int], baseline: dict[str, int]) -> list[str]:
    """Return a line for each operation that needs clearly more than its baseline."""
    return [
        f"{name}: {count:,} instructions, {baseline[name]:,} before"
        for name, count in found.items()
        if name in baseline and count > baseline[name] * TOLERANCE + 20
    ]


def main() -> int:
    """Count, then compare or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="make these counts the baseline")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed")
    found = measure()
    if options.write:
        BASELINE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    problems = worse(found, json.loads(BASELINE.read_text(encoding="utf-8")))
    print("\n".join(problems) or "nothing needs more than before")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
