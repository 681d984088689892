"""Command line: `python -m examples.order_fulfilment [--kill-at STEP] [--orders N] [--db FILE] [--fresh]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from examples.order_fulfilment.app import open_app
from examples.order_fulfilment.kill import MOMENTS, PLACES, STEPS, KillSwitch, parse
from examples.order_fulfilment.outside import Outside
from examples.order_fulfilment.report import report


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.order_fulfilment",
        description="Reserve, charge, ship; kill it anywhere, run it again, and every order ends once.",
    )
    parser.add_argument(
        "--kill-at",
        default=None,
        metavar="PLACE",
        help=f"kill -9 itself at a step ({', '.join(STEPS)}), there at a moment (charge:{', charge:'.join(MOMENTS)}), "
        "or when the orders are placed (placed)",
    )
    parser.add_argument("--orders", type=int, default=4, help="how many orders there are in all (default: 4)")
    parser.add_argument("--db", type=Path, default=Path("demo/orders.db"), help="the SQLite file; it is continued")
    parser.add_argument("--pace", type=float, default=0.2, help="seconds that a call to another system takes")
    parser.add_argument("--fresh", action="store_true", help="delete the files first")
    options = parser.parse_args()
    if options.orders < 1:
        parser.error("--orders must be at least 1")
    if options.pace < 0:
        parser.error("--pace must be at least 0")
    try:
        options.kill_at = None if options.kill_at is None else parse(options.kill_at)
    except ValueError as error:
        parser.error(f"--kill-at: {error}")
    return options


async def run(path: Path, outside: Outside, switch: KillSwitch, orders: int) -> int:
    """Place the orders, see them to their end, report; return the exit code."""
    async with open_app(path, outside) as app:
        await app.place(orders)
        switch.at(PLACES[0])
        await app.begin()
        await app.settle()
        problems = await report(app)
    for problem in problems:
        print(f"WRONG: {problem}", file=sys.stderr)
    print("Something is WRONG." if problems else "Every order has one end, and nothing was done twice.")
    return 1 if problems else 0


def main() -> int:
    """Run the demo; killed or interrupted, the next run goes on."""
    options = arguments()
    path: Path = options.db
    outside_path = path.with_name(f"{path.stem}-outside.db")
    path.parent.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        for file in (path, outside_path):
            for suffix in ("", "-wal", "-shm", "-journal"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
    switch = KillSwitch(options.kill_at)
    try:
        return asyncio.run(run(path, Outside(outside_path, options.pace, switch), switch, options.orders))
    except KeyboardInterrupt:
        print(f"\nInterrupted. Run it again to go on; everything so far is in {path}.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
