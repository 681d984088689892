"""One worker process of the demo; the supervisor starts it. Kill it at any time."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from contextlib import AbstractAsyncContextManager

from examples.flights.app import file_worker
from examples.flights.supervisor import DATABASE_VARIABLE
from lexigram.events import ProjectionManager

LOOK_SECONDS = 1.0


def work(kind: str, database: str) -> AbstractAsyncContextManager[ProjectionManager]:
    """Return the work of one kind: "file" for everything on an SQLite file, "projections" or "sagas" on PostgreSQL."""
    if kind == "file":
        return file_worker(database)
    from examples.flights.postgres import worker  # needs asyncpg

    return worker(kind, database)


async def main(kind: str, database: str) -> int:
    """Work until the input is closed; return the exit code."""
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with work(kind, database) as manager:
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
    gc.set_threshold(100_000, 20, 20)  # as in the process that started us
    sys.exit(asyncio.run(main(sys.argv[1], os.environ[DATABASE_VARIABLE])))
