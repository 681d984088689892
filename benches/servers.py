"""Rates of everything that keeps its data in a database: each module runs with its servers and prints its own table."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benches import figures

ROOT = Path(__file__).resolve().parent.parent

RATES: Final = {
    "SQLite, `synchronous=FULL`, full schema": ("benches.sqlite_rates", ()),
    "The flights demo, one SQLite file, `synchronous=FULL`": ("benches.demo_rate", ()),
    "PostgreSQL": ("benches.postgres_rates", ("postgres",)),
    "PostgreSQL against eventsourcing's recorder": ("benches.recorder_rates", ("postgres",)),
    "Logs that grow, SQLite and PostgreSQL": ("benches.growth_rates", ("postgres",)),
    "MongoDB's protocol (FerretDB over PostgreSQL)": ("benches.mongo_rates", ("mongo",)),
    "Redis, `appendfsync always`": ("benches.redis_rates", ()),
    "Projections, exactly once": ("benches.projection_rates", ("postgres",)),
    "A read model built by one process and by two": ("benches.shared_rates", ("postgres",)),
    "Sagas, every step stored": ("benches.saga_rates", ("postgres",)),
    "Outbox": ("benches.outbox_rates", ("postgres",)),
}
"""Title -> module with a `main`, and the servers that it finds in its environment."""


SECONDS: Final = 300
"""How long one module may take."""


def server_rates() -> dict[str, dict[str, Any]]:
    """Return title -> {"printed": what the module printed, "figures": those it handed over, "failed": why it ended early}."""
    found = {}
    for title, (module, servers) in RATES.items():
        command = [sys.executable, "-m", module]
        if servers:
            command = [sys.executable, str(ROOT / "tools" / "services.py"), "run", *servers, "--", *command]
        started = time.monotonic()
        found[title] = run(command)
        print(f"{title}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        print(f"{found[title]['printed']}\n{found[title]['failed']}", file=sys.stderr, flush=True)
    return found


def run(command: list[str]) -> dict[str, Any]:
    """Run one module and return what it printed and handed over; `failed` is empty if it came to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, path = Path(folder, "out"), Path(folder, "figures")
        env = {**os.environ, figures.FILE: str(path)}
        with out.open("wb") as stdout:
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True)
            try:
                _, errors = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                process.terminate()
                errors = f"not ready after {SECONDS} s"
                process.wait()
        failed = "" if process.returncode == 0 else f"ended early: {errors.strip()[-500:]}"
        printed = out.read_text(encoding="utf-8").strip()
        return {"printed": printed, "figures": figures.read(path), "failed": failed}
