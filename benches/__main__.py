"""Run the comparison: `python -m benches [--rounds N] [--only TEXT] [--no-write]`. See docs/performance.md."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benches.bars import ES, ES_PY, PUBLISHED, PURE
from benches.environments import CACHE, ROOT, Environment, find_python, install
from benches.report import print_table, write_page
from benches.servers import server_rates
from benches.sqlite_rates import sqlite_rates
from benches.system import import_times, machine, memory_per_event

ONLY_OURS = ("growth:",)
SLOW = "full collection"


def open_environments(notes: list[str]) -> dict[str, Environment]:
    """Start one worker per library; what cannot run here is said in `notes`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    published = install("published", sys.executable, "lexigram-events==0.1.5010")
    pure = install("pure", sys.executable, "msgspec==0.22.0")
    eventsourcing = install("eventsourcing", sys.executable, "eventsourcing==9.5.6")
    environments = {
        "ours": Environment("ours", "ours", Path(sys.executable)),
        PUBLISHED: Environment(PUBLISHED, "lexigram", published),
        PURE: Environment(PURE, "pure", pure),
        ES: Environment(ES, "eventsourcing", eventsourcing),
    }
    python313 = find_python("3.13")
    if python313 is None:
        notes.append("eventsource-py needs Python 3.13, which is not on this machine: not run.")
        return environments
    wheel = build_wheel(python313)
    if wheel is None:
        notes.append("Our wheel could not be built for Python 3.13, so eventsource-py was not run.")
        return environments
    environments[ES_PY] = Environment(
        ES_PY, "eventsource_py", install("eventsource-py", python313, "eventsource-py==0.15.1")
    )
    environments["ours, 3.13"] = Environment("ours, 3.13", "ours", install("ours-313", python313, str(wheel)))
    return environments


def build_wheel(interpreter: str) -> Path | None:
    """Build our wheel for another interpreter and return its path, or None where that fails."""
    import subprocess

    out = CACHE / "wheels"
    maturin = Path(sys.executable).with_name("maturin")
    command = [str(maturin), "build", "--release", "--quiet", "--out", str(out), "-i", interpreter]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    wheels = sorted(out.glob("*cp313*.whl"), key=lambda path: path.stat().st_mtime)
    return wheels[-1] if done.returncode == 0 and wheels else None


def applies(name: str, operation: str) -> bool:
    """Say whether this library runs this operation in this suite."""
    if name == "ours, 3.13":
        return operation.startswith("repository")
    if name == PUBLISHED and operation.startswith(SLOW):
        return False  # a million appends take it minutes
    return name == "ours" or not operation.startswith(ONLY_OURS)


def compare(environments: dict[str, Environment], rounds: int, only: str) -> dict[str, dict[str, Any]]:
    """Return {operation: {library: {"min", "median"}}}; libraries take turns within each round."""
    operations = sorted({op for environment in environments.values() for op in environment.operations if only in op})
    samples: dict[str, dict[str, list[dict[str, Any]]]] = {operation: {} for operation in operations}
    for turn in range(rounds):
        for operation in operations:
            if turn and operation.startswith((SLOW, *ONLY_OURS)):
                continue
            for name, environment in environments.items():
                if operation in environment.operations and applies(name, operation):
                    answer = environment.measure(operation, 0.15)
                    samples[operation].setdefault(name, []).append(answer)
        print(f"round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
    return {
        operation: {name: summary(answers) for name, answers in found.items()} for operation, found in samples.items()
    }


def summary(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the smallest minimum and the median of the medians, or the error."""
    errors = [answer["error"] for answer in answers if "error" in answer]
    if errors:
        return {"error": errors[0]}
    return {
        "min": min(answer["min"] for answer in answers),
        "median": statistics.median(answer["median"] for answer in answers),
    }


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="compare lexigram-events with other libraries")
    parser.add_argument("--rounds", type=int, default=5, help="turns per operation (default 5)")
    parser.add_argument("--only", default="", help="run only operations that contain this text")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    notes: list[str] = []
    environments = open_environments(notes)
    try:
        results = compare(environments, options.rounds, options.only)
    finally:
        for environment in environments.values():
            environment.close()
    report: dict[str, Any] = {
        "machine": machine(),
        "pythons": {name: environment.version for name, environment in environments.items()},
        "rounds": options.rounds,
        "notes": notes,
        "results": results,
    }
    if not options.only:
        report["sqlite"] = sqlite_rates()
        report["servers"] = server_rates()
        report["memory"] = memory_per_event()
        report["import"] = import_times()
    print_table(report)
    if not options.no_write and not options.only:
        (ROOT / "benches" / "results.json").write_text(
            json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        write_page(report, ROOT / "docs" / "performance.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
