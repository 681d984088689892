"""The flight aggregate: its rules, and nothing of storage."""

from __future__ import annotations

from datetime import date
from enum import StrEnum

from examples.flights.commands import ScheduleFlight
from examples.flights.events import (
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightDiverted,
    FlightScheduled,
    PassengersRebooked,
    PassengersRefunded,
    RebookingOpened,
    SeatsReleased,
    SeatsReserved,
)
from lexigram.events import AggregateRoot
from lexigram.events.exceptions import DomainError


class FlightRuleError(DomainError):
    """The flight's state does not allow this."""


class FlightState(StrEnum):
    """How far a flight has come."""

    UNKNOWN = "unknown"
    SCHEDULED = "scheduled"
    DEPARTED = "departed"
    ARRIVED = "arrived"
    DIVERTED = "diverted"
    CANCELLED = "cancelled"


class Flight(AggregateRoot):
    """One departure."""

    state: FlightState = FlightState.UNKNOWN
    carrier: str = ""
    tail: str | None = None
    origin: str = ""
    destination: str = ""
    day: date = date.min
    departs: int = 0
    seats: int = 0
    passengers: int = 0
    transferred: int = 0

    @property
    def free_seats(self) -> int:
        """Seats for passengers of cancelled flights."""
        return self.seats - self.passengers - self.transferred

    def schedule(self, plan: ScheduleFlight) -> None:
        """Put the flight on the timetable."""
        self._require(FlightState.UNKNOWN)
        self._apply(
            FlightScheduled(
                carrier=plan.carrier,
                number=plan.number,
                tail=plan.tail,
                origin=plan.origin,
                destination=plan.destination,
                day=plan.day,
                departs=plan.departs,
                distance=plan.distance,
                seats=plan.seats,
                passengers=plan.passengers,
            )
        )

    def depart(self, delay: int) -> None:
        """Leave the gate, `delay` minutes late."""
        self._require(FlightState.SCHEDULED)
        self._apply(
            FlightDeparted(
                carrier=self.carrier,
                tail=self.tail,
                origin=self.origin,
                day=self.day,
                departs=self.departs,
                delay=delay,
            )
        )

    def arrive(self, delay: int, minutes_flown: int) -> None:
        """Reach the gate, `delay` minutes late."""
        self._require(FlightState.DEPARTED)
        self._apply(
            FlightArrived(
                carrier=self.carrier,
                tail=self.tail,
                origin=self.origin,
                day=self.day,
                departs=self.departs,
                delay=delay,
                minutes_flown=minutes_flown,
            )
        )

    def divert(self) -> None:
        """Depart without arriving as planned."""
        self._require(FlightState.DEPARTED)
        self._apply(FlightDiverted(carrier=self.carrier, origin=self.origin, day=self.day))

    def cancel(self) -> None:
        """Never depart; everybody booked needs another seat."""
        self._require(FlightState.SCHEDULED)
        self._apply(
            FlightCancelled(
                flight=str(self.id),
                carrier=self.carrier,
                origin=self.origin,
                destination=self.destination,
                day=self.day,
                departs=self.departs,
                passengers=self.passengers + self.transferred,
            )
        )

    def reserve(self, seats: int, coming_from: str) -> int:
        """Take up to `seats` passengers of another flight; returns how many fit."""
        if self.state is FlightState.CANCELLED:
            return 0
        taken = max(0, min(seats, self.free_seats))
        if taken:
            self._apply(SeatsReserved(day=self.day, seats=taken, coming_from=coming_from))
        return taken

    def release(self, seats: int, coming_from: str) -> None:
        """Give reserved seats back; on a cancelled flight there is nothing to give back any more."""
        if self.state is FlightState.CANCELLED:
            return
        if seats > self.transferred:
            raise FlightRuleError(f"{self.id}: {seats} seats cannot be released, {self.transferred} are reserved")
        self._apply(SeatsReleased(day=self.day, seats=seats, coming_from=coming_from))

    def open_rebooking(self) -> int:
        """Begin to look for other seats; returns for how many passengers."""
        self._require(FlightState.CANCELLED)
        self._apply(RebookingOpened(passengers=self.passengers))
        return self.passengers

    def confirm_rebooking(self, passengers: int, flights: int) -> None:
        """Everybody has another seat."""
        self._apply(PassengersRebooked(passengers=passengers, flights=flights))

    def refund(self, passengers: int) -> None:
        """Not everybody could be seated; the group gets its money back."""
        self._apply(PassengersRefunded(passengers=passengers))

    def _require(self, state: FlightState) -> None:
        if self.state is not state:
            raise FlightRuleError(f"flight {self.id} is {self.state.value}, not {state.value}")

    def _handle_flight_scheduled(self, event: FlightScheduled) -> None:
        self.state = FlightState.SCHEDULED
        self.carrier, self.tail = event.carrier, event.tail
        self.origin, self.destination = event.origin, event.destination
        self.day, self.departs = event.day, event.departs
        self.seats, self.passengers = event.seats, event.passengers

    def _handle_flight_departed(self, event: FlightDeparted) -> None:
        self.state = FlightState.DEPARTED

    def _handle_flight_arrived(self, event: FlightArrived) -> None:
        self.state = FlightState.ARRIVED

    def _handle_flight_diverted(self, event: FlightDiverted) -> None:
        self.state = FlightState.DIVERTED

    def _handle_flight_cancelled(self, event: FlightCancelled) -> None:
        self.state = FlightState.CANCELLED
        self.passengers += self.transferred
        self.transferred = 0

    def _handle_seats_reserved(self, event: SeatsReserved) -> None:
        self.transferred += event.seats

    def _handle_seats_released(self, event: SeatsReleased) -> None:
        self.transferred -= event.seats

    def _handle_rebooking_opened(self, event: RebookingOpened) -> None: ...

    def _handle_passengers_rebooked(self, event: PassengersRebooked) -> None: ...

    def _handle_passengers_refunded(self, event: PassengersRefunded) -> None: ...
