"""One worker process of the demo on PostgreSQL; the supervisor starts it. Kill it at any time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from examples.flights.postgres import open_store, read_models, saga_worker
from examples.flights.supervisor import DSN_VARIABLE
from lexigram.events import ProjectionManager

LOOK_SECONDS = 1.0


async def main(kind: str, dsn: str) -> int:
    """Work until the input is closed; return the exit code."""
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with open_store(dsn) as store, read_models(store) if kind == "projections" else saga_worker(store) as manager:
        while not ended.done():
            await asyncio.wait((ended,), timeout=LOOK_SECONDS)
            failure = fault(manager)
            if failure is not None:
                print(failure, file=sys.stderr, flush=True)
                os._exit(1)  # the reader of the input would hold us; another worker takes over and tries again
    return 0


def fault(manager: ProjectionManager) -> str | None:
    """Return why a projection of this process has stopped, or None."""
    return next((status["error"] for status in manager.list_status() if status["state"] == "faulted"), None)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started us; it closes our input
    sys.exit(asyncio.run(main(sys.argv[1], os.environ[DSN_VARIABLE])))
