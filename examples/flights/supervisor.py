"""Starts worker processes, and another one for each that ends before its time."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

DATABASE_VARIABLE = "FLIGHTS_DATABASE"
"""How workers are told where the database is: a command line is there for everybody to read."""

_SHORTEST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_END_SECONDS = 20.0


class Supervisor:
    """Keeps worker processes running while it is open.

    Args:
        database: Where the database is: a path or a DSN.
        kinds: What each worker does; see `worker.work`.
    """

    def __init__(self, database: str, kinds: Sequence[str]) -> None:
        self._database, self._kinds = database, kinds
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._ending = asyncio.Event()
        self.restarts = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._keep(index, kind)) for index, kind in enumerate(self._kinds)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the workers' input, which ends them in good order, and wait for them."""
        self._ending.set()
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
        done, late = await asyncio.wait(self._tasks, timeout=_END_SECONDS)
        for process in self._processes.values():
            process.kill()
        if late:
            await asyncio.wait(late)
        for task in done:
            task.result()

    async def _keep(self, index: int, kind: str) -> None:
        """Run one worker again and again: at once after a kill, with longer and longer pauses where it fails by itself."""
        pause = _SHORTEST_PAUSE_SECONDS
        while not self._ending.is_set():
            process = await self._start(kind)
            self._processes[index] = process
            print(f"{kind} worker {index + 1} is process {process.pid}", file=sys.stderr, flush=True)
            if self._ending.is_set() and process.stdin is not None:
                process.stdin.close()
            code = await process.wait()
            del self._processes[index]
            if self._ending.is_set():
                return
            self.restarts += 1
            print(f"{kind} worker {index + 1} has ended ({code}); starting another one", file=sys.stderr, flush=True)
            if code > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._ending.wait()
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _start(self, kind: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "examples.flights.worker",
            kind,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, DATABASE_VARIABLE: self._database},
        )
