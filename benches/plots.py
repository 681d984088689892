"""The plots of docs/performance.md as SVG: cost against size of the log, pauses of the collector."""

from __future__ import annotations

from math import log10
from typing import Any, NamedTuple

Report = dict[str, Any]
Curves = dict[str, list[tuple[float, float]]]
COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed")
LEFT, RIGHT, TOP, BOTTOM = 90, 575, 30, 280


class Axis(NamedTuple):
    """A logarithmic axis from 10^low to 10^high, with a label for each power of ten."""

    low: int
    high: int
    labels: tuple[str, ...]

    def place(self, value: float, start: float, end: float) -> float:
        """Return where a value is between the ends of the axis."""
        part = (log10(max(value, 10.0**self.low)) - self.low) / (self.high - self.low)
        return start + min(part, 1.0) * (end - start)


def plot(curves: Curves, x: Axis, y: Axis) -> str:
    """Return an SVG of curves on logarithmic axes."""
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 320" font-family="sans-serif" font-size="12">']
    parts.append('<rect width="640" height="320" fill="white"/>')
    for number, label in enumerate(y.labels):
        height = y.place(10.0 ** (y.low + number), BOTTOM, TOP)
        parts.append(f'<path d="M{LEFT} {height:.1f}H{RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{label}</text>')
    for number, label in enumerate(x.labels):
        place = x.place(10.0 ** (x.low + number), LEFT, RIGHT)
        parts.append(f'<text x="{place:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{label}</text>')
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        spots = [(x.place(a, LEFT, RIGHT), y.place(b, BOTTOM, TOP)) for a, b in points]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{RIGHT}" y="{TOP - 14 + 14 * number}" text-anchor="end" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def growth_plot(report: Report) -> str:
    """Return the cost per event against the number of stored events."""
    curves: Curves = {}
    for operation, results in report["results"].items():
        if operation.startswith("growth: ") and "min" in results.get("ours", {}):
            what, _, size = operation.removeprefix("growth: ").partition(" at ")
            curves.setdefault(what, []).append((int(size.replace(",", "")), results["ours"]["min"]))
    sizes = Axis(3, 6, tuple(f"{10**power:,} events" for power in range(3, 7)))
    costs = Axis(1, 4, ("10 ns", "100 ns", "1 µs", "10 µs"))
    return plot({what: sorted(points) for what, points in sorted(curves.items())}, sizes, costs)


def pauses_plot(report: Report) -> str:
    """Return how many pauses of the collector took at least so long, while the same events were stored."""
    curves: Curves = {}
    for name, processes in report["collector"].items():
        found = processes[0]
        if found.get("collections"):
            points = [(float(limit), count) for limit, count in found["at_least"].items() if count]
            curves[f"{name}, {found['events']:,} events"] = [*points, (found["longest"], 1)]
    times = Axis(-3, 3, ("1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"))
    counts = Axis(0, 4, ("1", "10", "100", "1,000", "10,000"))
    return plot(curves, times, counts)
