"""Processes that share one database, for tests that kill and stop them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.postgres_schemas import EmptySchemas

ROOT = Path(__file__).parent.parent.parent


def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty database of the backend that the fixture's parameter names."""
    if request.param == "sqlite":
        return str(tmp_path / "shared.db")
    url = request.getfixturevalue("postgres_url")
    return f"{url}|{EmptySchemas(url, purpose='w').config().schema_name}"


class Workers:
    """Worker processes of one database.

    Args:
        script: Prints `ready` when it takes part, and ends when its input is closed.
        more: Arguments behind backend and address.
    """

    def __init__(self, script: Path, backend: str, where: str, *more: str) -> None:
        self.script, self.backend, self.where, self.more = script, backend, where, more
        self.running: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        """Start one more and wait until it takes part."""
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        process = subprocess.Popen(
            [sys.executable, str(self.script), self.backend, self.where, *self.more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        self.running.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End it at once, stopped or not."""
        process.kill()
        process.communicate()
        self.running.remove(process)

    def end(self, process: subprocess.Popen[str]) -> None:
        """Let it end in good order."""
        process.communicate(timeout=30)
        assert process.returncode == 0
        self.running.remove(process)

    def stop_all(self) -> None:
        """Leave nothing behind."""
        for process in list(self.running):
            with suppress(ProcessLookupError):
                self.kill(process)


async def disturb(workers: Workers, chance: random.Random, rounds: int, lease_seconds: float) -> None:
    """Kill, stop past the lease, end and start workers, one to four at a time."""
    for _ in range(rounds):
        await asyncio.sleep(chance.uniform(0.05, 0.4))
        victim = chance.choice(workers.running)
        action = chance.choice(["kill", "stop", "end", "start"])
        if action == "start" and len(workers.running) < 4:
            await asyncio.to_thread(workers.start)
        elif action == "stop":
            victim.send_signal(signal.SIGSTOP)
            await asyncio.sleep(lease_seconds * chance.uniform(1.2, 2.0))
            victim.send_signal(signal.SIGCONT)
        elif action == "kill":
            workers.kill(victim)
        elif len(workers.running) > 1:
            await asyncio.to_thread(workers.end, victim)
        if not workers.running:
            await asyncio.to_thread(workers.start)
