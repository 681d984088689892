"""How fast the flights demo is: 40,000 of the year's 336,776 flights, in processes and a file of its own.

They are January and half of February with its snow: 4.0 % of them are cancelled, each with a saga that costs as much as
several flights. Of the year's flights 2.5 % are, so the year is not slower than this says.

Run: python -m benches.demo_rate
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time

from benches.figures import Figure, show

FLIGHTS = 40_000
YEAR = 336_776


def main() -> None:
    """Print the rate and the memory, and what the whole year would take at that rate."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "examples.flights", "--flights", str(FLIGHTS), "--db", f"{folder}/demo.db"]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        elapsed = time.perf_counter() - started
    found = re.search(r"([\d.]+) s, ([\d,]+) events/s, ([\d,]+) commits", done.stdout)
    memory = re.search(r"(\d+) MB of memory", done.stdout)
    assert found is not None
    assert memory is not None
    seconds = float(found[1])
    print(f"{FLIGHTS:,} flights: {seconds:.1f} s, {found[2]} events/s, {found[3]} commits, {memory[1]} MB")
    print(f"with loading, checks and report: {elapsed:.1f} s")
    year = seconds * YEAR / FLIGHTS
    show(Figure(f"the year of {YEAR:,} flights at this rate, not run", round(year), "s", at_most=120))


if __name__ == "__main__":
    main()
