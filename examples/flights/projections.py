"""Read models of the demo. Rows and position of each are written in one transaction with the log's own database."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

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

ON_TIME_MINUTES = 15
"""An arrival less than this late counts as on time."""

OUTCOMES = (FlightScheduled, FlightDeparted, FlightArrived, FlightDiverted, FlightCancelled)
COUNTERS = ("scheduled", "departed", "departure_delay", "arrived", "arrival_delay", "on_time", "diverted", "cancelled")


class Punctuality(DurableProjection):
    """Counts and delays per group of flights; a subclass says what the groups are."""

    handles = OUTCOMES
    keys: Sequence[str] = ()

    def group(self, event: Any) -> tuple[Any, ...]:
        """Return the values of the key columns."""
        raise AssertionError

    def project_batch(self, connection: sqlite3.Connection, events: Sequence[DomainEvent]) -> None:
        """Sum up the batch in memory, then add each group's sums to its row."""
        sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(COUNTERS))
        for event in events:
            add(sums[self.group(event)], event)
        columns = (*self.keys, *COUNTERS)
        connection.executemany(
            f"INSERT INTO {self.tables[0]} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)}) "
            f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in COUNTERS)}",
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


def _table(name: str, keys: Iterable[str]) -> str:
    counters = ", ".join(f"{counter} INTEGER NOT NULL" for counter in COUNTERS)
    columns = ", ".join(f"{key} NOT NULL" for key in keys)
    return f"CREATE TABLE IF NOT EXISTS {name} ({columns}, {counters}, PRIMARY KEY ({', '.join(keys)})) WITHOUT ROWID"


class CarrierPunctuality(Punctuality):
    """On-time performance by carrier."""

    name = "carriers"
    keys = ("carrier",)
    tables = ("carrier_punctuality",)
    schema = (_table("carrier_punctuality", ("carrier",)),)

    def group(self, event: Any) -> tuple[Any, ...]:
        return (event.carrier,)


class AirportPunctuality(Punctuality):
    """On-time performance by airport and month."""

    name = "airports"
    keys = ("origin", "month")
    tables = ("airport_punctuality",)
    schema = (_table("airport_punctuality", ("origin", "month")),)

    def group(self, event: Any) -> tuple[Any, ...]:
        return event.origin, event.day.month


class AircraftDays(DurableProjection):
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

    def project_batch(self, connection: sqlite3.Connection, events: Sequence[Any]) -> None:
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
        connection.executemany("INSERT INTO aircraft_leg VALUES (?, ?, ?, ?, ?, ?, ?)", legs.values())
        connection.executemany(
            "UPDATE aircraft_leg SET arrival_delay = ?, minutes_flown = ? WHERE flight = ?", arrivals
        )


class Timetable(DurableProjection):
    """Where free seats are, how far each day has come, and what became of the passengers of cancelled flights."""

    name = "timetable"
    handles = (*OUTCOMES, SeatsReserved, SeatsReleased, PassengersRebooked, PassengersRefunded)
    tables = ("timetable", "progress", "rebooking")
    schema = (
        "CREATE TABLE IF NOT EXISTS timetable (flight TEXT PRIMARY KEY, route TEXT NOT NULL, day TEXT NOT NULL, "
        "departs INTEGER NOT NULL, free INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE INDEX IF NOT EXISTS timetable_by_route ON timetable (route, day, departs)",
        "CREATE TABLE IF NOT EXISTS progress (day TEXT PRIMARY KEY, scheduled INTEGER NOT NULL, "
        "ended INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS rebooking (flight TEXT PRIMARY KEY, passengers INTEGER NOT NULL, rebooked INTEGER, "
        "refunded INTEGER) WITHOUT ROWID",
    )

    def project_batch(self, connection: sqlite3.Connection, events: Sequence[Any]) -> None:
        """Handle runs of events of one kind together, in the order of the log."""
        progress: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        pending: list[Any] = []
        for event in events:
            kind = type(event)
            if kind is FlightScheduled:
                progress[event.day.isoformat()][0] += 1
            elif kind in _ENDS:
                progress[event.day.isoformat()][1] += 1
            if kind in _CHANGES:
                if pending and type(pending[-1]) is not kind:
                    _write(connection, pending)
                    pending = []
                pending.append(event)
        if pending:
            _write(connection, pending)
        connection.executemany(
            "INSERT INTO progress VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
            "SET scheduled = scheduled + excluded.scheduled, ended = ended + excluded.ended",
            [(day, *counts) for day, counts in progress.items()],
        )


def _cancelled(connection: sqlite3.Connection, events: Sequence[Any]) -> None:
    connection.executemany("UPDATE timetable SET free = 0 WHERE flight = ?", [(e.aggregate_id,) for e in events])
    connection.executemany(
        "INSERT INTO rebooking (flight, passengers) VALUES (?, ?)", [(e.aggregate_id, e.passengers) for e in events]
    )


def _statement(
    sql: str, values: Callable[[Any], tuple[Any, ...]]
) -> Callable[[sqlite3.Connection, Sequence[Any]], Any]:
    return lambda connection, events: connection.executemany(sql, [values(event) for event in events])


_ENDS = frozenset({FlightArrived, FlightDiverted, FlightCancelled})
_CHANGES: dict[type, Callable[[sqlite3.Connection, Sequence[Any]], Any]] = {
    FlightScheduled: _statement(
        "INSERT INTO timetable VALUES (?, ?, ?, ?, ?)",
        lambda e: (e.aggregate_id, e.origin + e.destination, e.day.isoformat(), e.departs, e.seats - e.passengers),
    ),
    FlightCancelled: _cancelled,
    SeatsReserved: _statement(
        "UPDATE timetable SET free = free - ? WHERE flight = ?", lambda e: (e.seats, e.aggregate_id)
    ),
    SeatsReleased: _statement(
        "UPDATE timetable SET free = free + ? WHERE flight = ?", lambda e: (e.seats, e.aggregate_id)
    ),
    PassengersRebooked: _statement(
        "UPDATE rebooking SET rebooked = ? WHERE flight = ?", lambda e: (e.passengers, e.aggregate_id)
    ),
    PassengersRefunded: _statement(
        "UPDATE rebooking SET refunded = ? WHERE flight = ?", lambda e: (e.passengers, e.aggregate_id)
    ),
}


def _write(connection: sqlite3.Connection, events: Sequence[Any]) -> None:
    _CHANGES[type(events[0])](connection, events)


def all_projections() -> list[DurableProjection]:
    """Return one of each."""
    return [Timetable(), CarrierPunctuality(), AirportPunctuality(), AircraftDays()]
