"""What can be asked of a flight."""

from __future__ import annotations

from datetime import date

from lexigram.events import Command


class ScheduleFlight(Command[None]):
    flight: str
    carrier: str
    number: int
    tail: str | None
    origin: str
    destination: str
    day: date
    departs: int
    distance: int
    seats: int
    passengers: int


class RecordDeparture(Command[None]):
    flight: str
    delay: int


class RecordArrival(Command[None]):
    flight: str
    delay: int
    minutes_flown: int


class RecordDiversion(Command[None]):
    flight: str


class CancelFlight(Command[None]):
    flight: str


class ReserveSeats(Command[int]):
    """Reserve up to `seats`; the answer is how many were free."""

    flight: str
    seats: int
    coming_from: str


class ReleaseSeats(Command[None]):
    flight: str
    seats: int
    coming_from: str


class OpenRebooking(Command[int]):
    flight: str


class ConfirmRebooking(Command[None]):
    flight: str
    passengers: int
    flights: int


class RefundPassengers(Command[None]):
    flight: str
    passengers: int
