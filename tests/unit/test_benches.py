"""The benchmarks run, and their verdicts follow from the numbers alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches import servers
from benches.bars import BARS, ES_PY, OURS_313, PUBLISHED, PURE
from benches.figures import Figure
from benches.report import page_text, write_page
from benches.verdicts import Row, growth_row, verdicts

ROOT = Path(__file__).resolve().parents[2]


def measured(ours: list[float], **others: list[float]) -> dict[str, Any]:
    """Return the numbers of one operation, nanoseconds in each round."""
    found = {"ours": ours, **others}
    return {name: {"min": min(rounds), "median": sorted(rounds)[1], "rounds": rounds} for name, rounds in found.items()}


def row(report: dict[str, Any], what: str, other: str = "") -> Row:
    """Return the one row about something."""
    (found,) = [row for row in verdicts(report) if row.what == what and row.other in (other, other or row.other)]
    return found


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """One slow round on either side changes nothing."""
    report = {"results": {"append, batch of 1": measured([100, 100, 900], published=[5_000, 90_000, 5_100])}}
    found = row(report, "append, batch of 1", PUBLISHED)
    assert (found.bar, found.measured, found.verdict) == ("≥ 50x", "50x", "reached")


def test_a_bar_just_missed_is_missed() -> None:
    """The verdict is of the number itself, not of how it is printed."""
    report = {"results": {"append, batch of 1": measured([100, 100, 100], published=[4_999, 4_999, 4_999])}}
    assert row(report, "append, batch of 1", PUBLISHED).verdict == "missed"


@pytest.mark.parametrize(("ours", "verdict"), [(149.0, "reached"), (151.0, "missed")])
def test_an_upper_bound_is_of_ours_against_the_other(ours: float, verdict: str) -> None:
    """At most 1.5 times a bare struct is printed as that, not upside down."""
    other = "construct a bare msgspec.Struct, 5 fields"
    bare = measured([0.0, 0.0, 0.0], **{PURE: [100.0, 100.0, 100.0]})
    report = {"results": {"construct event, 5 fields": measured([ours] * 3), other: {PURE: bare[PURE]}}}
    found = row(report, "construct event, 5 fields", other)
    assert (found.bar, found.measured, found.verdict) == ("≤ 1.5x", f"{ours / 100:.3g}x", verdict)


def test_our_other_interpreter_is_compared_with_the_library_that_needs_it() -> None:
    """The number of 3.11 is not used for it."""
    results = {"repository: load 1,000 events": measured([1, 1, 1], **{OURS_313: [20, 20, 20], ES_PY: [90, 90, 90]})}
    assert row({"results": results}, f"repository: load 1,000 events ({OURS_313})", ES_PY).verdict == "missed"


@pytest.mark.parametrize(
    ("costs", "span", "verdict"),
    [
        ([100, 95, 119, 110], "0.95x to 1.19x", "reached"),
        ([100, 95, 121, 110], "0.95x to 1.21x", "missed"),
        ([100, 79, 100, 100], "0.79x to 1.00x", "missed"),
    ],
)
def test_growth_is_flat_within_a_fifth_at_every_size(costs: list[float], span: str, verdict: str) -> None:
    """The worst size decides, in both directions."""
    sizes = zip((1_000, 10_000, 100_000, 1_000_000), costs, strict=True)
    report = {"results": {f"growth: tail at {size:,}": measured([cost, 2 * cost, 3 * cost]) for size, cost in sizes}}
    found = growth_row(report, "tail")
    assert (found.measured, found.verdict) == (span, verdict)


def test_a_full_collection_is_measured_against_the_same_process_without_events() -> None:
    """The quickest of each, the median of the processes: 30 - 9 ms are too many."""
    processes = [{"before": [9.0, 12.0], "after": [after, 44.0]} for after in (30.0, 9.0, 40.0)]
    report = {"results": {}, "collector": {"ours": processes}}
    found = row(report, "full collection with 1,000,000 stored events, above none stored")
    assert (found.measured, found.verdict) == ("21 ms", "missed")


def test_what_did_not_run_is_said_so() -> None:
    """An empty run reaches nothing, and nothing is missed by it."""
    rows = verdicts({"results": {}})
    assert len(rows) > len(BARS)
    assert {row.verdict for row in rows} == {"not run"}


@pytest.mark.parametrize(
    ("figure", "bar", "verdict"),
    [
        (Figure("rate", 2_999.9, "/s", at_least=3_000), "≥ 3,000 /s", "missed"),
        (Figure("rate", 3_000.0, "/s", at_least=3_000), "≥ 3,000 /s", "reached"),
        (Figure("latency", 25.01, "ms", at_most=25), "≤ 25 ms", "missed"),
        (Figure("rate", None, "/s", at_least=3_000), "≥ 3,000 /s", "not run"),
        (Figure("rate", 1.0, "/s"), "", ""),
    ],
)
def test_a_figure_reaches_its_bar_or_not(figure: Figure, bar: str, verdict: str) -> None:
    """Exactly at the bar is reached."""
    assert (figure.bar, figure.verdict) == (bar, verdict)


def test_the_page_is_written_from_a_run_with_gaps(tmp_path: Path) -> None:
    """Libraries that failed and servers that were not there are on the page as such."""
    report = {
        "machine": {"cpu": "a", "cores": 2, "system": "b", "load": 0.1},
        "pythons": {"ours": "3.11", PUBLISHED: "3.11"},
        "rounds": 3,
        "seconds": 61,
        "notes": ["eventsource-py: not run."],
        "results": {"read 1,000": {**measured([100, 100, 100]), PUBLISHED: {"error": "no such method"}}},
        "collector": {"ours": [{"error": "out of memory"}]},
        "servers": {"PostgreSQL": {"printed": "", "figures": [], "failed": "ended early: no server"}},
    }
    write_page(report, tmp_path / "performance.md")
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "| read 1,000 | 100 ns / 100 ns | error: no such method |" in page
    assert "The run took 1 min 1 s" in page
    assert "ended early: no server" in page
    assert "| the rest of: PostgreSQL |  |  |  | not run |" in page
    assert "## What this page does not cover" in page
    assert "busy" not in page


def test_a_busy_machine_is_named_on_the_page(tmp_path: Path) -> None:
    """Nobody takes the rates of such a run for what the library can do."""
    report = {
        "machine": {"cpu": "a", "cores": 2, "system": "b", "load": 1.1},
        "pythons": {},
        "rounds": 1,
        "seconds": 1,
        "notes": [],
        "results": {},
        "collector": {},
        "servers": {},
    }
    write_page(report, tmp_path / "performance.md")
    assert "**The machine was busy" in (tmp_path / "performance.md").read_text(encoding="utf-8")


def test_a_module_of_rates_that_fails_leaves_what_it_had() -> None:
    """Its figures count, and the reason is kept for the page."""
    code = (
        "from benches.figures import Figure, show\n"
        "show(Figure('rate', 5, '/s', at_least=4))\n"
        "raise SystemExit('the server has gone')"
    )
    found = servers.run([sys.executable, "-c", code])
    assert [Figure(**figure).verdict for figure in found["figures"]] == ["reached"]
    assert found["printed"].startswith("rate")
    assert found["failed"] == "ended early: the server has gone"


def test_the_page_says_what_the_results_say() -> None:
    """Nobody writes into it by hand: `python -m benches --page` makes it of `benches/results.json`."""
    report = json.loads((ROOT / "benches" / "results.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == page_text(report)


@pytest.mark.slow
def test_every_benchmark_of_ours_runs() -> None:
    """Once each, without timing: `make bench-own` times them."""
    command = [sys.executable, "-m", "pytest", "benches", "--benchmark-disable", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
