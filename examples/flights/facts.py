"""What is known about the data set, and whether the read models agree with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from examples.flights.app import App
from examples.flights.data import DataSet
from lexigram.events import SagaStatus

if TYPE_CHECKING:
    from examples.flights.app import Store

ALL_FLIGHTS = 336_776


@dataclass
class Facts:
    """Counts and sums of a set of flights."""

    flights: int = 0
    cancelled: int = 0
    departed: int = 0
    departure_delay: int = 0
    arrived: int = 0
    arrival_delay: int = 0
    by_carrier: dict[str, int] = field(default_factory=dict)

    @property
    def mean_departure_delay(self) -> float:
        """Minutes, over the flights that departed."""
        return self.departure_delay / max(self.departed, 1)

    @property
    def mean_arrival_delay(self) -> float:
        """Minutes, over the flights that arrived."""
        return self.arrival_delay / max(self.arrived, 1)


def from_data(data: DataSet) -> Facts:
    """Count the data set itself, without any of the machinery."""
    facts, carriers = Facts(), Counter[str]()
    for _, lines in data.days:
        for row in data.rows(lines):
            facts.flights += 1
            carriers[row.carrier] += 1
            if row.departure_delay is None:
                facts.cancelled += 1
            else:
                facts.departed += 1
                facts.departure_delay += row.departure_delay
            if row.arrival_delay is not None:
                facts.arrived += 1
                facts.arrival_delay += row.arrival_delay
    facts.by_carrier = dict(carriers)
    return facts


async def from_read_model(store: Store, table: str) -> Facts:
    """Add up a read model that counts flights."""
    sums = ("scheduled", "cancelled", "departed", "departure_delay", "arrived", "arrival_delay")
    columns = ", ".join(f"coalesce(sum({name}), 0)" for name in sums)
    row = await store.engine.fetch_one(f"SELECT {columns} FROM {table}")
    assert row is not None
    facts = Facts(*row)
    if table == "carrier_punctuality":
        carriers = "SELECT carrier, sum(scheduled) FROM carrier_punctuality GROUP BY carrier"
        facts.by_carrier = dict(await store.engine.fetch_all(carriers))
    return facts


def published(facts: Facts) -> list[str]:
    """Compare with what is published about all 336,776 flights; return what differs."""
    expected = {
        "flights": (facts.flights, ALL_FLIGHTS),
        "flights without departure time": (facts.cancelled, 8_255),
        "flights that departed": (facts.departed, 328_521),
        "mean departure delay": (round(facts.mean_departure_delay, 3), 12.639),
        "flights that arrived": (facts.arrived, 327_346),
        "mean arrival delay": (round(facts.mean_arrival_delay, 3), 6.895),
    }
    for carrier, count in {"UA": 58_665, "B6": 54_635, "EV": 54_173, "DL": 48_110}.items():
        expected[f"flights of {carrier}"] = (facts.by_carrier.get(carrier, 0), count)
    return [
        f"{name}: {found}, but it is known to be {known}" for name, (found, known) in expected.items() if found != known
    ]


async def check(app: App, data: DataSet) -> list[str]:
    """Return everything that is not as it must be; empty if all is well."""
    expected, problems = from_data(data), []
    for table in ("carrier_punctuality", "airport_punctuality"):
        found = await from_read_model(app.store, table)
        found.by_carrier = found.by_carrier or expected.by_carrier
        if found != expected:
            problems.append(f"{table} says {found}, the data says {expected}")
    if data.flights == ALL_FLIGHTS:
        problems += published(await from_read_model(app.store, "carrier_punctuality"))
    legs = await app.store.engine.fetch_one("SELECT count(*), coalesce(sum(departure_delay), 0) FROM aircraft_leg")
    if legs is None or tuple(legs) != (expected.departed, expected.departure_delay):
        problems.append(f"aircraft_leg has {legs}, the data {(expected.departed, expected.departure_delay)}")
    return problems + await _check_rebooking(app, expected)


async def _check_rebooking(app: App, expected: Facts) -> list[str]:
    """Every cancelled flight has one saga, which has ended; its passengers have a seat or their money; none is oversold."""
    problems = []
    for status in SagaStatus:
        stuck = [] if status.is_terminal else await app.sagas.list(status=status)
        problems += [f"saga {record.saga_id} is {status.value}: {record.error}" for record in stuck]
    totals = await app.store.engine.fetch_one(
        "SELECT count(*), coalesce(sum(passengers), 0), coalesce(sum(rebooked), 0) + coalesce(sum(refunded), 0), "
        "count(CASE WHEN rebooked IS NOT NULL AND refunded IS NOT NULL THEN 1 END) FROM rebooking"
    )
    assert totals is not None
    cases, passengers, helped, twice = totals
    if cases != expected.cancelled:
        problems.append(f"{cases} rebooking cases for {expected.cancelled} cancelled flights")
    if passengers != helped or twice:
        problems.append(f"{passengers} passengers to rebook, {helped} rebooked or refunded, {twice} cases both")
    oversold = await app.store.engine.fetch_all("SELECT flight FROM timetable WHERE free < 0 LIMIT 5")
    if oversold:
        problems.append(f"oversold flights: {[flight for (flight,) in oversold]}")
    return problems
