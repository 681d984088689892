"""Measured numbers with the bar that each has to reach; rates print theirs and hand them to `make bench`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

FILE: Final = "BENCH_FIGURES"
"""Environment variable: where a module of rates leaves its figures for the page, one JSON object per line."""


class Figure(NamedTuple):
    """One measured number.

    Args:
        name: What was measured, and on what.
        value: The number; None where it was not measured.
        unit: Printed behind it.
        at_least: Smallest value that reaches the bar; None = none.
        at_most: Largest value that reaches the bar; None = none.
    """

    name: str
    value: float | None
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bar(self) -> str:
        """The bar as text, empty if there is none."""
        bounds = (("≥", self.at_least), ("≤", self.at_most))
        return " and ".join(f"{sign} {amount(bound, self.unit)}" for sign, bound in bounds if bound is not None)

    @property
    def measured(self) -> str:
        """The number as text."""
        return "" if self.value is None else amount(self.value, self.unit)

    @property
    def verdict(self) -> str:
        """Return "reached", "missed" or "not run"; empty where there is no bar."""
        if self.at_least is None and self.at_most is None:
            return ""
        if self.value is None:
            return "not run"
        too_little = self.at_least is not None and self.value < self.at_least
        too_much = self.at_most is not None and self.value > self.at_most
        return "missed" if too_little or too_much else "reached"


def amount(value: float, unit: str) -> str:
    """Return a number with as many digits as say something, and its unit."""
    digits = f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
    return f"{digits}{unit}" if unit in ("", "x") else f"{digits} {unit}"


def show(figure: Figure) -> None:
    """Print a figure, with its bar, and hand it to the run of `make bench` that this is part of, if any."""
    bar = f"   bar {figure.bar}: {figure.verdict}" if figure.bar else ""
    print(f"{figure.name:<58} {figure.measured:>20}{bar}", flush=True)
    path = os.environ.get(FILE)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(figure._asdict()) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the figures that a module has left."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
