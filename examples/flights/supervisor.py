"""Starts worker processes, and another one for each that ends before its time."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from typing import Self

DSN_VARIABLE = "FLIGHTS_DSN"
"""How workers are told where the database is: a command line is there for everybody to read."""

_SHORT_LIFE_SECONDS = 2.0
_SHORT_LIVES = 5
_END_SECONDS = 20.0


class Supervisor:
    """Keeps worker processes running while it is open.

    Args:
        dsn: Where the database is.
        kinds: "projections" or "sagas" for each worker.
    """

    def __init__(self, dsn: str, kinds: Sequence[str]) -> None:
        self._dsn, self._kinds = dsn, kinds
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._is_ending = False
        self.restarts = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._keep(index, kind)) for index, kind in enumerate(self._kinds)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the workers' input, which ends them in good order, and wait for them."""
        self._is_ending = True
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
        """Run one worker again and again; give up when it cannot even begin."""
        short = 0
        while not self._is_ending and short < _SHORT_LIVES:
            started = time.monotonic()
            process = await self._start(kind)
            self._processes[index] = process
            print(f"{kind} worker {index + 1} is process {process.pid}", file=sys.stderr, flush=True)
            if self._is_ending and process.stdin is not None:
                process.stdin.close()
            code = await process.wait()
            del self._processes[index]
            if not self._is_ending:
                self.restarts += 1
                short = short + 1 if time.monotonic() - started < _SHORT_LIFE_SECONDS else 0
                print(
                    f"{kind} worker {index + 1} has ended ({code}); starting another one", file=sys.stderr, flush=True
                )
        if short == _SHORT_LIVES:
            print(f"{kind} worker {index + 1} cannot be started; giving it up", file=sys.stderr, flush=True)

    async def _start(self, kind: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "examples.flights.worker",
            kind,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, DSN_VARIABLE: self._dsn},
        )
