"""Run the comparison: `python -m benches [--rounds N] [--only TEXT] [--no-write] [--page]`. See docs/performance.md."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benches.bars import ES, ES_PY, OURS, OURS_313, PUBLISHED, PURE
from benches.environments import CACHE, ROOT, Environment, find_python, install
from benches.frames import frame_counts
from benches.report import print_table, write_page
from benches.servers import server_rates
from benches.system import import_times, machine, memory_per_event

RESULTS, PAGE = ROOT / "benches" / "results.json", ROOT / "docs" / "performance.md"
COLLECTED = {OURS: (1_000_000, 3), PUBLISHED: (100_000, 1), PURE: (1_000_000, 1)}
"""How many events each library stores while the collector is watched, and in how many processes, one after the other; a
million events take the published package minutes."""


def open_environments(notes: list[str]) -> list[Environment]:
    """Start one worker per library, and one for our growing logs; what cannot run here is said in `notes`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    published = install("published", sys.executable, "lexigram-events==0.1.5010")
    pure = install("pure", sys.executable, "msgspec==0.22.0")
    eventsourcing = install("eventsourcing", sys.executable, "eventsourcing==9.5.6")
    environments = [
        Environment(OURS, "ours", Path(sys.executable)),
        Environment(OURS, "growth", Path(sys.executable)),
        Environment(PUBLISHED, "lexigram", published),
        Environment(PURE, "pure", pure),
        Environment(ES, "eventsourcing", eventsourcing),
    ]
    python313 = find_python("3.13")
    if python313 is None:
        notes.append("eventsource-py needs Python 3.13, which is not on this machine: not run.")
        return environments
    wheel = build_wheel(python313)
    if wheel is None:
        notes.append("Our wheel could not be built for Python 3.13, so eventsource-py was not run.")
        return environments
    theirs = install("eventsource-py", python313, "eventsource-py==0.15.1")
    environments.append(Environment(ES_PY, "eventsource_py", theirs))
    environments.append(Environment(OURS_313, "lexigram", install("ours-313", python313, str(wheel))))
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


def compare(environments: list[Environment], rounds: int, only: str) -> dict[str, dict[str, Any]]:
    """Return {operation: {library: {"min", "median", "rounds"}}}; libraries take turns within each round."""
    operations = sorted({op for environment in environments for op in environment.operations if only in op})
    samples: dict[str, dict[str, list[dict[str, Any]]]] = {operation: {} for operation in operations}
    for turn in range(rounds):
        for operation in operations:
            for environment in environments:
                if operation not in environment.operations:
                    continue
                if environment.name == OURS_313 and not operation.startswith("repository"):
                    continue  # it is there for eventsource-py, which has a repository only
                samples[operation].setdefault(environment.name, []).append(environment.measure(operation, 0.15))
        print(f"round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
    return {
        operation: {name: summary(answers) for name, answers in found.items()} for operation, found in samples.items()
    }


def summary(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the smallest minimum, the median of the medians and the median of each round; or the error."""
    errors = [answer["error"] for answer in answers if "error" in answer]
    if errors:
        return {"error": errors[0]}
    medians = [answer["median"] for answer in answers]
    return {
        "min": min(answer["min"] for answer in answers),
        "median": statistics.median(medians),
        "rounds": medians,
    }


def collectors(environments: list[Environment]) -> dict[str, list[dict[str, Any]]]:
    """Return what each library's garbage collector does while events are stored, in each of its fresh processes."""
    found: dict[str, list[dict[str, Any]]] = {}
    for environment in environments:
        events, processes = COLLECTED.get(environment.name, (0, 0))
        if environment.name not in found:
            for _ in range(processes):
                fresh = environment.again()
                found.setdefault(environment.name, []).append(fresh.report("collector", events=events))
                fresh.close()
    return found


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="compare lexigram-events with other libraries")
    parser.add_argument("--rounds", type=int, default=5, help="turns per operation (default 5)")
    parser.add_argument("--only", default="", help="run only operations that contain this text, and no rates")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page of results.json again")
    options = parser.parse_args()
    if options.page:
        write_page(json.loads(RESULTS.read_text(encoding="utf-8")), PAGE)
        return 0
    notes: list[str] = []
    report: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "notes": notes}
    environments = open_environments(notes)
    started = time.monotonic()  # making the environments takes its time once, on the first run
    try:
        report["pythons"] = {environment.name: environment.version for environment in environments}
        report["results"] = compare(environments, options.rounds, options.only)
    finally:
        for environment in environments:
            environment.close()
    if not options.only:
        report["collector"] = collectors(environments)
        report["memory"] = memory_per_event()
        report["frames"] = frame_counts()
        report["import"] = import_times()
        report["servers"] = server_rates()
    report["seconds"] = time.monotonic() - started
    print_table(report)
    if not options.no_write and not options.only:
        RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        write_page(report, PAGE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
