"""Rates of everything that keeps its data in a database: each module runs with its servers and prints its own table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent

RATES: Final = {
    "The flights demo, one SQLite file, `synchronous=FULL`": ("benches.demo_rate", ()),
    "PostgreSQL": ("benches.postgres_rates", ("postgres",)),
    "MongoDB's protocol (FerretDB over PostgreSQL)": ("benches.mongo_rates", ("mongo",)),
    "Redis, `appendfsync always`": ("benches.redis_rates", ()),
    "Projections, exactly once": ("benches.projection_rates", ("postgres",)),
    "Outbox": ("benches.outbox_rates", ("postgres",)),
}
"""Title -> module with a `main`, and the servers that it finds in its environment."""


def server_rates() -> dict[str, str]:
    """Return what each module printed, or why it did not run."""
    found = {}
    for title, (module, servers) in RATES.items():
        command = [sys.executable, "-m", module]
        if servers:
            command = [sys.executable, str(ROOT / "tools" / "services.py"), "run", *servers, "--", *command]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        found[title] = done.stdout.strip() if done.returncode == 0 else f"not run: {done.stderr.strip()[-500:]}"
        print(f"{title}\n{found[title]}\n", file=sys.stderr, flush=True)
    return found
