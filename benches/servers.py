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
    "MongoDB's protocol (FerretDB over PostgreSQL)": ("benches.mongo_rates", ("mongo",)),
    "Redis, `appendfsync always`": ("benches.redis_rates", ()),
    "Projections, exactly once": ("benches.projection_rates", ("postgres",)),
    "A read model built by one process and by two": ("benches.shared_rates", ("postgres",)),
    "Sagas, every step stored": ("benches.saga_rates", ("postgres",)),
    "Outbox": ("benches.outbox_rates", ("postgres",)),
}
"""Title -> module with a `main`, and the servers that it finds in its environment."""


def server_rates() -> dict[str, dict[str, Any]]:
    """Return title -> {"printed": what the module printed, or why it did not run, "figures": those it handed over}."""
    found = {}
    for title, (module, servers) in RATES.items():
        command = [sys.executable, "-m", module]
        if servers:
            command = [sys.executable, str(ROOT / "tools" / "services.py"), "run", *servers, "--", *command]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "figures")
            env, started = {**os.environ, figures.FILE: str(path)}, time.monotonic()
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)
            printed = done.stdout.strip()
            if done.returncode != 0:
                printed += f"\nended early: {done.stderr.strip()[-500:]}"
            found[title] = {"printed": printed.strip(), "figures": figures.read(path)}
        print(f"{title}: {time.monotonic() - started:.0f} s\n{printed}\n", file=sys.stderr, flush=True)
    return found
