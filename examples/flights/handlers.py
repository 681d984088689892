"""One handler per command: load the flight, ask it, save it."""

from __future__ import annotations

from examples.flights import commands as c
from examples.flights.domain import Flight
from lexigram.events import EventSourcingRepository
from lexigram.events.buses.command import CommandBusImpl
from lexigram.events.stores.unit_of_work import current_unit_of_work

Flights = EventSourcingRepository[Flight]


KEPT = 4096
"""Flights kept in memory: about two days' worth, so that most need not be read between two commands."""


class RecentFlights:
    """Hands out flights, the ones saved lately without reading them again.

    Each is handed out to one command at a time. One that somebody else has changed meanwhile is found out by the
    expected version when it is saved; it is then read anew.
    """

    def __init__(self, flights: Flights, kept: int) -> None:
        self._flights = flights
        self._kept = kept
        self._recent: dict[str, Flight] = {}

    async def get(self, flight: str) -> Flight:
        """Return the flight; raises AggregateNotFoundError."""
        return self._recent.pop(flight, None) or await self._flights.get_or_raise(flight)

    async def save(self, flight: Flight) -> None:
        """Save its events. Inside a unit of work it is kept when that has committed: it may still be rolled back."""
        await self._flights.save(flight)
        unit = current_unit_of_work()
        if unit is None:
            self._keep(flight)
        else:
            unit.on_commit(lambda: self._keep(flight))

    def _keep(self, flight: Flight) -> None:
        known = self._recent.get(str(flight.id))
        if known is not None and known.version > flight.version:
            return  # a later command has come back before this one
        self._recent[str(flight.id)] = flight
        if len(self._recent) > self._kept:
            del self._recent[next(iter(self._recent))]


class FlightHandlers:
    """Handles every command about flights.

    Args:
        kept: How many flights stay in memory; 0 where others decide about them, so that none is judged by an old state.
    """

    def __init__(self, flights: Flights, kept: int) -> None:
        self._flights = RecentFlights(flights, kept)

    def register(self, bus: CommandBusImpl) -> None:
        """Subscribe the handlers."""
        bus.register(c.ScheduleFlight, self.schedule)
        bus.register(c.RecordDeparture, self.depart)
        bus.register(c.RecordArrival, self.arrive)
        bus.register(c.RecordDiversion, self.divert)
        bus.register(c.CancelFlight, self.cancel)
        bus.register(c.ReserveSeats, self.reserve)
        bus.register(c.ReleaseSeats, self.release)
        bus.register(c.OpenRebooking, self.open_rebooking)
        bus.register(c.ConfirmRebooking, self.confirm_rebooking)
        bus.register(c.RefundPassengers, self.refund)

    async def schedule(self, command: c.ScheduleFlight) -> None:
        flight = Flight(id=command.flight)
        flight.schedule(command)
        await self._flights.save(flight)

    async def depart(self, command: c.RecordDeparture) -> None:
        flight = await self._flights.get(command.flight)
        flight.depart(command.delay)
        await self._flights.save(flight)

    async def arrive(self, command: c.RecordArrival) -> None:
        flight = await self._flights.get(command.flight)
        flight.arrive(command.delay, command.minutes_flown)
        await self._flights.save(flight)

    async def divert(self, command: c.RecordDiversion) -> None:
        flight = await self._flights.get(command.flight)
        flight.divert()
        await self._flights.save(flight)

    async def cancel(self, command: c.CancelFlight) -> None:
        flight = await self._flights.get(command.flight)
        flight.cancel()
        await self._flights.save(flight)

    async def reserve(self, command: c.ReserveSeats) -> int:
        flight = await self._flights.get(command.flight)
        taken = flight.reserve(command.seats, command.coming_from)
        await self._flights.save(flight)
        return taken

    async def release(self, command: c.ReleaseSeats) -> None:
        flight = await self._flights.get(command.flight)
        flight.release(command.seats, command.coming_from)
        await self._flights.save(flight)

    async def open_rebooking(self, command: c.OpenRebooking) -> int:
        flight = await self._flights.get(command.flight)
        passengers = flight.open_rebooking()
        await self._flights.save(flight)
        return passengers

    async def confirm_rebooking(self, command: c.ConfirmRebooking) -> None:
        flight = await self._flights.get(command.flight)
        flight.confirm_rebooking(command.passengers, command.flights)
        await self._flights.save(flight)

    async def refund(self, command: c.RefundPassengers) -> None:
        flight = await self._flights.get(command.flight)
        flight.refund(command.passengers)
        await self._flights.save(flight)
