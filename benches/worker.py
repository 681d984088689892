"""One environment's side of the benchmark: reads one request per line, answers one JSON object per line.

Run as `python worker.py MODULE` with the interpreter of that environment. MODULE is a file of `ops/` that declares its
operations with `@op`. An operation is a coroutine function that sets itself up once (it keeps its state in the dict it
gets), times one short piece of work and returns (nanoseconds, units of work). A `@report` measures in its own way and
returns what it has found.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Operation = Callable[[dict[str, Any]], Awaitable["tuple[float, int]"]]
Report = Callable[..., Awaitable[dict[str, Any]]]
OPERATIONS: dict[str, Operation] = {}
REPORTS: dict[str, Report] = {}


def op(name: str) -> Callable[[Operation], Operation]:
    """Register a coroutine function as the operation `name`."""

    def register(function: Operation) -> Operation:
        OPERATIONS[name] = function
        return function

    return register


def report(name: str) -> Callable[[Report], Report]:
    """Register a coroutine function as the report `name`."""

    def register(function: Report) -> Report:
        REPORTS[name] = function
        return function

    return register


async def measure(name: str, state: dict[str, Any], budget_seconds: float) -> dict[str, Any]:
    """Repeat one operation for about `budget_seconds` and return minimum and median nanoseconds per unit."""
    samples: list[float] = []
    end = time.perf_counter() + budget_seconds
    while len(samples) < 3 or (time.perf_counter() < end and len(samples) < 200):
        gc.collect()
        await OPERATIONS[name](state)  # not timed: the collector has emptied the caches
        nanoseconds, units = await OPERATIONS[name](state)
        samples.append(nanoseconds / units)
    samples.sort()
    return {"min": samples[0], "median": samples[len(samples) // 2], "samples": len(samples)}


async def serve(module: str) -> None:
    """Answer requests until standard input ends."""
    loop = asyncio.get_running_loop()
    states: dict[str, dict[str, Any]] = {}
    print(
        json.dumps({"operations": sorted(OPERATIONS), "python": sys.version.split()[0], "module": module}), flush=True
    )
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        try:
            if "report" in request:
                answer = await REPORTS[request["report"]](**request["arguments"])
            else:
                answer = await measure(request["op"], states.setdefault(request["op"], {}), request["seconds"])
        except Exception as error:  # the comparison goes on; the page shows what this library could not do
            answer = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.modules["worker"] = sys.modules["__main__"]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    out, sys.stdout = sys.stdout, sys.stderr  # libraries that print must not break the protocol
    importlib.import_module(f"ops.{sys.argv[1]}")
    sys.stdout = out
    asyncio.run(serve(sys.argv[1]))
