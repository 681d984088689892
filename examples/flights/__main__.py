"""Command line of the demo: `python -m examples.flights [--flights N] [--db FILE | --backend postgres --dsn DSN]`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from contextlib import AbstractAsyncContextManager
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
    parser.add_argument(
        "--backend",
        choices=("sqlite", "postgres"),
        default="sqlite",
        help="postgres: projections and sagas in worker processes of their own; kill any of them",
    )
    parser.add_argument("--dsn", default=None, help="a PostgreSQL database for the demo alone; it is continued")
    parser.add_argument("--workers", type=int, default=3, help="projection workers on PostgreSQL (default: 3)")
    options = parser.parse_args()
    if options.flights is not None and options.flights < 1:
        parser.error("--flights must be at least 1")
    if options.workers < 1:
        parser.error("--workers must be at least 1")
    if options.backend == "postgres" and (options.dsn is None or options.fresh or options.db is not None):
        parser.error("--backend postgres needs --dsn, and neither --db nor --fresh: give it an empty database")
    return options


async def run(data: DataSet, opened: AbstractAsyncContextManager[App], page: Path) -> int:
    """Replay the flights, check the result, write the report; return the exit code."""
    async with opened as app:
        progress = Progress(data.flights, app.note)
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


def opened(options: argparse.Namespace, path: Path) -> AbstractAsyncContextManager[App]:
    """Return the demo on the backend that was asked for."""
    if options.backend == "sqlite":
        return open_app(path)
    from examples.flights.postgres import open_shared_app  # needs asyncpg

    return open_shared_app(options.dsn, options.workers)


def main() -> int:
    """Run the demo; Ctrl-C stops it in good order, and the next run goes on."""
    options = arguments()
    started = time.monotonic()
    data = load(options.flights)
    gc.collect()
    # The year's lines stay for the whole run, and what a command makes dies with it: the collector has little to find.
    gc.freeze()
    # The threshold is above what the commands in flight hold, or it would look through them again and again.
    gc.set_threshold(100_000, 20, 20)
    path: Path = options.db or Path("demo") / f"flights-{data.flights}.db"
    page = options.report or path.with_suffix(".html")
    path.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    try:
        code = asyncio.run(run(data, opened(options, path), page))
    except KeyboardInterrupt:
        where = path if options.backend == "sqlite" else "the database"
        print(f"\nInterrupted. Run it again to go on; everything so far is in {where}.", file=sys.stderr)
        return 130
    print(f"{clock(time.monotonic() - started)} minutes in all{peak_memory()}.")
    return code


def peak_memory() -> str:
    """Tell the largest memory use so far, the largest worker's included, where the system says it."""
    if sys.platform == "win32":
        return ""
    import resource

    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return f", {peak // (1024 * 1024 if sys.platform == 'darwin' else 1024)} MB of memory at most"


if __name__ == "__main__":
    sys.exit(main())
