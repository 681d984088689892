"""Instructions that the Rust core needs for each operation, counted by callgrind: the same whatever else the machine does.

python -m benches.instructions            compare with benches/instructions.json; fail where something needs clearly more
python -m benches.instructions --write    make the present counts the baseline

One program does every operation twice: first to learn classes and fill caches, then to be counted. Between the two it
calls a function of the C library that callgrind takes as the sign to write down its counters. Only instructions of the
core's own code count, not those of the interpreter or of the C library that it calls.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from lexigram.events import (
    AggregateRoot,
    DomainEvent,
    EventSourcingRepository,
    InMemoryEventStore,
)
from lexigram.events.buses.channel import BoundedChannel
from lexigram.events.messages.codec import EventCodec
from tools import valgrind
from tools.servers.base import ServiceError

ROOT: Final = Path(__file__).resolve().parent.parent
BASELINE: Final = Path(__file__).with_name("instructions.json")
TOLERANCE: Final = 1.10
"""How much more than its baseline an operation may need; compilers of different versions differ by a few percent."""
COUNT: Final = 200
CORE: Final = "lexigram/events/_core."
"""Part of the path of the compiled core."""
POSITIONS: Final = frozenset("0123456789+-*")
"""What a line with a cost begins with."""
SIGN: Final = "srand48_r"
"""Called by `srand48`, which nothing else here calls."""


class Ordered(DomainEvent):
    """Five small fields."""

    order_id: str
    product: str
    quantity: int
    price: float
    note: str


class Order(AggregateRoot):
    """An aggregate with one handler."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.total = 0

    def add(self) -> None:
        """Record one event."""
        self._apply(make())

    def _handle_ordered(self, event: Ordered) -> None:
        self.total += event.quantity


def make() -> Ordered:
    """Return a fresh event."""
    return Ordered(order_id="o1", product="p1", quantity=3, price=1.5, note="n")


async def operations() -> dict[str, Callable[[int], Awaitable[object]]]:
    """Return what is counted, each ready to be called with 0 … 2 x COUNT - 1."""
    store, full, channel = InMemoryEventStore(max_events_per_stream=0), InMemoryEventStore(), BoundedChannel(64)
    as_json, as_binary = EventCodec(), EventCodec(format="binary")
    event, written, packed = make(), as_json.encode(make()), as_binary.encode(make())
    await full.append("long", [make() for _ in range(1000)])
    singles = [[make()] for _ in range(2 * COUNT)]
    hundreds = [[make() for _ in range(100)] for _ in range(2 * COUNT)]
    repository, order = EventSourcingRepository(Order, InMemoryEventStore()), Order("order-1")
    for _ in range(100):
        order.add()
    await repository.save(order)

    async def construct(n: int) -> object:
        return make()

    async def put_get(n: int) -> object:
        await channel.put(n)
        return await channel.get()

    async def stream(n: int) -> object:
        return [event async for event in full.stream_all()]

    async def encode(n: int, codec: EventCodec = as_json) -> object:
        return codec.encode(event)

    async def decode(n: int, codec: EventCodec = as_json, row: Any = written) -> object:
        return codec.decode(row.type_name, row.event_type, row.payload, 1, 1)

    return {
        "construct": construct,
        "append, batch of 1": lambda n: store.append("single", singles[n]),
        "append, batch of 100": lambda n: store.append("hundred", hundreds[n]),
        "read 1,000": lambda n: full.read("long"),
        "stream_all, 1,000": stream,
        "encode JSON": encode,
        "decode JSON": decode,
        "encode binary": lambda n: encode(n, as_binary),
        "decode binary": lambda n: decode(n, as_binary, packed),
        "channel put + get": put_get,
        "load 100 events": lambda n: repository.get("order-1"),
    }


async def program() -> list[str]:
    """Do every operation COUNT times, and again between two signs to callgrind; return their names in order."""
    ready = await operations()
    sign = ctypes.CDLL(None).srand48
    gc.disable()
    for operation in ready.values():
        for first in (0, COUNT):
            for n in range(first, first + COUNT):
                await operation(n)
            sign(0)
    return list(ready)


def in_core(part: Path) -> int:
    """Return the instructions inside the core that one file of callgrind's tells of.

    The file is a list of costs: `ob=` names the library that the following lines are about, by a number once it is
    known; the line behind `calls=` is the cost of a call, which is counted where it was spent.
    """
    libraries: dict[str, str] = {}
    total, inside, of_a_call = 0, False, False
    for line in part.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(("ob=", "cob=")):
            key, _, value = line.partition("=")
            number, _, name = value.partition(" ")
            libraries.setdefault(number, name)
            inside = CORE in libraries[number] if key == "ob" else inside
        elif line.startswith("calls="):
            of_a_call = True
        elif line[:1] in POSITIONS and line:
            total += int(line.split()[1]) if inside and not of_a_call else 0
            of_a_call = False
    return total


def measure() -> dict[str, int]:
    """Return instructions per operation.

    Raises:
        ServiceError: Valgrind is missing and cannot be installed here, or its counters were not written down.
    """
    valgrind.install()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "callgrind")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before=*{SIGN}"]
        done = subprocess.run(
            [*command, sys.executable, "-m", "benches.instructions", "--program"],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        names = json.loads(done.stdout) if done.returncode == 0 else []
        parts = [Path(f"{out}.{number}") for number in range(1, 2 * len(names) + 1)]
        if not names or not all(part.exists() for part in parts):
            raise ServiceError(f"callgrind did not count\n{done.stderr[-500:]}")
        return {name: round(in_core(parts[2 * n + 1]) / COUNT) for n, name in enumerate(names)}


def interpreter() -> str:
    """Return what the counts depend on besides our code."""
    return f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]} {platform.machine()}"


def worse(found: dict[str, int], baseline: dict[str, int]) -> list[str]:
    """Return a line for each operation that needs clearly more than its baseline, or has none."""
    return [
        f"{name}: {count:,} instructions, {baseline[name]:,} before" if name in baseline else f"{name}: no baseline"
        for name, count in found.items()
        if count > baseline.get(name, 0) * TOLERANCE + 20
    ]


def main() -> int:
    """Count, then compare or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make these counts the baseline")
    parser.add_argument("--program", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        print(json.dumps(asyncio.run(program())))
        return 0
    try:
        found = measure()
    except ServiceError as error:
        raise SystemExit(str(error)) from None
    known = json.loads(BASELINE.read_text(encoding="utf-8"))
    for name, count in found.items():
        print(f"{name:<24} {count:>9,} {known['counts'].get(name, 0):>9,} before")
    if options.write:
        facts = {"interpreter": interpreter(), "counts": found}
        BASELINE.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        return 0
    if known["interpreter"] != interpreter():
        raise SystemExit(f"the baseline is of {known['interpreter']}, this is {interpreter()}")
    problems = worse(found, known["counts"])
    print("\n".join(problems) or "nothing needs more than before")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
