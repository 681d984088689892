"""Read models of the demo. Rows and position of each are written in one transaction with the log's own database."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from examples.flights.events import (
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightDiverted,
    FlightScheduled,
    PassengersRebooked,
    PassengersRefunded,
    SeatsReleased,
    SeatsReserved,
)
from lexigram.events import DomainEvent
from lexigram.events.projections.durable import DurableProjection
from lexigram.events.stores.partition import partition_of

ON_TIME_MINUTES = 15
"""An arrival less than this late counts as on time."""

OUTCOMES = (FlightScheduled, FlightDeparted, FlightArrived, FlightDiverted, FlightCancelled)
COUNTERS = ("scheduled", "departed", "departure_delay", "arrived", "arrival_delay", "on_time", "diverted", "cancelled")


Statement = tuple[str, Sequence[Sequence[Any]]]
"""SQL with `?` for parameters, and a row of them for each time it is to be run."""


class FlightProjection(DurableProjection):
    """Says what a batch of events changes, in SQL that every backend of the demo understands.

    Class attributes:
        partitions: How many processes may work on it at once. Each partition has the events of some flights, and adds to
            rows of its own, told by the column `part`: two that share a row would wait for each other.
    """

    partitions: ClassVar[int] = 1

    def part(self, event: Any) -> int:
        """Return the partition whose event this is."""
        return 0 if self.partitions == 1 else partition_of(str(event.aggregate_id), self.partitions)

    def changes(self, events: Sequence[Any]) -> Iterator[Statement]:
        """Return what is to be done, in order."""
        raise AssertionError

    def project_batch(self, connection: sqlite3.Connection, events: Sequence[Any]) -> None:
        """Do it in the transaction that moves the checkpoint."""
        for sql, rows in self.changes(events):
            connection.executemany(sql, rows)


class Punctuality(FlightProjection):
    """Counts and delays per group of flights; a subclass says what the groups are."""

    handles = OUTCOMES
    keys: Sequence[str] = ()

    def group(self, event: Any) -> tuple[Any, ...]:
        """Return the values of the key columns."""
        raise AssertionError

    def changes(self, events: Sequence[DomainEvent]) -> Iterator[Statement]:
        """Sum up the batch in memory, then add each group's sums to its row."""
        sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
        for event in events:
            add(sums[self.group(event)], event)
        columns = (*self.keys, *COUNTERS)
        yield (
            f"INSERT INTO {self.tables[0]} AS t ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)}) "
            f"ON CONFLICT ({', '.join(self.keys)}) DO UPDATE SET "
            + ", ".join(f"{name} = t.{name} + excluded.{name}" for name in COUNTERS),
            [(*group, *values) for group, values in sums.items()],
        )


def add(sums: list[int], event: Any) -> None:
    """Add one event to the counters, which are in the order of `COUNTERS`."""
    kind = type(event)
    if kind is FlightScheduled:
        sums[0] += 1
    elif kind is FlightDeparted:
        sums[1] += 1
        sums[2] += event.delay
    elif kind is FlightArrived:
        sums[3] += 1
        sums[4] += event.delay
        sums[5] += event.delay < ON_TIME_MINUTES
    elif kind is FlightDiverted:
        sums[6] += 1
    else:
        sums[7] += 1


def _table(name: str, keys: dict[str, str]) -> str:
    columns = ", ".join(
        f"{column} {kind} NOT NULL" for column, kind in {**keys, **dict.fromkeys(COUNTERS, "INTEGER")}.items()
    )
    return f"CREATE TABLE IF NOT EXISTS {name} ({columns}, PRIMARY KEY ({', '.join(keys)})) WITHOUT ROWID"


class CarrierPunctuality(Punctuality):
    """On-time performance by carrier."""

    name = "carriers"
    keys = ("carrier", "part")
    tables = ("carrier_punctuality",)
    schema = (_table("carrier_punctuality", {"carrier": "TEXT", "part": "INTEGER"}),)

    def group(self, event: Any) -> tuple[Any, ...]:
        return event.carrier, self.part(event)


class AirportPunctuality(Punctuality):
    """On-time performance by airport and month."""

    name = "airports"
    keys = ("origin", "month", "part")
    tables = ("airport_punctuality",)
    schema = (_table("airport_punctuality", {"origin": "TEXT", "month": "INTEGER", "part": "INTEGER"}),)

    def group(self, event: Any) -> tuple[Any, ...]:
        return event.origin, event.day.month, self.part(event)


class AircraftDays(FlightProjection):
    """Each aircraft's day: its legs in order, with the delay it took along."""

    name = "aircraft"
    handles = (FlightDeparted, FlightArrived)
    tables = ("aircraft_leg",)
    schema = (
        "CREATE TABLE IF NOT EXISTS aircraft_leg (flight TEXT PRIMARY KEY, tail TEXT NOT NULL, day TEXT NOT NULL, "
        "departs INTEGER NOT NULL, departure_delay INTEGER NOT NULL, arrival_delay INTEGER, minutes_flown INTEGER) "
        "WITHOUT ROWID",
        "CREATE VIEW IF NOT EXISTS aircraft_day AS SELECT tail, day, count(*) AS legs, "
        "max(departure_delay) AS worst_delay, sum(minutes_flown) AS minutes_flown FROM aircraft_leg GROUP BY tail, day",
    )

    def changes(self, events: Sequence[Any]) -> Iterator[Statement]:
        """Insert departures and complete them with their arrivals, which come later in the log."""
        legs: dict[str, list[Any]] = {}
        arrivals = []
        for event in events:
            if event.tail is None:
                continue
            if type(event) is FlightDeparted:
                row = [event.aggregate_id, event.tail, event.day.isoformat(), event.departs, event.delay, None, None]
                legs[str(event.aggregate_id)] = row
            elif str(event.aggregate_id) in legs:
                legs[str(event.aggregate_id)][5:] = (event.delay, event.minutes_flown)
            else:
                arrivals.append((event.delay, event.minutes_flown, event.aggregate_id))
        yield "INSERT INTO aircraft_leg VALUES (?, ?, ?, ?, ?, ?, ?)", list(legs.values())
        yield "UPDATE aircraft_leg SET arrival_delay = ?, minutes_flown = ? WHERE flight = ?", arrivals


class Timetable(FlightProjection):
    """Where free seats are, how far each day has come, and what became of the passengers of cancelled flights."""

    name = "timetable"
    handles = (*OUTCOMES, SeatsReserved, SeatsReleased, PassengersRebooked, PassengersRefunded)
    tables = ("timetable", "progress", "rebooking")
    schema = (
        "CREATE TABLE IF NOT EXISTS timetable (flight TEXT PRIMARY KEY, route TEXT NOT NULL, day TEXT NOT NULL, "
        "departs INTEGER NOT NULL, free INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX IF NOT EXISTS timetable_by_route ON timetable (route, day, departs)",
        "CREATE TABLE IF NOT EXISTS progress (day TEXT NOT NULL, part INTEGER NOT NULL, scheduled INTEGER NOT NULL, "
        "ended INTEGER NOT NULL, PRIMARY KEY (day, part)) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS rebooking (flight TEXT PRIMARY KEY, passengers INTEGER NOT NULL, rebooked INTEGER, "
        "refunded INTEGER) WITHOUT ROWID",
    )

    def changes(self, events: Sequence[Any]) -> Iterator[Statement]:
        """Handle runs of events of one kind together, in the order of the log."""
        progress: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
        pending: list[Any] = []
        for event in events:
            kind = type(event)
            if kind is FlightScheduled:
                progress[event.day.isoformat(), self.part(event)][0] += 1
            elif kind in _ENDS:
                progress[event.day.isoformat(), self.part(event)][1] += 1
            if kind in _CHANGES:
                if pending and type(pending[-1]) is not kind:
                    yield from _write(pending)
                    pending = []
                pending.append(event)
        if pending:
            yield from _write(pending)
        yield (
            "INSERT INTO progress AS p VALUES (?, ?, ?, ?) ON CONFLICT (day, part) DO UPDATE "
            "SET scheduled = p.scheduled + excluded.scheduled, ended = p.ended + excluded.ended",
            [(*key, *counts) for key, counts in progress.items()],
        )


Values = Callable[[Any], tuple[Any, ...]]

_ENDS = frozenset({FlightArrived, FlightDiverted, FlightCancelled})
_CHANGES: dict[type, Sequence[tuple[str, Values]]] = {
    FlightScheduled: [
        (
            "INSERT INTO timetable VALUES (?, ?, ?, ?, ?)",
            lambda e: (e.aggregate_id, e.origin + e.destination, e.day.isoformat(), e.departs, e.seats - e.passengers),
        )
    ],
    FlightCancelled: [
        ("UPDATE timetable SET free = 0 WHERE flight = ?", lambda e: (e.aggregate_id,)),
        ("INSERT INTO rebooking (flight, passengers) VALUES (?, ?)", lambda e: (e.aggregate_id, e.passengers)),
    ],
    SeatsReserved: [("UPDATE timetable SET free = free - ? WHERE flight = ?", lambda e: (e.seats, e.aggregate_id))],
    SeatsReleased: [("UPDATE timetable SET free = free + ? WHERE flight = ?", lambda e: (e.seats, e.aggregate_id))],
    PassengersRebooked: [
        ("UPDATE rebooking SET rebooked = ? WHERE flight = ?", lambda e: (e.passengers, e.aggregate_id))
    ],
    PassengersRefunded: [
        ("UPDATE rebooking SET refunded = ? WHERE flight = ?", lambda e: (e.passengers, e.aggregate_id))
    ],
}


def _write(events: Sequence[Any]) -> Iterator[Statement]:
    for sql, values in _CHANGES[type(events[0])]:
        yield sql, [values(event) for event in events]


def all_projections() -> list[FlightProjection]:
    """Return one of each."""
    return [Timetable(), CarrierPunctuality(), AirportPunctuality(), AircraftDays()]
