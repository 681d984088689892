"""What the read models say, as data and in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from examples.flights.app import App
from examples.flights.data import DataSet

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@dataclass(frozen=True)
class Carrier:
    """One line of the carrier table."""

    name: str
    flights: int
    cancelled: int
    on_time_share: float
    mean_departure_delay: float
    mean_arrival_delay: float


@dataclass(frozen=True)
class Report:
    """All numbers of the report."""

    backend: str
    flights: int
    events: int
    new_events: int
    seconds: float
    commits: int
    on_time_share: float
    mean_departure_delay: float
    mean_arrival_delay: float
    cancelled: int
    carriers: list[Carrier]
    months: list[str]
    airports: dict[str, list[float | None]]
    delay_by_leg: list[tuple[int, float, int]]
    delay_by_hour: list[tuple[int, float, int]]
    busiest_aircraft: list[tuple[str, str, int, int, int]]
    rebooking_by_month: list[tuple[str, int, int]]
    sagas: dict[str, int]
    passengers_rebooked: int
    passengers_refunded: int


async def collect(app: App, data: DataSet, *, new_events: int, seconds: float) -> Report:
    """Read the read models."""
    fetch = app.store.engine.fetch_all
    [total] = await fetch(f"SELECT sum(scheduled), sum(cancelled), {', '.join(_MEANS)} FROM carrier_punctuality")
    [refunds] = await fetch("SELECT coalesce(sum(rebooked), 0), coalesce(sum(refunded), 0) FROM rebooking")
    months = [month for (month,) in await fetch("SELECT DISTINCT month FROM airport_punctuality ORDER BY month")]
    return Report(
        backend=app.backend,
        flights=total[0],
        events=await app.store.head(),
        new_events=new_events,
        seconds=seconds,
        commits=app.commits,
        cancelled=total[1],
        on_time_share=total[2],
        mean_departure_delay=total[3],
        mean_arrival_delay=total[4],
        carriers=await _carriers(fetch, data),
        months=[_MONTHS[month - 1] for month in months],
        airports=await _airports(fetch, months),
        delay_by_leg=await fetch(_BY_LEG),
        delay_by_hour=await fetch(_BY_HOUR),
        busiest_aircraft=await fetch(
            "SELECT tail, day, legs, worst_delay, coalesce(minutes_flown, 0) FROM aircraft_day "
            "ORDER BY legs DESC, worst_delay DESC, tail LIMIT 5"
        ),
        rebooking_by_month=[
            (_MONTHS[int(month) - 1], rebooked, refunded) for month, rebooked, refunded in await fetch(_REBOOKED)
        ],
        sagas=dict(await fetch("SELECT status, count(*) FROM event_sagas GROUP BY status ORDER BY status")),
        passengers_rebooked=refunds[0],
        passengers_refunded=refunds[1],
    )


def _mean(total: str, count: str) -> str:
    return f"coalesce(CAST(sum({total}) AS DOUBLE PRECISION) / nullif(sum({count}), 0), 0)"


_MEANS = (_mean("on_time", "arrived"), _mean("departure_delay", "departed"), _mean("arrival_delay", "arrived"))

_BY_LEG = """
    SELECT leg, CAST(avg(departure_delay) AS DOUBLE PRECISION), count(*) FROM (
        SELECT departure_delay, row_number() OVER (PARTITION BY tail, day ORDER BY departs, flight) AS leg
        FROM aircraft_leg) AS legs
    GROUP BY leg HAVING leg <= 5 AND count(*) >= 20 ORDER BY leg"""

_BY_HOUR = """
    SELECT departs / 60 AS hour, CAST(avg(departure_delay) AS DOUBLE PRECISION), count(*) FROM aircraft_leg
    GROUP BY hour HAVING count(*) >= 20 ORDER BY hour"""

_REBOOKED = """
    SELECT substr(day, 6, 2) AS month, coalesce(sum(rebooked), 0), coalesce(sum(refunded), 0)
    FROM rebooking JOIN timetable USING (flight) GROUP BY month ORDER BY month"""


async def _carriers(fetch: Any, data: DataSet) -> list[Carrier]:
    rows = await fetch(
        f"SELECT carrier, sum(scheduled), sum(cancelled), {', '.join(_MEANS)} FROM carrier_punctuality "
        "GROUP BY carrier ORDER BY 4 DESC"
    )
    return [Carrier(data.carriers.get(code, code), *rest) for code, *rest in rows]


async def _airports(fetch: Any, months: list[int]) -> dict[str, list[float | None]]:
    found: dict[str, dict[int, float]] = {}
    for origin, month, delay in await fetch(
        f"SELECT origin, month, {_MEANS[1]} FROM airport_punctuality GROUP BY origin, month ORDER BY origin, month"
    ):
        found.setdefault(origin, {})[month] = delay
    return {origin: [delays.get(month) for month in months] for origin, delays in found.items()}


def print_report(report: Report) -> None:
    """Write the report to the terminal."""
    rate = report.new_events / max(report.seconds, 0.001)
    print(f"\n{report.flights:,} flights are {report.events:,} events in one {report.backend}.")
    if report.new_events:
        print(
            f"{report.new_events:,} of them in this run: {report.seconds:.1f} s, {rate:,.0f} events/s, "
            f"{report.commits:,} commits."
        )
    print(
        f"{report.on_time_share:.1%} of arrivals were less than 15 minutes late, {report.cancelled:,} flights cancelled."
    )
    print(
        f"Mean departure delay {report.mean_departure_delay:.3f} min, arrival delay {report.mean_arrival_delay:.3f} min.\n"
    )
    print(f"{'Carrier':<28}{'flights':>9}{'cancelled':>11}{'on time':>9}{'dep. delay':>12}{'arr. delay':>12}")
    for carrier in report.carriers:
        print(
            f"{carrier.name:<28}{carrier.flights:>9,}{carrier.cancelled:>11,}{carrier.on_time_share:>9.1%}"
            f"{carrier.mean_departure_delay:>12.1f}{carrier.mean_arrival_delay:>12.1f}"
        )
    print(f"\nMean departure delay by airport and month\n{'':<6}" + "".join(f"{month:>7}" for month in report.months))
    for origin, delays in report.airports.items():
        print(f"{origin:<6}" + "".join(f"{'-' if delay is None else f'{delay:.1f}':>7}" for delay in delays))
    print("\nAn aircraft's day: mean departure delay by leg from New York")
    print("  ".join(f"leg {leg}: {delay:.1f} min" for leg, delay, _ in report.delay_by_leg))
    ended = ", ".join(f"{count:,} {status}" for status, count in report.sagas.items())
    print(f"\nRebooking sagas: {ended or 'none'}.")
    print(
        f"Passengers of cancelled flights: {report.passengers_rebooked:,} rebooked, "
        f"{report.passengers_refunded:,} refunded (loads are simulated, the data set has none)."
    )


def write_page(report: Report, path: Any) -> None:
    """Write the page with the plots."""
    from examples.flights.page import render

    path.write_text(render(report), encoding="utf-8")
