"""Every bar with what was measured and whether that reaches it, from the numbers of one run."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from benches.bars import (
    BARS,
    COLLECTION_MS,
    GROWTH,
    GROWTH_BOUND,
    IMPORT_RATIO,
    MEMORY_BYTES,
    OURS,
    Bar,
)
from benches.figures import Figure
from benches.frames import BUDGETS

Report = dict[str, Any]


class Row(NamedTuple):
    """One line of the table of bars."""

    what: str
    other: str
    bar: str
    measured: str
    verdict: str


def verdicts(report: Report) -> list[Row]:
    """Return a row for each bar; one whose numbers the run does not have says "not run"."""
    rows = [ratio_row(report, bar) for bar in BARS]
    rows += [growth_row(report, what) for what in GROWTH]
    rows += [figure_row(figure) for figure in facts(report)]
    servers = report.get("servers", {}).items()
    return rows + [Row(f"the rest of: {title}", "", "", "", "not run") for title, answer in servers if answer["failed"]]


def rounds(report: Report, operation: str, name: str) -> list[float]:
    """Return the medians of one operation in one environment, one for each round; empty if it did not run."""
    found: list[float] = report["results"].get(operation, {}).get(name, {}).get("rounds", [])
    return found


def ratio(report: Report, bar: Bar) -> float | None:
    """Return other/ours, or ours/other for an upper bound: the median of the rounds' ratios. None = did not run."""
    ours = rounds(report, bar.operation, bar.ours)
    other = rounds(report, bar.other_operation or bar.operation, bar.other)
    if not ours or len(ours) != len(other):
        return None
    faster = statistics.median(theirs / our for our, theirs in zip(ours, other, strict=True))
    return 1 / faster if bar.at_most else faster


def ratio_row(report: Report, bar: Bar) -> Row:
    """Return the row of a comparison."""
    reached = ratio(report, bar)
    figure = Figure("", reached, "x", **{"at_most" if bar.at_most else "at_least": bar.ratio})
    what = bar.operation if bar.ours == OURS else f"{bar.operation} ({bar.ours})"
    other = bar.other_operation or bar.other
    return Row(what, other, figure.bar, figure.measured, figure.verdict)


def growth(report: Report, what: str) -> dict[int, float]:
    """Return size of the log -> cost against that of the smallest size, minima: what noise adds is not growth."""
    prefix, costs = f"growth: {what} at ", dict[int, float]()
    for operation, results in report["results"].items():
        if operation.startswith(prefix) and "min" in results.get(OURS, {}):
            costs[int(operation.removeprefix(prefix).replace(",", ""))] = results[OURS]["min"]
    return {size: cost / costs[min(costs)] for size, cost in sorted(costs.items())}


def growth_row(report: Report, what: str) -> Row:
    """Return the row that says whether an operation costs the same however long the log is."""
    found = growth(report, what)
    low, high = 1 - GROWTH_BOUND, 1 + GROWTH_BOUND
    name = f"growth: {what}, from 1,000 to 1,000,000 events"
    bar = f"{low:.1f}x to {high:.1f}x"
    if len(found) < 2:
        return Row(name, "the same at 1,000", bar, "", "not run")
    least, most = min(found.values()), max(found.values())
    verdict = "reached" if low <= least and most <= high else "missed"
    return Row(name, "the same at 1,000", bar, f"{least:.2f}x to {most:.2f}x", verdict)


def facts(report: Report) -> list[Figure]:
    """Return everything that has a bar of its own instead of a library to compare with."""
    processes = [found for found in report.get("collector", {}).get(OURS, []) if "after" in found]
    extras = [min(found["after"]) - min(found["before"]) for found in processes]
    extra = max(statistics.median(extras), 0.0) if extras else None
    frames, imports = report.get("frames", {}), report.get("import")
    ratio = imports["lexigram.events"] / imports["lexigram + pydantic"] if imports else None
    found = [
        Figure("full collection with 1,000,000 stored events, above none stored", extra, "ms", at_most=COLLECTION_MS),
        Figure("memory of a stored event, five small fields", report.get("memory"), "bytes", at_most=MEMORY_BYTES),
        Figure("import, against lexigram and pydantic alone", ratio, "x", at_most=IMPORT_RATIO),
    ]
    found += [Figure(f"Python frames: {name}", frames.get(name), "", at_most=most) for name, most in BUDGETS.items()]
    for answer in report.get("servers", {}).values():
        found += [Figure(**figure) for figure in answer["figures"]]
    return [figure for figure in found if figure.bar]


def figure_row(figure: Figure) -> Row:
    """Return the row of a number with a bar."""
    return Row(figure.name, "", figure.bar, figure.measured, figure.verdict)
