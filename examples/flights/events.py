"""What happens to a flight, and to the passengers of a cancelled one."""

from __future__ import annotations

from datetime import date

from lexigram.events import DomainEvent, event_type


@event_type("flight.scheduled")
class FlightScheduled(DomainEvent):
    carrier: str
    number: int
    tail: str | None
    origin: str
    destination: str
    day: date
    departs: int
    """Minutes after midnight, local time."""
    distance: int
    seats: int
    passengers: int


@event_type("flight.departed")
class FlightDeparted(DomainEvent):
    carrier: str
    tail: str | None
    origin: str
    day: date
    departs: int
    delay: int
    """Minutes; negative is early."""


@event_type("flight.arrived")
class FlightArrived(DomainEvent):
    carrier: str
    tail: str | None
    origin: str
    day: date
    departs: int
    delay: int
    minutes_flown: int


@event_type("flight.diverted")
class FlightDiverted(DomainEvent):
    """It departed and never arrived where it was going, or nobody wrote down when."""

    carrier: str
    origin: str
    day: date


@event_type("flight.cancelled")
class FlightCancelled(DomainEvent):
    flight: str
    carrier: str
    origin: str
    destination: str
    day: date
    departs: int
    passengers: int


@event_type("flight.seats_reserved")
class SeatsReserved(DomainEvent):
    day: date
    seats: int
    coming_from: str


@event_type("flight.seats_released")
class SeatsReleased(DomainEvent):
    day: date
    seats: int
    coming_from: str


@event_type("flight.rebooking_opened")
class RebookingOpened(DomainEvent):
    passengers: int


@event_type("flight.passengers_rebooked")
class PassengersRebooked(DomainEvent):
    passengers: int
    flights: int


@event_type("flight.passengers_refunded")
class PassengersRefunded(DomainEvent):
    passengers: int
