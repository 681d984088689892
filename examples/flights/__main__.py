"""Command line of the demo: `python -m examples.flights [--flights N] [--db FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from pathlib import Path

from examples.flights.app import App, open_app
from examples.flights.data import DataSet, load
from examples.flights.drive import Driver
from examples.flights.facts import check
from examples.flights.progress import Progress, clock
from examples.flights.report import collect, print_report, write_page


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.flights", description=__doc__)
    parser.add_argument("--flights", type=int, default=None, help="only the first N flights of the year (default: all)")
    parser.add_argument("--db", type=Path, default=None, help="the SQLite file; an existing one is continued")
    parser.add_argument("--report", type=Path, default=None, help="where the HTML page goes (default: beside the file)")
    parser.add_argument("--fresh", action="store_true", help="delete the file first")
    options = parser.parse_args()
    if options.flights is not None and options.flights < 1:
        parser.error("--flights must be at least 1")
    return options


async def run(data: DataSet, path: Path, page: Path) -> int:
    """Replay the flights into `path`, check the result, write the report; return the exit code."""
    async with open_app(path) as app:
        progress = Progress(data.flights, lambda: behind(app))
        before = await app.store.head()
        await Driver(app, data, progress).run()
        progress.finish()
        await app.settle()
        seconds = progress.seconds
        problems = await check(app, data)
        events = await app.store.head()
        report = await collect(app, data, new_events=events - before, seconds=seconds)
    print_report(report)
    write_page(report, page)
    print(f"\nThe page with the plots: {page}")
    for problem in problems:
        print(f"WRONG: {problem}", file=sys.stderr)
    print("The read models do NOT agree with the data." if problems else "All read models agree with the known facts.")
    return 1 if problems else 0


def behind(app: App) -> str:
    """Tell how far the slowest projection is behind the log."""
    lag = max(status["lag"] for status in app.projections.list_status())
    return f"projections {lag:,} behind" if lag else ""


def main() -> int:
    """Run the demo; Ctrl-C stops it in good order, and the next run goes on."""
    options = arguments()
    started = time.monotonic()
    data = load(options.flights)
    gc.collect()
    # The year's lines stay for the whole run, and what a command makes dies with it: the collector has little to find.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    path = options.db or Path("demo") / f"flights-{data.flights}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    try:
        code = asyncio.run(run(data, path, options.report or path.with_suffix(".html")))
    except KeyboardInterrupt:
        print(f"\nInterrupted. Run it again to go on; everything so far is in {path}.", file=sys.stderr)
        return 130
    print(f"{clock(time.monotonic() - started)} minutes in all{peak_memory()}.")
    return code


def peak_memory() -> str:
    """Tell the largest memory use so far, where the system says it."""
    if sys.platform == "win32":
        return ""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f", {peak // (1024 * 1024 if sys.platform == 'darwin' else 1024)} MB of memory at most"


if __name__ == "__main__":
    sys.exit(main())
