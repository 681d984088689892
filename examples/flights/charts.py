"""Plots as inline SVG, without any library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

COLORS = ("#2f6fb5", "#e0833a", "#3a9d76", "#b3486f")
_WIDTH = 560


def _svg(height: float, body: str, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def bars(rows: Sequence[tuple[str, float]], show: Callable[[float], str], label: str, color: str = COLORS[0]) -> str:
    """Return horizontal bars from zero, one per row, with their values."""
    left, right, step = 186, 60, 31
    largest = max((value for _, value in rows), default=1.0) or 1.0
    parts = []
    for index, (name, value) in enumerate(rows):
        y = index * step + 6
        width = max(value, 0.0) / largest * (_WIDTH - left - right)
        parts.append(_text(left - 8, y + 13, name, "end"))
        parts.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="17" rx="2" fill="{color}"/>')
        parts.append(_text(left + width + 6, y + 13, show(value), kind="value"))
    return _svg(len(rows) * step + 8, "".join(parts), label)


def _ticks(top: float) -> list[float]:
    step = next(size * 10**power for power in range(12) for size in (1, 2, 5) if top / (size * 10**power) <= 6)
    return [step * index for index in range(int(top // step) + 1)]


def _frame(
    top: float, names: Sequence[str], unit: str, x_of: Callable[[int], float], y_of: Callable[[float], float]
) -> str:
    parts = []
    for tick in _ticks(top):
        y = y_of(tick)
        parts.append(f'<line x1="44" x2="{_WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(38, y + 4, f"{tick / 1000:g}k" if tick >= 10_000 else f"{tick:,.0f}", "end", "axis"))
    parts.append(_text(44, 12, unit, kind="axis"))
    every = -(-len(names) // 20)
    for index, name in enumerate(names):
        if index % every == 0:
            parts.append(_text(x_of(index), 236, name, "middle", "axis"))
    return "".join(parts)


def columns(names: Sequence[str], series: Mapping[str, Sequence[float]], unit: str, label: str) -> str:
    """Return columns, stacked if there are several series."""
    heights = [sum(max(values[index], 0.0) for values in series.values()) for index in range(len(names))]
    top = max(heights, default=1.0) * 1.08 or 1.0
    slot = (_WIDTH - 60) / max(len(names), 1)

    def x_of(index: int) -> float:
        return 48 + slot * (index + 0.5)

    def y_of(value: float) -> float:
        return 218 - value / top * 196

    parts = [_frame(top, names, unit, x_of, y_of)]
    for index in range(len(names)):
        base = 0.0
        for color, values in zip(COLORS, series.values(), strict=False):
            value = max(values[index], 0.0)
            y, bottom = y_of(base + value), y_of(base)
            width = min(slot * 0.72, 60.0)
            parts.append(
                f'<rect x="{x_of(index) - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{max(bottom - y, 0.0):.1f}" fill="{color}"/>'
            )
            base += value
    return _svg(244, "".join(parts), label)


def lines(names: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str, label: str) -> str:
    """Return one line per series; a missing value leaves a gap."""
    top = max((value for values in series.values() for value in values if value is not None), default=1.0) * 1.08 or 1.0
    slot = (_WIDTH - 80) / max(len(names) - 1, 1)

    def x_of(index: int) -> float:
        return 58 + slot * index

    def y_of(value: float) -> float:
        return 218 - max(value, 0.0) / top * 196

    parts = [_frame(top, names, unit, x_of, y_of)]
    for color, values in zip(COLORS, series.values(), strict=False):
        points = [(x_of(index), y_of(value)) for index, value in enumerate(values) if value is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in points]
    return _svg(244, "".join(parts), label)


def legend(names: Sequence[str]) -> str:
    """Return the legend of a plot with several series, as HTML."""
    items = (
        f'<span><i style="background:{color}"></i>{escape(name)}</span>'
        for color, name in zip(COLORS, names, strict=False)
    )
    return f'<p class="legend">{"".join(items)}</p>'
