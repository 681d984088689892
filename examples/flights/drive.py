"""Sends the commands of a year, day by day, many at once; finds out from the log where to go on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from examples.flights import commands as c
from examples.flights.app import App
from examples.flights.data import DataSet, FlightRow
from examples.flights.domain import FlightState
from examples.flights.progress import Progress

DAYS_AHEAD = 2
"""Days on the timetable before the first of them begins to fly."""

IN_FLIGHT = 768
"""Commands that wait for the disk at the same time; they share its commits."""


class Driver:
    """Replays the data set against the command bus.

    Every day's flights are on the timetable before the day before begins to fly, so that passengers of a cancelled
    flight have somewhere to go. While a day flies, the timetable of a later one is filled.
    """

    def __init__(self, app: App, data: DataSet, progress: Progress) -> None:
        self._app = app
        self._data = data
        self._progress = progress
        self._touched: set[str] = set()

    async def run(self) -> None:
        """Send what is missing. A flight that an earlier run began is looked up, all others are known to be new."""
        done = await self._days_done()
        self._progress.skip(sum(len(lines) for day, lines in self._data.days if day.isoformat() in done))
        days = [lines for day, lines in self._data.days if day.isoformat() not in done]
        scheduled = deque[list[FlightRow]]()
        for lines in (*days, *[[]] * DAYS_AHEAD):
            today = scheduled.popleft() if len(scheduled) == DAYS_AHEAD else []
            later = list(self._data.rows(lines))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._each(self._operate, today))
                group.create_task(self._each(self._schedule, later))
            scheduled.append(later)

    async def _days_done(self) -> set[str]:
        """Return the days whose flights have all ended; note the days that an earlier run has begun."""
        await self._app.projections.wait_for("timetable", await self._app.store.head())
        rows = await self._app.store.engine.fetch_all("SELECT day, sum(ended) FROM progress GROUP BY day")
        flights = {day.isoformat(): len(lines) for day, lines in self._data.days}
        done = {day for day, ended in rows if ended == flights.get(day)}
        self._touched = {day for day, _ in rows} - done
        return done

    async def _each(self, send: Callable[[FlightRow], Awaitable[None]], rows: Iterable[FlightRow]) -> None:
        """Send for each row, in order, at most `IN_FLIGHT` at a time."""
        waiting = iter(rows)

        async def sender() -> None:
            for row in waiting:
                await send(row)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(sender())

    async def _state(self, row: FlightRow, otherwise: FlightState) -> FlightState:
        if row.day.isoformat() not in self._touched:
            return otherwise
        flight = await self._app.flights.get(row.flight)
        return FlightState.UNKNOWN if flight is None else flight.state

    async def _schedule(self, row: FlightRow) -> None:
        if await self._state(row, FlightState.UNKNOWN) is FlightState.UNKNOWN:
            await self._app.bus.dispatch(
                c.ScheduleFlight(
                    flight=row.flight,
                    carrier=row.carrier,
                    number=row.number,
                    tail=row.tail,
                    origin=row.origin,
                    destination=row.destination,
                    day=row.day,
                    departs=row.departs,
                    distance=row.distance,
                    seats=row.seats,
                    passengers=row.passengers,
                )
            )

    async def _operate(self, row: FlightRow) -> None:
        dispatch = self._app.bus.dispatch
        state = await self._state(row, FlightState.SCHEDULED)
        if state is FlightState.SCHEDULED:
            if row.departure_delay is None:
                await dispatch(c.CancelFlight(flight=row.flight))
            else:
                await dispatch(c.RecordDeparture(flight=row.flight, delay=row.departure_delay))
                state = FlightState.DEPARTED
        if state is FlightState.DEPARTED:
            if row.arrival_delay is None:
                await dispatch(c.RecordDiversion(flight=row.flight))
            else:
                minutes = row.minutes_flown or 0
                await dispatch(c.RecordArrival(flight=row.flight, delay=row.arrival_delay, minutes_flown=minutes))
        self._progress.advance()
